"""Make tests/vectors/root: `python -m tests.vectors.make_root FOLDER`.

Three versions of a root (one key; two of three keys, Ed25519 and P-256; the first release key
revoked), a latest.json that has expired, and a small signed copy as revisions 1 and 2. The private
keys are gone when this ends: what lies in tests/vectors/root is never made again, and must verify
for ever.
"""

import shutil
import sys
from pathlib import Path

from tests.verifier.conftest import Signer, sign_described
from tests.verifier.publisher import START, Publisher, ed25519_key, p256_key
from verifier import manifest
from verifier.describe import Checkpoint, describe
from verifier.latest import Newest, Recall
from verifier.progress import silent
from verifier.trust import Trust

NAME = "vectors/root@1"


def main(target: Path) -> None:
    publisher = Publisher(latest_key=p256_key())
    publisher.write(target)
    first = copy_of(target / "revision-1", publisher, 1, None)
    publisher.root += [p256_key(), ed25519_key()]
    publisher.threshold = 2
    publisher.next(publisher.root[:2])
    publisher.revoke_release("The laptop was stolen.")
    second = copy_of(target / "revision-2", publisher, 2, first)
    publisher.write(target)
    word = publisher.latest(
        at=START,
        newest={"vectors/root": "2"},
        checkpoints={NAME: Newest(2, second)},
        recalls={NAME: Recall("It is only a vector.", "vectors/root@2", START)},
    )
    (target / "latest.json").write_bytes(word)


def copy_of(folder: Path, publisher: Publisher, revision: int, previous: str | None) -> str:
    """Sign a small folder; return the digest of the statement."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "vector"}\n')
    work = folder.with_name("work")
    checkpoint = Checkpoint(NAME, revision, START.isoformat(), previous)
    describe(folder, checkpoint, work, silent)
    sign_described(folder, work, Signer(publisher.release, folder), NAME)
    shutil.rmtree(work)
    trust = Trust.in_keys(publisher.release.public_key())
    return manifest.load(folder / "model.sig", trust).statement.digest


if __name__ == "__main__":
    main(Path(sys.argv[1]))
