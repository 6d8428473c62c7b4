"""Make tests/vectors/checkpoint/DATE: `python -m tests.vectors.make_checkpoint FOLDER`.

A small LLaMA-architecture checkpoint, published as a portal does: signed bundle, leaf digests,
value digests and reference, with the sketch that stays with the portal and the public key. The
private key is gone when this ends: what lies there is never made again, and must verify for ever.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.verifier.conftest import make_signer, sign_described

NAME = "vectors/tiny@1"
SHAPE = ("--vocab", "128", "--width", "64", "--hidden", "96", "--layers", "2", "--heads", "4")


def main(target: Path) -> None:
    folder, work, reference = target / "copy", target / "work", target / "reference.json"
    python = [sys.executable, "-m"]
    synthetic = ["inference_check.synthetic", folder, "--layout", "hf", "--parts", "2", *SHAPE]
    run(*python, *synthetic, "--dtype", "float16", "--seed", "7")
    run(*python, "inference_check", folder, "--make-reference", reference)
    key = target / "sketch.key"
    key.write_text("5e" * 32)
    run(
        *(*python, "verifier", "describe", folder, "--name", NAME, "--revision", "1"),
        *("--issued", "2026-11-24T12:00:00+00:00", "--out", work, "--reference", reference),
        *("--sketch-key", key),
    )
    sign_described(folder, work, make_signer(target), NAME)
    shutil.copy(work / "sketch.json", target)
    shutil.rmtree(work)
    reference.unlink()
    key.unlink()


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
