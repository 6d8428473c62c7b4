"""A tiny checkpoint, published and signed; copies of it to be spoiled by the tests."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from safetensors.numpy import save_file

from verifier import dsse, oms
from verifier.describe import Checkpoint, describe
from verifier.progress import silent

MIB = 1 << 20
LEAF = 4 << 20
SHARD = "model-00001-of-00002.safetensors"
SECOND = "model-00002-of-00002.safetensors"


@dataclass(frozen=True)
class Signer:
    """A publisher's key and the file that others trust."""

    key: ec.EllipticCurvePrivateKey
    public: Path


@dataclass(frozen=True)
class Published:
    """A folder with its manifest in it, and the key that signed it."""

    folder: Path
    signer: Signer


def make_signer(folder: Path, curve: ec.EllipticCurve | None = None) -> Signer:
    key = ec.generate_private_key(curve or ec.SECP256R1())
    folder.mkdir(parents=True, exist_ok=True)
    public = folder / "release.pub.pem"
    public.write_bytes(dsse.public_pem(key.public_key()))
    return Signer(key, public)


def fill(folder: Path, seed: int = 7) -> Path:
    """Two safetensors shards of 9 and 5 MiB (three leaves, two leaves), an index and a config."""
    folder.mkdir(parents=True, exist_ok=True)
    random = numpy.random.default_rng(seed)
    names = {"layers.0.a": 4, "layers.0.b": 5, "layers.1.a": 3, "layers.1.b": 2}
    tensors = {
        name: random.standard_normal((size * MIB // 4096, 1024)).astype(numpy.float32)
        for name, size in names.items()
    }
    for number in range(6):
        tensors[f"norms.{number}"] = random.standard_normal(64).astype(numpy.float32)
    shards = {
        SHARD: ["layers.0.a", "layers.0.b"],
        SECOND: [name for name in tensors if not name.startswith("layers.0")],
    }
    for shard, members in shards.items():
        save_file({name: tensors[name] for name in members}, folder / shard)
    weight_map = {name: shard for shard, members in shards.items() for name in members}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text('{"model_type": "test"}\n')
    return folder


def publish(
    folder: Path, work: Path, signer: Signer, *, name: str = "test/tiny@1", revision: int = 1
) -> Published:
    """Describe and sign ``folder`` as the portal does, and put the manifest into it."""
    checkpoint = Checkpoint(name, revision, "2026-01-02T03:04:05+00:00")
    describe(folder, checkpoint, work, silent)
    return Published(sign_described(folder, work, signer, name), signer)


def sign_again(folder: Path, signer: Signer, digests: dict[str, str] | None = None) -> None:
    """Sign what lies in ``folder`` now, as a careless publisher might, with ``digests`` made up."""
    names = {
        str(path.relative_to(folder)): path
        for path in folder.rglob("*")
        if path.is_file() and path.name != "model.sig"
    }
    found = {n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in names.items()}
    resources = [oms.Resource(name, digest) for name, digest in (found | (digests or {})).items()]
    (folder / "model.sig").write_bytes(oms.sign(resources, "test/tiny@1", signer.key))


def sign_described(folder: Path, work: Path, signer: Signer, name: str = "test/tiny@1") -> Path:
    listed = json.loads((work / "resources.json").read_text())["resources"]
    bundle = oms.sign([oms.Resource(**entry) for entry in listed], name, signer.key)
    (folder / "model.sig").write_bytes(bundle)
    shutil.copytree(work / ".weighbridge", folder / ".weighbridge", dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return make_signer(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Published:
    """The official checkpoint; only to be read."""
    root = tmp_path_factory.mktemp("official")
    return publish(fill(root / "tiny"), root / "work", signer)


@pytest.fixture
def copy(published: Published, tmp_path: Path) -> Path:
    """A copy of it, to be spoiled."""
    return shutil.copytree(published.folder, tmp_path / "copy")


@dataclass(frozen=True)
class Outcome:
    """What a command printed and how it ended."""

    status: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        return json.loads(self.out)

    @property
    def codes(self) -> set[str]:
        return {finding["code"] for finding in self.report["findings"]}

    @property
    def sentence(self) -> str:
        """The one line of stderr."""
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return self.err.strip()


Verify = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data folder of the test's own: what it has seen is not remembered elsewhere."""
    monkeypatch.setenv("WEIGHBRIDGE_DATA", str(tmp_path / "data"))


@pytest.fixture
def verify(published: Published, capfd: Any) -> Verify:
    """Run `python -m verifier PATH … --json` in this process."""
    from verifier.command_line import main

    def run(path: Path, *options: object, key: Path | None = published.signer.public) -> Outcome:
        given = [str(path), "--json", *map(str, options)]
        if "--checks" not in given:
            given += ["--checks", "files,weights"]
        if key is not None:
            given += ["--trusted-key", str(key)]
        capfd.readouterr()
        try:
            status = main(given)
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        return Outcome(status, *capfd.readouterr())

    return run


@pytest.fixture
def oms_command(capfd: Any) -> Callable[..., Outcome]:
    """Run `python -m verifier oms …` in this process."""
    from verifier.command_line import main

    def run(*given: object) -> Outcome:
        capfd.readouterr()
        try:
            status = main(["oms", *map(str, given)])
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        return Outcome(status, *capfd.readouterr())

    return run


def run_command(*arguments: object, **options: Any) -> Outcome:
    """Run `python -m verifier` as a person does."""
    done = subprocess.run(
        [sys.executable, "-m", "verifier", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def flip(path: Path, offset: int) -> None:
    """Flip one bit of the byte at ``offset``."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
