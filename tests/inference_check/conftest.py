"""Small checkpoints made from a seed, their reference, and ways to spoil a copy."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

# The oracle must not look for anything on a network.
os.environ["HF_HUB_OFFLINE"] = "1"

from inference_check import __main__ as command
from inference_check.synthetic import Shape, make_checkpoint, make_weights

SHAPE = Shape(layers=4, width=64, heads=4, kv_heads=2, hidden=176, vocab=384)


@dataclass(frozen=True)
class Outcome:
    """What the command printed and how it ended."""

    status: int
    out: str
    err: str

    @property
    def inference(self):
        return json.loads(self.out)


@pytest.fixture(scope="session")
def official(tmp_path_factory):
    """A folder with ``hf`` and ``meta`` of one seed and ``reference.json``; only to be read."""
    root = tmp_path_factory.mktemp("official")
    for layout in ("hf", "meta"):
        make_checkpoint(root / layout, layout, shape=SHAPE)
    reference = str(root / "reference.json")
    assert command.main([str(root / "hf"), "--make-reference", reference]) == 0
    return root


@pytest.fixture(scope="session")
def weights():
    return make_weights(SHAPE)


@pytest.fixture
def check(official, capfd):
    """Check a folder against the reference, in this process."""

    def run(path, *options, reference=official / "reference.json"):
        capfd.readouterr()
        given = [str(path), "--reference", str(reference), "--json", "--device", "cpu"]
        status = command.main([*given, *map(str, options)])
        return Outcome(status, *capfd.readouterr())

    return run


def edit_json(path: Path, **changes):
    """Change keys of a JSON file; None removes a key."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def run_command(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "inference_check", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)
