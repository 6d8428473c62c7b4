"""The open files of a pass: leaves read into slots and checked, and small reads ahead of them.

Small things that are needed before the table they lie in has come by (the rows of the embedding,
norms, biases) are fetched with small reads, and compared with the leaf when it does. A file is
recognized by its identity when it was opened, and must still have it at the end.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from verifier.blocks import DTYPES
from verifier.digests import LEAF_BYTES
from verifier.errors import ReadError
from verifier.gguf_blocks import decode
from verifier.layouts import LogicalTensor
from verifier.readers import QUANTIZED, Source, TensorEntry, open_source
from verifier.walk import Identity

from .errors import WrongModel
from .leaves import LeafDigests
from .plan import leaf_size, unit_of
from .ring import Load
from .stream import SLACK

Tick = Callable[[int, bool], None]


class PassFiles:
    """The files of ``root`` with these ``sizes``; ``odd`` are those with entries at odd places.

    ``digests`` None hashes nothing. ``tick`` is told of bytes as they are read, from any thread,
    and whether they are small reads that come on top of the plan.
    """

    def __init__(
        self,
        root: Path,
        sizes: Mapping[str, int],
        tensors: Mapping[str, LogicalTensor],
        digests: LeafDigests | None,
        tick: Tick,
    ) -> None:
        self.sizes, self.digests, self._tick = sizes, digests, tick
        self.small_bytes = 0
        self._checks: dict[tuple[str, int], list[tuple[int, bytes]]] = {}
        self._borders: dict[tuple[str, int], bytes] = {}
        self._lock = threading.Lock()
        self._sources: dict[str, Source] = {}
        self._identities: dict[str, Identity] = {}
        self._odd = {
            part.entry.path
            for tensor in tensors.values()
            for part in tensor.parts
            if part.entry.start % unit_of(part.entry.dtype)[1]
            or LEAF_BYTES % unit_of(part.entry.dtype)[1]
        }
        with ExitStack() as opened:
            for path, size in sorted(sizes.items()):
                source = opened.enter_context(open_source(root, path))
                self._identities[path] = Identity.of(os.fstat(source.descriptor))
                self._sources[path] = source
                if source.size != size:
                    raise ReadError(path, "it changed while it was being read")
            if digests is not None:
                digests.begin(self._identities)
            self._stack = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every file."""
        self._stack.close()

    def check_unchanged(self) -> None:
        """Raise ReadError if a file was written to since it was opened."""
        for path, source in self._sources.items():
            if Identity.of(os.fstat(source.descriptor)) != self._identities[path]:
                raise ReadError(path, "it changed while it was being read")

    def vector(self, name: str, tensor: LogicalTensor) -> Tensor:
        """Return a vector as it is stored; all of its copies must be alike.

        Raises:
            WrongModel: model-parallel parts hold copies that differ.
        """
        entry = tensor.parts[0].entry
        data = self._small(entry, 0, entry.end - entry.start)
        for copy in tensor.copies:
            if self._small(copy, 0, copy.end - copy.start, same=data) is not data:
                raise WrongModel(f"{copy.path}: its copy of {name} is not that of the other parts")
        return _stored(data, entry.dtype)

    def rows(self, tensor: LogicalTensor, ids: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return rows ``ids`` of a matrix, [len(ids), columns], as ``dtype``."""
        found = torch.empty(len(ids), tensor.shape[1], dtype=dtype)
        for part in tensor.parts:
            rows, width = part.entry.shape
            size = (part.entry.end - part.entry.start) // rows
            for row in sorted({i for i in ids if part.row <= i < part.row + rows}):
                data = self._small(part.entry, (row - part.row) * size, size)
                for position in (p for p, wanted in enumerate(ids) if wanted == row):
                    place = found[position, part.column : part.column + width]
                    place.copy_(_stored(data, part.entry.dtype))
        return found

    def fill(self, load: Load) -> None:
        """Read a leaf, and compare it with what was fetched from it before."""
        path, leaf = load.item.path, load.item.leaf
        assert leaf is not None
        assert load.slot is not None
        size = leaf_size(self.sizes[path], leaf)
        offset = leaf * LEAF_BYTES
        beyond = 0
        if path in self._odd:
            beyond = min(SLACK, self.sizes[path] - offset - size)
        self._sources[path].read_into(load.slot.view[: size + beyond], offset)
        for start, expected in self._checks.get((path, leaf), ()):
            if load.slot.view[start : start + len(expected)] != expected:
                raise ReadError(path, "it changed while it was being read")
        if path in self._odd:
            self._compare_borders(path, leaf, load.slot.view[:size], beyond, load.slot.view[size:])
        self._tick(size, False)

    def _compare_borders(
        self, path: str, leaf: int, data: memoryview, beyond: int, behind: memoryview
    ) -> None:
        """Compare what was read behind a leaf with the beginning of the next one."""
        for place, found in ((leaf, data[:SLACK]), (leaf + 1, behind[:beyond])):
            with self._lock:
                known = self._borders.pop((path, place), None)
                if known is None:
                    self._borders[path, place] = bytes(found)
                    continue
            shared = min(len(known), len(found))
            if found[:shared] != known[:shared]:
                raise ReadError(path, "it changed while it was being read")

    def digest(self, load: Load) -> None:
        """Hash the leaf in a slot."""
        if self.digests is None:
            return
        item = load.item
        assert item.leaf is not None
        assert load.slot is not None
        size = leaf_size(self.sizes[item.path], item.leaf)
        self.digests.take(item.path, item.leaf, load.slot.view[:size])

    def _small(self, entry: TensorEntry, start: int, size: int, same: bytes | None = None) -> bytes:
        """Return ``size`` bytes of an entry, and expect them again when their leaf is read.

        Where they are the ``same`` as known bytes, those are returned, and held only once.
        """
        offset = entry.start + start
        data = self._sources[entry.path].read(offset, size)
        data = same if same == data else data
        done = 0
        while done < size:
            leaf, within = divmod(offset + done, LEAF_BYTES)
            count = min(size - done, LEAF_BYTES - within)
            expected = data if count == size else data[done : done + count]
            self._checks.setdefault((entry.path, leaf), []).append((within, expected))
            done += count
        self.small_bytes += size
        self._tick(size, True)
        return data


def _stored(data: bytes, dtype: str) -> Tensor:
    if dtype in QUANTIZED:
        return torch.from_numpy(decode(dtype, data))
    return torch.frombuffer(bytearray(data), dtype=DTYPES[dtype])
