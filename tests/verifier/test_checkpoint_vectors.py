"""Every form of manifest that was ever published must verify for ever (tests/vectors)."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.verifier.conftest import flip, run_command

VECTORS = sorted((Path(__file__).parent.parent / "vectors" / "checkpoint").iterdir())
SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture(params=VECTORS, ids=lambda folder: folder.name)
def vector(request, tmp_path, monkeypatch):
    """A published folder and the key that was given with it, copied so that it can be spoiled."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return shutil.copytree(request.param, tmp_path / "vector")


def verify(vector, *options):
    outcome = run_command(
        *(vector / "copy", "--json", "--trusted-key", vector / "release.pub.pem"), *options
    )
    assert "Traceback" not in outcome.err
    return outcome.report


def test_a_published_copy_is_identical_and_its_inference_agrees(vector):
    report = verify(vector, "--positions", "64")
    assert report["verdict"] == "identical"
    assert report["findings"] == []
    assert report["inference"]["status"] == "agrees"


@pytest.mark.parametrize("kind", ["blake3", "sha256"])
def test_its_leaves_find_damage(vector, kind):
    flip(vector / "copy" / SHARD, 20_000)
    report = verify(vector, "--checks", "files", "--whole", "--digest", kind)
    (damaged,) = (f for f in report["findings"] if f["code"] == "damaged")
    assert (damaged["path"], report["verdict"]) == (SHARD, "damaged")


def resave(vector, change):
    """Write the weights as one file instead of two, each tensor changed by ``change``."""
    tensors = {}
    for shard in sorted((vector / "copy").glob("*.safetensors")):
        tensors |= load_file(shard)
        shard.unlink()
    (vector / "copy" / "model.safetensors.index.json").unlink()
    save_file(
        {name: change(tensor).contiguous() for name, tensor in tensors.items()},
        vector / "copy" / "model.safetensors",
    )


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda tensor: tensor.float(), "same-weights"),
        (lambda tensor: tensor.to(torch.bfloat16), "cast"),
        (lambda tensor: tensor.float() + 1e-3 * torch.randn(tensor.shape), "derived"),
        (lambda tensor: torch.randn(tensor.shape), "unrelated"),
    ],
    ids=["float32", "bfloat16", "noise", "other"],
)
def test_its_values_and_its_sketch_tell_other_weights(vector, change, verdict):
    torch.manual_seed(1)
    resave(vector, change)
    report = verify(vector, "--checks", "files,weights", "--sketch", vector / "sketch.json")
    assert report["verdict"] == verdict


def test_every_side_file_is_of_a_form_that_is_kept(vector):
    side = vector / "copy" / ".weighbridge"
    assert {path.name for path in side.iterdir()} == {
        "checkpoint.json",
        "leaves.bin",
        "leaves.b3",
        "tensors.json",
        "reference.json",
    }
    assert json.loads((side / "checkpoint.json").read_text())["leaf_size"] == 4 << 20
