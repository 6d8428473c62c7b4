"""What a case of the corpus is: how its files are made, which check must say what, how it is run."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference_check.synthetic import Shape, make_checkpoint
from tests.verifier.conftest import Published, Signer, publish, sign_again
from verifier import dsse

SHAPE = Shape(layers=1, width=32, heads=2, kv_heads=2, hidden=64, vocab=64)
SHARD = "model-00001-of-00002.safetensors"
SECOND = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
PART = "consolidated.00.pth"
ENTRIES = ("model.sig", ".weighbridge", SHARD, SECOND, INDEX, "config.json")
MIB = 1 << 20
ROOT = os.geteuid() == 0


@dataclass(frozen=True, slots=True)
class Room:
    """A folder for one case: `copy` is spoiled, `cwd`, `home` and `data` are where it runs."""

    folder: Path
    official: Path
    meta: Path
    signer: Signer

    @property
    def copy(self) -> Path:
        return self.folder / "copy"

    @property
    def aside(self) -> Path:
        """Where files lie that are given beside the copy."""
        return self.folder / "aside"

    def give(self, name: str, data: bytes | str) -> Path:
        """Write a file aside and return its path."""
        path = self.aside / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
        return path

    def put(self, name: str, data: bytes | str) -> Path:
        """Write a file of the copy."""
        path = self.copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
        return path

    def without_weights(self) -> Path:
        """Remove the official shards from the copy, so that others in it are compared."""
        for name in (SHARD, SECOND, INDEX):
            (self.copy / name).unlink()
        return self.copy

    def instead(self, name: str, data: bytes) -> None:
        """Put one weight file where the official ones were."""
        self.without_weights()
        self.put(name, data)

    def in_meta(self) -> Path:
        """Turn the copy into Meta's layout of the same weights."""
        shutil.copytree(self.meta, self.without_weights(), dirs_exist_ok=True)
        return self.copy

    def sign(self, payload: bytes) -> None:
        """Put a bundle into the copy whose payload is these bytes, signed by the trusted key."""
        signature = dsse.sign(payload, self.signer.key)
        self.put("model.sig", bundle(payload, signature))

    def sign_again(self, **digests: str) -> None:
        """Sign what lies in the copy now, as a careless publisher might."""
        sign_again(self.copy, self.signer, digests or None)


def bundle(payload: bytes, signature: bytes, **changes: Any) -> bytes:
    """Return a bundle without a key hint."""
    import base64

    made = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": ""}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(made | changes).encode()


Make = Callable[[Room], Iterable[object] | None]


@dataclass(frozen=True, slots=True)
class Case:
    """A hostile or broken copy.

    ``make`` spoils the room's copy and may return options. Status 0 or 1: a finding with ``code``
    says ``says``, a regular expression; status 2: the one sentence on stderr does. With no
    ``argument``, what ``make`` returns is the whole command. ``user`` is who asks, as a number,
    where root would be asking: root may read everything.
    """

    name: str
    make: Make
    says: str
    code: str = ""
    status: int = 1
    key: bool = True
    user: int | None = None
    argument: str = "copy"
    checks: str = "files,weights"
    needs_root: bool = False


def table(
    prefix: str, rows: Mapping[str, tuple[Any, str]], make: Callable[[Any], Make], **common: Any
) -> list[Case]:
    """Return a case per row of name → (what to make it of, what must be said)."""
    return [
        Case(f"{prefix}: {name}", make(given), says, **common)
        for name, (given, says) in rows.items()
    ]


@dataclass(slots=True)
class Answer:
    """What became of a case."""

    status: int | None
    out: str
    err: str
    cpu: float
    seconds: float
    peak: int
    deeds: list[str]
    died: str | None
    left: list[str] = field(default_factory=list)

    @property
    def report(self) -> Any:
        return json.loads(self.out)


class Worker:
    """The server of ``worker.py``, and the official checkpoint that rooms are copies of."""

    def __init__(self, folder: Path, signer: Signer) -> None:
        self.folder = folder
        self.signer = signer
        make_checkpoint(folder / "official", "hf", shape=SHAPE)
        publish(folder / "official", folder / "work", signer)
        make_checkpoint(folder / "meta", "meta", shape=SHAPE)
        for part in (folder / "meta").glob("*.pth"):
            _drop_frequencies(part)
        self.official = Published(folder / "official", signer)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.verifier.hostile.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    @contextlib.contextmanager
    def room(self, folder: Path) -> Iterator[Room]:
        """Make a room with a good copy, for the length of a ``with`` block."""
        for name in ("aside", "cwd", "home", "data"):
            (folder / name).mkdir(parents=True)
        shutil.copytree(self.folder / "official", folder / "copy")
        try:
            yield Room(folder, self.folder / "official", self.folder / "meta", self.signer)
        finally:
            try:
                shutil.rmtree(folder)
            except (OSError, RecursionError):  # closed to all, or too deep for Python
                subprocess.run(["chmod", "-R", "u+rwx", "--", folder], check=True)
                subprocess.run(["rm", "-rf", "--", folder], check=True)

    def ask(self, room: Room, case: Case) -> Answer:
        """Spoil the room's copy and verify it there."""
        options = [str(option) for option in case.make(room) or ()]
        arguments = options if case.argument == "" else [str(room.folder / case.argument), *options]
        if case.argument:
            arguments += ["--json", "--checks", case.checks]
        if case.key and case.argument:
            arguments += ["--trusted-key", str(room.signer.public)]
        return self.run(room, arguments, case.user if ROOT else None)

    def run(self, room: Room, arguments: list[str], user: int | None = None) -> Answer:
        """Run ``python -m verifier`` with ``arguments`` in a process of its own."""
        before = _left(room.folder)
        asked = {"arguments": arguments, "room": str(room.folder), "user": user}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        said = json.loads(self.process.stdout.readline())
        return Answer(
            status=said.get("status"),
            out=(room.folder / "out").read_text(),
            err=(room.folder / "err").read_text(),
            cpu=said.get("cpu", 0.0),
            seconds=said["seconds"],
            peak=said.get("peak", 0),
            deeds=said.get("deeds", []),
            died=said.get("died"),
            left=sorted(_left(room.folder) - before - {"out", "err"}),
        )

    def close(self) -> None:
        """End the server."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()


def _drop_frequencies(path: Path) -> None:
    """Leave out `rope.freqs`: it would tell the width of a head where params.json does not."""
    import torch

    weights = torch.load(path, weights_only=True)
    torch.save({k: v for k, v in weights.items() if k != "rope.freqs"}, path)


def _left(folder: Path) -> set[str]:
    """Return what lies in a room outside `copy` (which is large) and `data` (which may be used)."""
    found = set(os.listdir(folder))
    for name in ("aside", "cwd", "home"):
        found |= {f"{name}/{entry}" for entry in os.listdir(folder / name)}
    return found
