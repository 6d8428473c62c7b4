"""Where products are made: the CPU, or a GPU that copies while it multiplies. One interface.

    slots()        memory into which files are read; pinned where a device copies from it
    upload(bytes)  those bytes where the products are made, and the event that they have arrived
    used(block)    the products with the last uploaded block are queued: it may be written over

On a GPU two blocks alternate: while one is multiplied on the compute stream, the copy stream fills
the other. A slot may be read into again only when its copy has completed *and* it has been hashed.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from verifier.digests import LEAF_BYTES

SLACK = 512
"""Bytes behind a slot: an entry or block that begins in a leaf may end just beyond it."""


class Event(Protocol):
    """Something that will have happened on the device."""

    def synchronize(self) -> None:
        """Wait until it has."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Host memory of one leaf: to be read into, and to be multiplied from."""

    view: memoryview
    tensor: Tensor


class Stream(Protocol):
    """A device and the queue of its work."""

    device: torch.device
    in_flight: int
    """Uploads that may be under way while the next begins."""
    block_entries: int
    """Entries of a matrix that are widened at once."""

    def slots(self, count: int) -> Sequence[Slot]:
        """Return host memory for ``count`` leaves."""

    def upload(self, stored: Tensor) -> tuple[Tensor, Event]:
        """Return ``stored``, bytes on the host, on the device, and when the copy is complete."""

    def used(self) -> None:
        """Note that all products with the last block have been queued."""

    def finish(self) -> None:
        """Wait until all queued products are made."""


class _Done:
    """An event of a device that does everything at once."""

    def synchronize(self) -> None:
        """Return at once."""


class CpuStream:
    """Multiplies out of the slot itself: nothing is copied, everything has happened on return."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.in_flight = 0
        self.block_entries = 1 << 18  # 1 MiB in fp32: stays in a core's second-level cache

    def slots(self, count: int) -> Sequence[Slot]:
        """Return plain memory."""
        return [_slot(torch.empty(LEAF_BYTES + SLACK, dtype=torch.uint8)) for _ in range(count)]

    def upload(self, stored: Tensor) -> tuple[Tensor, Event]:
        """Return ``stored`` itself."""
        return stored, _Done()

    def used(self) -> None:
        """Have nothing to note."""

    def finish(self) -> None:
        """Have nothing to wait for."""


class CudaStream:
    """Copies on one CUDA stream and multiplies on the current one."""

    def __init__(self, device: torch.device) -> None:
        self._cuda: Any = torch.cuda  # its streams and events have no annotations
        self.device = device
        self.in_flight = 1
        self.block_entries = 1 << 21
        self._copies = self._cuda.Stream(device)
        self._blocks = [
            torch.empty(LEAF_BYTES + SLACK, dtype=torch.uint8, device=device) for _ in range(2)
        ]
        self._free = [self._cuda.Event() for _ in self._blocks]
        self._turn = 0

    def slots(self, count: int) -> Sequence[Slot]:
        """Return page-locked memory, which the device copies from by itself."""
        return [
            _slot(torch.empty(LEAF_BYTES + SLACK, dtype=torch.uint8, pin_memory=True))
            for _ in range(count)
        ]

    def upload(self, stored: Tensor) -> tuple[Tensor, Event]:
        """Queue the copy into the block whose products were queued first."""
        self._turn = (self._turn + 1) % len(self._blocks)
        block = self._blocks[self._turn][: stored.numel()]
        self._copies.wait_event(self._free[self._turn])
        with self._cuda.stream(self._copies):
            block.copy_(stored, non_blocking=True)
            copied = self._cuda.Event()
            copied.record(self._copies)
        self._cuda.current_stream(self.device).wait_event(copied)
        return block, copied

    def used(self) -> None:
        """Record on the compute stream that the block may be written over after this."""
        self._free[self._turn].record(self._cuda.current_stream(self.device))

    def finish(self) -> None:
        """Wait for both streams."""
        self._cuda.synchronize(self.device)


def open_stream(device: torch.device) -> Stream:
    """Return the stream of a device."""
    return CudaStream(device) if device.type == "cuda" else CpuStream()


def _slot(tensor: Tensor) -> Slot:
    memory = (ctypes.c_ubyte * tensor.numel()).from_address(tensor.data_ptr())
    return Slot(memoryview(memory).cast("B"), tensor)
