"""Products with the tensors of a copy, made while its files are read and hashed: one pass.

A leaf is widened in blocks of about a mebibyte that stay in the processor's cache, multiplied with
all activations, and *added* to the output: Meta's model-parallel parts are then output slices
or partial sums as they lie in their files, and a row that two leaves share is two partial sums.
Rows of q and k in Meta's order are not moved either; what they answer is.
"""

import math
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from verifier.blocks import DTYPES, from_pairs
from verifier.digests import LEAF_BYTES
from verifier.gguf_blocks import decode
from verifier.layouts import EMBEDDING, LogicalTensor
from verifier.readers import QUANTIZED

from .copies import Copy
from .files import PassFiles
from .plan import Edge, Piece, Plan, memory_of, unit_of
from .probes import PROBES, Probes
from .ring import Load, Readers, Ring
from .stream import CpuStream, Event, Stream

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

    ``edge_bytes`` is the most that the plan ever keeps. ``probes`` None signs nothing; ``squares``
    also adds up the squares of every entry.
    """

    def __init__(
        self,
        copy: Copy,
        plan: Plan,
        files: PassFiles,
        stream: Stream,
        tokens: Sequence[int],
        *,
        dtype: torch.dtype,
        slots: int,
        edge_bytes: int,
        readers: int,
        probes: Probes | None,
        squares: bool,
    ) -> None:
        self.copy, self.plan, self.stream, self.dtype = copy, plan, stream, dtype
        self.files, self.tokens, self.probes = files, tokens, probes
        self.signatures: dict[str, Tensor] = {}
        self.norms: dict[str, float] = {}
        self._measure = squares
        self._slot_count, self._reader_count = slots, readers
        self._vectors: dict[str, Tensor] = {}
        self._kept: dict[Edge, Tensor] = {}
        self._memory = EdgeMemory(edge_bytes)
        self._uploads: list[tuple[Event, Load | None, Tensor | None]] = []
        widest = max(t.shape[1] for t in copy.tensors.values() if len(t.shape) == 2)
        self._scratch = torch.empty(
            max(stream.block_entries, widest), dtype=dtype, device=stream.device
        )
        self._wide = self._scratch[:0].view(0, 1)
        self._host = CpuStream()
        self._group = -1

    def __enter__(self) -> Self:
        """Fetch what is small, and begin to read."""
        for name, tensor in self.copy.tensors.items():
            if len(tensor.shape) == 1:
                self._vectors[name] = self._vector(name, tensor)
        rows = self.files.rows(self.copy.tensors[EMBEDDING], self.tokens, self.dtype)
        self._rows = rows.to(self.stream.device)
        self._ring = Ring(self.stream.slots(self._slot_count), self.plan.items())
        self._readers = Readers(self._ring, self._reader_count, self.files.fill, self.files.digest)
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
                    block, copied = self._upload(memory[: piece.size], item.uses)
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
            stored = load.slot.tensor[start - offset : stop - offset]
            block, copied = self._upload(stored, item.uses)
            for piece in item.uses:
                yield piece, block[piece.start - start : piece.stop - start]
            self.stream.used()
            self._uploads.append((copied, load, None))
            self._let_go(self.stream.in_flight)
        raise AssertionError("the plan ended before the model did")

    def _upload(self, stored: Tensor, pieces: Sequence[Piece]) -> tuple[Tensor, Event]:
        """Bring bytes where the products are made; blocks are decoded on the host first."""
        quantized = any(piece.part.entry.dtype in QUANTIZED for piece in pieces)
        return (self._host if quantized else self.stream).upload(stored)

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
        entries = _Entries(stored, piece.part.entry.dtype)
        row, column = divmod(self._entry_of(piece, piece.start), width)
        position, total = 0, entries.total
        if column:
            position = min(width - column, total)
            self._add(piece, output, row, column, entries.between(0, position).view(1, -1))
            row += 1
        step = max(self.stream.block_entries // width, 1)
        while total - position >= width:
            count = min(step, (total - position) // width)
            block = entries.between(position, position + count * width).view(count, width)
            self._add(piece, output, row, 0, block)
            position += count * width
            row += count
        if position < total:
            self._add(piece, output, row, 0, entries.between(position, total).view(1, -1))

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
        entries, size = unit_of(piece.part.entry.dtype)
        return (place - piece.part.entry.start) // size * entries

    def _row_of(self, piece: Piece) -> int:
        return self._entry_of(piece, piece.start) // piece.part.entry.shape[1]

    def _in_rows(self, piece: Piece, stored: Tensor, most: int) -> Iterator[tuple[Piece, Tensor]]:
        """Cut a piece into pieces of which each touches at most ``most`` rows."""
        entry = piece.part.entry
        size = (entry.end - entry.start) // entry.shape[0]
        start = piece.start
        while start < piece.stop:
            row = (start - entry.start) // size
            stop = min(piece.stop, entry.start + (row + most) * size)
            cut = Piece(piece.name, piece.part, piece.group, start, stop)
            yield cut, stored[start - piece.start : stop - piece.start]
            start = stop

    def _vector(self, name: str, tensor: LogicalTensor) -> Tensor:
        values = self.files.vector(name, tensor).to(self.dtype)
        if self.probes is not None:
            self.signatures[name] = self.probes.of_vector(values)
            self.norms[name] = float(values.double().norm())
        return values.to(self.stream.device)

    def _sign(self, name: str, output: _Output) -> None:
        if self.probes is not None and output.signed is not None:
            self.signatures[name] = self.probes.signature(output.signed)
            self.norms[name] = math.sqrt(output.squares)


class _Entries:
    """The entries of a piece: its bytes seen as their type, or blocks decoded as they are needed."""

    def __init__(self, stored: Tensor, dtype: str) -> None:
        self._stored, self._dtype = stored, dtype
        self._unit, self._size = unit_of(dtype)
        self.total = stored.numel() // self._size * self._unit
        if dtype not in QUANTIZED:
            wanted = DTYPES[dtype]
            if stored.storage_offset() % wanted.itemsize or stored.data_ptr() % wanted.itemsize:
                stored = stored.clone()  # bytes at an odd address
            self._stored = stored.view(wanted)

    def between(self, start: int, stop: int) -> Tensor:
        """Return entries [start, stop), flat; they lie between blocks."""
        if self._dtype not in QUANTIZED:
            return self._stored[start:stop]
        low, high = (place // self._unit * self._size for place in (start, stop))
        return torch.from_numpy(decode(self._dtype, self._stored[low:high].numpy()))
