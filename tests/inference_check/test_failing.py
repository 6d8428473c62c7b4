"""Devices that fail in the middle of a run: what is said of it, and that the next run works."""

import pytest
import torch

from inference_check import run as running
from inference_check.stream import CpuStream


class Failing(CpuStream):
    """A device that does its work until the third block, and then fails as CUDA does."""

    def __init__(self, error):
        super().__init__()
        self.error, self.blocks = error, 0

    def upload(self, stored):
        self.blocks += 1
        if self.blocks == 3:
            raise self.error
        return super().upload(stored)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with …"),
            "torch failed: CUDA error: an illegal memory access was encountered",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 64 bytes"), "enough memory"),
        (MemoryError(), "enough memory"),
    ],
)
def test_a_device_that_fails_is_not_run_and_the_next_run_agrees(
    official, check, monkeypatch, error, reason
):
    with monkeypatch.context() as patched:
        patched.setattr(running, "open_stream", lambda device: Failing(error))
        outcome = check(official / "hf")
    assert (outcome.status, outcome.inference["status"]) == (3, "not-run")
    assert reason in outcome.inference["reason"] and "\n" not in outcome.inference["reason"]
    assert check(official / "hf").inference["status"] == "agrees"
