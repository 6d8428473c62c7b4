"""Products with the tensors of a copy, made while its files are read and hashed: one pass.

A leaf is widened in blocks of about a mebibyte that stay in the processor's cache, multiplied with
all activations, and *added* to the output: Meta's model-parallel parts are then output slices
or partial sums as they lie in their files, and a row that two leaves share is two partial sums.
Rows of q and k in Meta's order are not moved either; what they answer is.

Small things that are needed before the table they lie in has come by (the rows of the embedding,
norms, biases) are fetched with small reads, and compared with the leaf when it does.
"""

import math
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from verifier.blocks import DTYPES, from_pairs
from verifier.digests import LEAF_BYTES
from verifier.errors import ReadError
from verifier.layouts import EMBEDDING, LogicalTensor
from verifier.readers import ITEM_BYTES, Source, TensorEntry, open_source
from verifier.walk import Identity

from .copies import Copy
from .errors import WrongModel
from .leaves import LeafDigests
from .plan import Edge, Piece, Plan, leaf_size, memory_of
from .probes import PROBES, Probes
from .ring import Load, Readers, Ring
from .stream import SLACK, Event, Stream

Tick = Callable[[int, bool], None]
HEAD_ROWS = 2048
"""Rows of the output head whose logits are held at once."""


@dataclass(slots=True)
class _Output:
    """Where the products of one matrix are added up.

    ``right`` is xᵀ [columns, T], ``sums`` [rows, T] begins at row ``first``; ``left`` is uᵀ [k, all
    rows] and ``signed`` [k, columns] the products of it.
    """

    right: Tensor
    sums: Tensor
    left: Tensor | None = None
    signed: Tensor | None = None
    first: int = 0
    squares: float = 0.0


class EdgeMemory:
    """Memory for kept edges: mapped in steps, used again, and never more than ``most`` bytes."""

    def __init__(self, most: int) -> None:
        self._most, self._mapped = most, 0
        self._free: dict[int, list[Tensor]] = {}

    def take(self, size: int) -> Tensor:
        """Return memory of at least ``size`` bytes."""
        size = memory_of(size)
        if self._free.get(size):
            return self._free[size].pop()
        for other in [s for s, free in self._free.items() for _ in free]:
            if self._mapped + size <= self._most:
                break
            self._free[other].pop()
            self._mapped -= other
        self._mapped += size
        return torch.frombuffer(mmap.mmap(-1, size), dtype=torch.uint8)

    def give_back(self, memory: Tensor) -> None:
        """Let the memory be taken again."""
        self._free.setdefault(memory.numel(), []).append(memory)


class Engine:
    """One pass over the files of ``copy``; products must be asked for in the order of the plan.

    ``edge_bytes`` is the most that the plan ever keeps.
    ``digests`` None hashes nothing; ``probes`` None signs nothing; ``squares`` also adds up the
    squares of every entry. ``tick`` is told of bytes as they are read, from any thread, and whether
    they are small reads that come on top of the plan.
    """

    def __init__(
        self,
        copy: Copy,
        plan: Plan,
        stream: Stream,
        tokens: Sequence[int],
        *,
        dtype: torch.dtype,
        slots: int,
        edge_bytes: int,
        readers: int,
        digests: LeafDigests | None,
        probes: Probes | None,
        squares: bool,
        tick: Tick,
    ) -> None:
        self.copy, self.plan, self.stream, self.dtype = copy, plan, stream, dtype
        self.tokens, self.digests, self.probes = tokens, digests, probes
        self.bytes_read_small = 0
        self.signatures: dict[str, Tensor] = {}
        self.norms: dict[str, float] = {}
        self._measure, self._tick = squares, tick
        self._slot_count, self._reader_count = slots, readers
        self._vectors: dict[str, Tensor] = {}
        self._checks: dict[tuple[str, int], list[tuple[int, bytes]]] = {}
        self._kept: dict[Edge, Tensor] = {}
        self._memory = EdgeMemory(edge_bytes)
        self._uploads: list[tuple[Event, Load | None, Tensor | None]] = []
        self._borders: dict[tuple[str, int], bytes] = {}
        self._lock = threading.Lock()
        widest = max(t.shape[1] for t in copy.tensors.values() if len(t.shape) == 2)
        self._scratch = torch.empty(
            max(stream.block_entries, widest), dtype=dtype, device=stream.device
        )
        self._wide = self._scratch[:0].view(0, 1)
        self._group = -1
        self._stack = ExitStack()
        self._sources: dict[str, Source] = {}
        self._identities: dict[str, Identity] = {}

    def __enter__(self) -> Self:
        """Open every file, fetch what is small, and begin to read."""
        with ExitStack() as opened:
            for path in sorted(self.plan.sizes):
                source = opened.enter_context(open_source(self.copy.root, path))
                self._identities[path] = Identity.of(os.fstat(source.descriptor))
                if source.size != self.plan.sizes[path]:
                    raise ReadError(path, "it changed while it was being read")
                self._sources[path] = source
            self._odd = {
                part.entry.path
                for tensor in self.copy.tensors.values()
                for part in tensor.parts
                if part.entry.start % ITEM_BYTES[part.entry.dtype]
            }
            if self.digests is not None:
                self.digests.begin(self._identities)
            self._fetch_vectors()
            self._rows = self._fetch_rows(self.copy.tensors[EMBEDDING])
            self._stack = opened.pop_all()
        self._ring = Ring(self.stream.slots(self._slot_count), self.plan.items())
        self._readers = Readers(self._ring, self._reader_count, self._fill, self._digest)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ring.end()
        self._readers.join()
        self._uploads.clear()
        with self._stack:
            if error is None:
                self.check_unchanged()

    def check_unchanged(self) -> None:
        """Raise ReadError if a file was written to since it was opened."""
        for path, source in self._sources.items():
            if Identity.of(os.fstat(source.descriptor)) != self._identities[path]:
                raise ReadError(path, "it changed while it was being read")

    # What the model asks for.

    def vector(self, name: str) -> Tensor:
        """Return a norm or bias, on the device."""
        return self._vectors[name]

    def embedding(self) -> Tensor:
        """Return the rows of the embedding that belong to the tokens, [T, D]."""
        return self._rows

    def products(self, x: Tensor, *names: str) -> list[Tensor]:
        """Return x Wᵀ, [T, rows], of every matrix of the next group."""
        self._group += 1
        assert tuple(self.plan.groups[self._group]) == names
        outputs = {name: self._output(x, name) for name in names}
        for piece, stored in self._pieces():
            self._multiply(piece, stored, outputs[piece.name])
        found = []
        for name, output in outputs.items():
            self._sign(name, output)
            width = self.copy.tensors[name].pair_width
            sums = output.sums if width is None else from_pairs(output.sums, width)
            found.append(sums.T.contiguous())
        return found

    def row_products(self, x: Tensor, name: str) -> Iterator[tuple[int, Tensor]]:
        """Yield x Wᵀ in slices [T, r] with their first row, so that [T, V] is never held."""
        tensor = self.copy.tensors[name]
        if any(part.column or part.entry.shape[1] != x.shape[1] for part in tensor.parts):
            yield 0, self.products(x, name)[0]  # a tied embedding, cut by columns
            return
        self._group += 1
        assert tuple(self.plan.groups[self._group]) == (name,)
        held = min(HEAD_ROWS, tensor.shape[0])
        output = self._output(x, name, held)
        reached = 0

        def complete(upto: int) -> Iterator[tuple[int, Tensor]]:
            """Yield the rows held below ``upto`` and hold what comes after."""
            count = upto - output.first
            if not count:
                return
            done = output.sums[:count].clone()
            begun = output.sums[count].clone() if count < held else None
            first, output.first = output.first, upto
            output.sums.zero_()
            if begun is not None:  # a row of which the leaf held only the beginning
                output.sums[0] = begun
            yield first, done.T

        for piece, stored in self._pieces():
            for some, part in self._in_rows(piece, stored, held):
                low = some.part.row + self._row_of(some)
                assert low >= output.first
                high = some.part.row + -(-self._entry_of(some, some.stop) // tensor.shape[1])
                if high - output.first > held:
                    yield from complete(low)
                self._multiply(some, part, output)
                reached = high
        yield from complete(reached)
        self._sign(name, output)

    def drain(self) -> None:
        """Read and hash what is left of the plan without computing."""
        while (load := self._ring.take()) is not None:
            self._ring.release(load)
        self._readers.join()
        self._ring.take()

    # One group of the plan.

    def _pieces(self) -> Iterator[tuple[Piece, Tensor]]:
        """Yield the pieces of a group in the order of the plan, where the products are made."""
        while (load := self._ring.take()) is not None:
            item = load.item
            if item.ends_group:
                self._let_go(0)
                return
            for edge in item.drops:
                self._memory.give_back(self._kept.pop(edge))
            if load.slot is None:
                for piece in item.uses:
                    memory = self._kept.pop(piece.edge)
                    block, copied = self.stream.upload(memory[: piece.size])
                    yield piece, block
                    self.stream.used()
                    self._uploads.append((copied, None, memory))
                    self._let_go(self.stream.in_flight)
                continue
            offset = (item.leaf or 0) * LEAF_BYTES
            for piece in item.keeps:
                memory = self._kept[piece.edge] = self._memory.take(piece.size)
                stored = load.slot.tensor[piece.start - offset : piece.stop - offset]
                memory[: piece.size].copy_(stored)
            start = min(piece.start for piece in item.uses)
            stop = max(piece.stop for piece in item.uses)
            block, copied = self.stream.upload(load.slot.tensor[start - offset : stop - offset])
            for piece in item.uses:
                yield piece, block[piece.start - start : piece.stop - start]
            self.stream.used()
            self._uploads.append((copied, load, None))
            self._let_go(self.stream.in_flight)
        raise AssertionError("the plan ended before the model did")

    def _let_go(self, leave: int) -> None:
        """Release slots whose bytes have arrived, all but the last ``leave``."""
        while len(self._uploads) > leave:
            copied, load, memory = self._uploads.pop(0)
            copied.synchronize()
            if load is not None:
                self._ring.release(load)
            if memory is not None:
                self._memory.give_back(memory)

    def _output(self, x: Tensor, name: str, held: int | None = None) -> _Output:
        """Make room for the products of x with a matrix, or with ``held`` rows of it at a time."""
        tensor = self.copy.tensors[name]
        rows, columns = tensor.shape
        output = _Output(x.T.contiguous(), x.new_zeros(held or rows, len(x)))
        if self.probes is not None:
            output.left = self.probes.left_of(rows, tensor.pair_width)
            output.signed = x.new_zeros(PROBES, columns)
        return output

    def _multiply(self, piece: Piece, stored: Tensor, output: _Output) -> None:
        """Add the products of a piece: the end of a row, whole rows, the beginning of a row."""
        width = piece.part.entry.shape[1]
        flat = _flat(stored, piece.part.entry.dtype)
        row, column = divmod(self._entry_of(piece, piece.start), width)
        position, total = 0, flat.numel()
        if column:
            position = min(width - column, total)
            self._add(piece, output, row, column, flat[:position].view(1, -1))
            row += 1
        step = max(self.stream.block_entries // width, 1)
        while total - position >= width:
            count = min(step, (total - position) // width)
            block = flat[position : position + count * width].view(count, width)
            self._add(piece, output, row, 0, block)
            position += count * width
            row += count
        if position < total:
            self._add(piece, output, row, 0, flat[position:].view(1, -1))

    def _add(self, piece: Piece, output: _Output, row: int, column: int, block: Tensor) -> None:
        rows, columns = block.shape
        if self._wide.shape != block.shape:
            self._wide = self._scratch[: rows * columns].view(rows, columns)
        wide = self._wide.copy_(block)
        column += piece.part.column
        row += piece.part.row
        across = slice(column, column + columns)
        if output.right.shape[1]:
            low = row - output.first
            output.sums[low : low + rows].addmm_(wide, output.right[across])
        if output.left is not None and output.signed is not None:
            output.signed[:, across].addmm_(output.left[:, row : row + rows], wide)
        if self._measure:
            output.squares += float(wide.double().square().sum())

    @staticmethod
    def _entry_of(piece: Piece, place: int) -> int:
        entry = piece.part.entry
        return (place - entry.start) // ITEM_BYTES[entry.dtype]

    def _row_of(self, piece: Piece) -> int:
        return self._entry_of(piece, piece.start) // piece.part.entry.shape[1]

    def _in_rows(self, piece: Piece, stored: Tensor, most: int) -> Iterator[tuple[Piece, Tensor]]:
        """Cut a piece into pieces of which each touches at most ``most`` rows."""
        entry = piece.part.entry
        size = entry.shape[1] * ITEM_BYTES[entry.dtype]
        start = piece.start
        while start < piece.stop:
            row = (start - entry.start) // size
            stop = min(piece.stop, entry.start + (row + most) * size)
            cut = Piece(piece.name, piece.part, piece.group, start, stop)
            yield cut, stored[start - piece.start : stop - piece.start]
            start = stop

    def _sign(self, name: str, output: _Output) -> None:
        if self.probes is not None and output.signed is not None:
            self.signatures[name] = self.probes.signature(output.signed)
            self.norms[name] = math.sqrt(output.squares)

    # What the reader threads do.

    def _fill(self, load: Load) -> None:
        """Read a leaf, and compare it with what was fetched from it before."""
        path, leaf = load.item.path, load.item.leaf
        assert leaf is not None
        assert load.slot is not None
        size = leaf_size(self.plan.sizes[path], leaf)
        offset = leaf * LEAF_BYTES
        beyond = 0
        if path in self._odd:
            beyond = min(SLACK, self.plan.sizes[path] - offset - size)
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

    def _digest(self, load: Load) -> None:
        if self.digests is None:
            return
        item = load.item
        assert item.leaf is not None
        assert load.slot is not None
        size = leaf_size(self.plan.sizes[item.path], item.leaf)
        self.digests.take(item.path, item.leaf, load.slot.view[:size])

    # Small reads.

    def _fetch_vectors(self) -> None:
        for name, tensor in self.copy.tensors.items():
            if len(tensor.shape) == 1:
                self._vectors[name] = self._fetch_vector(name, tensor)

    def _fetch_vector(self, name: str, tensor: LogicalTensor) -> Tensor:
        """Return a vector, all of whose copies must be alike.

        Raises:
            WrongModel: model-parallel parts hold copies that differ.
        """
        entry = tensor.parts[0].entry
        data = self._small(entry, 0, entry.end - entry.start)
        for copy in tensor.copies:
            if self._small(copy, 0, copy.end - copy.start) != data:
                raise WrongModel(f"{copy.path}: its copy of {name} is not that of the other parts")
        values = _stored(data, entry.dtype).to(self.dtype)
        if self.probes is not None:
            self.signatures[name] = self.probes.of_vector(values)
            self.norms[name] = float(values.double().norm())
        return values.to(self.stream.device)

    def _fetch_rows(self, tensor: LogicalTensor) -> Tensor:
        found = torch.empty(len(self.tokens), tensor.shape[1], dtype=self.dtype)
        for part in tensor.parts:
            rows, width = part.entry.shape
            size = width * ITEM_BYTES[part.entry.dtype]
            for row in sorted({t for t in self.tokens if part.row <= t < part.row + rows}):
                data = self._small(part.entry, (row - part.row) * size, size)
                for position in (p for p, token in enumerate(self.tokens) if token == row):
                    place = found[position, part.column : part.column + width]
                    place.copy_(_stored(data, part.entry.dtype))
        return found.to(self.stream.device)

    def _small(self, entry: TensorEntry, start: int, size: int) -> bytes:
        """Return ``size`` bytes of an entry, and expect them again when their leaf is read."""
        offset = entry.start + start
        data = self._sources[entry.path].read(offset, size)
        done = 0
        while done < size:
            leaf, within = divmod(offset + done, LEAF_BYTES)
            count = min(size - done, LEAF_BYTES - within)
            expected = data if count == size else data[done : done + count]
            self._checks.setdefault((entry.path, leaf), []).append((within, expected))
            done += count
        self.bytes_read_small += size
        self._tick(size, True)
        return data


def _stored(data: bytes, dtype: str) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=DTYPES[dtype])


def _flat(stored: Tensor, dtype: str) -> Tensor:
    """See bytes as entries; bytes at an odd address are moved first."""
    wanted = DTYPES[dtype]
    if stored.storage_offset() % wanted.itemsize or stored.data_ptr() % wanted.itemsize:
        stored = stored.clone()
    return stored.view(wanted)
