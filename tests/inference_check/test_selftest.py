"""The self-test on the CPU, with the smallest shape: the command that measures a GPU where there is one."""

import json
import subprocess
import sys

import pytest
import torch

from inference_check.copies import open_copy
from inference_check.families import FAMILIES
from inference_check.selftest import main
from inference_check.sparse import LLAMA_65B_PART, SHAPES, make_sparse, write_zip
from verifier.readers import read_tensors


def test_every_family_agrees_and_each_shape_is_a_row(capfd, tmp_path):
    assert main(["--device", "cpu", "--shapes", "small", "--folder", str(tmp_path)]) == 0
    printed = capfd.readouterr().out
    assert all(f"| {family} |" in printed for family in FAMILIES)
    assert "| small |" in printed
    assert "GB/s" in printed.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_here_is_one_sentence(capfd):
    assert main(["--device", "tpu"]) == 2
    assert capfd.readouterr().err == "there is no device called 'tpu'.\n"


def test_a_sparse_zip_is_what_torch_reads(tmp_path):
    shapes = {"a.weight": (3, 4), "b": (5,), "c": (2, 1)}
    write_zip(tmp_path / "zeros.pth", shapes, 10_000)
    assert (tmp_path / "zeros.pth").stat().st_size == 10_000
    loaded = torch.load(tmp_path / "zeros.pth", weights_only=True)
    assert {name: tuple(t.shape) for name, t in loaded.items()} == shapes
    assert all(t.dtype == torch.float16 and not t.any() for t in loaded.values())
    assert {e.name: e.shape for e in read_tensors(tmp_path, "zeros.pth")} == shapes


@pytest.mark.parametrize("name", SHAPES)
def test_sparse_checkpoints_have_the_published_shapes_and_no_size(tmp_path, name):
    make_sparse(tmp_path, name)
    copy = open_copy(tmp_path)
    parameters = {"7b": 6_738_415_616, "65b": 65_285_660_672}
    counted = sum(part.entry.count for t in copy.tensors.values() for part in t.parts)
    assert counted == parameters.get(name, counted)
    if name == "65b":
        assert set(copy.files.values()) == {LLAMA_65B_PART} and len(copy.files) == 8
    assert sum(p.stat().st_blocks for p in tmp_path.iterdir()) * 512 < 40 << 20


@pytest.mark.slow
def test_memory_does_not_grow_with_depth(tmp_path):
    """Three times the layers, read and hashed: the same peak, but for what threads happen to hold."""
    from inference_check.synthetic import Shape, make_checkpoint

    peaks = []
    for layers in (4, 12):
        folder = tmp_path / str(layers)
        shape = Shape(layers, 1024, 16, 16, 2816, 2048)
        make_checkpoint(folder, "hf", parts=2, shape=shape)
        command = [sys.executable, "-m", "inference_check.selftest", "--device", "cpu"]
        done = subprocess.run([*command, "--one", folder], capture_output=True, check=True)
        found = json.loads(done.stdout)
        assert found["bytes"] > layers * 25e6
        peaks.append(found["peak"])
    assert max(peaks) <= 1.15 * min(peaks)
    # How much of torch's own code counts depends on the pieces in which the system maps it.
    script = "import resource, torch; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    imported = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert max(peaks) - 1024 * int(imported.stdout) <= 130 << 20
