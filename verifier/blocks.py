"""Stream the values of a logical tensor in canonical order, a few megabytes at a time.

Imports torch: only modules that compare or compute import this one.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from .errors import ReadError
from .layouts import LogicalTensor
from .readers import ITEM_BYTES, QUANTIZED, Source, TensorEntry, open_source

BLOCK = 4 << 20
"""Bytes read at once; a block of Meta's rows is at least a head."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_MAX_ROWS_BYTES = 64 << 20


class Files:
    """The open weight files of a copy; closed, and checked for changes, at the end of ``with``."""

    def __init__(self, root: Path, paths: Iterable[str]) -> None:
        self._stack = ExitStack()
        self._sources: dict[str, Source] = {}
        try:
            for path in sorted(set(paths)):
                self._sources[path] = self._stack.enter_context(open_source(root, path))
        except ReadError:
            self._stack.close()
            raise

    def __enter__(self) -> "Files":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                for source in self._sources.values():
                    source.check_unchanged()
        finally:
            self._stack.close()

    def read(self, entry: TensorEntry, start: int, stop: int) -> Tensor:
        """Return entries [start, stop) of a stored tensor, flat: its stored type, or fp32 of blocks.

        ``start`` and ``stop`` lie between blocks where the tensor is made of them.

        Raises:
            ReadError: the file became shorter or cannot be read, or the type cannot be decoded.
        """
        if entry.dtype in QUANTIZED:
            return self._decode(entry, start, stop)
        item = ITEM_BYTES[entry.dtype]
        if start == stop:
            return torch.empty(0, dtype=DTYPES[entry.dtype])
        buffer = bytearray((stop - start) * item)
        self._sources[entry.path].read_into(buffer, entry.start + start * item)
        if entry.dtype == "BOOL":  # a byte that is neither 0 nor 1 must not become a torch.bool
            return torch.frombuffer(buffer, dtype=torch.uint8) != 0
        return torch.frombuffer(buffer, dtype=DTYPES[entry.dtype])

    def read_bytes(self, entry: TensorEntry, start: int, stop: int) -> bytearray:
        """Return bytes [start, stop) of a stored tensor.

        Raises:
            ReadError: the file became shorter or cannot be read.
        """
        buffer = bytearray(stop - start)
        self._sources[entry.path].read_into(buffer, entry.start + start)
        return buffer

    def _decode(self, entry: TensorEntry, start: int, stop: int) -> Tensor:
        from . import gguf_blocks

        if not gguf_blocks.can_decode(entry.dtype):
            raise ReadError(
                entry.path,
                f"tensor {entry.name[:80]!r} is stored as {entry.dtype}, which is not decoded here",
            )
        per_block, size = QUANTIZED[entry.dtype]
        raw = self.read_bytes(entry, start // per_block * size, stop // per_block * size)
        return torch.from_numpy(gguf_blocks.decode(entry.dtype, raw))


def item_bytes(entry: TensorEntry) -> int:
    """Return the bytes of one entry as ``Files.read`` returns it."""
    return 4 if entry.dtype in QUANTIZED else ITEM_BYTES[entry.dtype]


def stream(files: Files, tensor: LogicalTensor) -> Iterator[Tensor]:
    """Yield the values of ``tensor`` in canonical row order, flat, in blocks of stored type.

    Raises:
        ReadError: a file cannot be read, or copies of a tensor do not agree.
    """
    entry = tensor.parts[0].entry
    if 0 in tensor.shape:
        return  # of rows without an entry there may be any number
    if len(tensor.parts) == 1 and tensor.pair_width is None:
        unit = QUANTIZED.get(entry.dtype, (1,))[0]
        step = max(BLOCK // item_bytes(entry) // unit, 1) * unit
        for start in range(0, entry.count, step):
            stop = min(start + step, entry.count)
            block = files.read(entry, start, stop)
            for copy in tensor.copies:
                other = files.read(copy, start, stop)
                if not torch.equal(block.view(torch.uint8), other.view(torch.uint8)):
                    raise ReadError(
                        copy.path, f"its copy of tensor {copy.name[:80]!r} is not that of the rest"
                    )
            yield block
        return
    rows, columns = as_matrix(tensor.shape)
    unit = tensor.pair_width or 1
    if unit * columns * item_bytes(entry) > _MAX_ROWS_BYTES:
        raise ReadError(entry.path, f"tensor {entry.name[:80]!r} has rows too long to be a matrix")
    step = max(BLOCK // (columns * item_bytes(entry) or 1) // unit, 1) * unit
    for start in range(0, rows, step):
        yield read_rows(files, tensor, start, min(start + step, rows)).reshape(-1)


def read_rows(files: Files, tensor: LogicalTensor, start: int, stop: int) -> Tensor:
    """Return rows [start, stop) in canonical order; they are whole heads where heads are reordered.

    Raises:
        ReadError: a file cannot be read.
    """
    rows = _rows(files, tensor, start, stop)
    return rows if tensor.pair_width is None else from_pairs(rows, tensor.pair_width)


def as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return rows and columns; a vector, such as a bias, has rows of one entry."""
    rows, columns = (*shape, 1)[:2]
    return rows, columns


def from_pairs(rows: Tensor, head_width: int) -> Tensor:
    """Reorder whole heads of rows from pairs to halves: [heads, d/2, 2] to [heads, 2, d/2]."""
    heads = rows.reshape(len(rows) // head_width, head_width // 2, 2, *rows.shape[1:])
    return heads.transpose(1, 2).reshape(rows.shape)


def to_pairs(rows: Tensor, head_width: int) -> Tensor:
    """Reorder whole heads of rows from halves to pairs, as ``from_pairs`` undoes it."""
    heads = rows.reshape(len(rows) // head_width, 2, head_width // 2, *rows.shape[1:])
    return heads.transpose(1, 2).reshape(rows.shape)


def _rows(files: Files, tensor: LogicalTensor, start: int, stop: int) -> Tensor:
    """Return rows [start, stop) of a matrix, gathered from the parts that hold them."""
    gathered: list[list[Tensor]] = []
    row = -1
    for part in tensor.parts:
        part_rows, width = as_matrix(part.entry.shape)
        low, high = max(start, part.row), min(stop, part.row + part_rows)
        if low >= high:
            continue
        flat = files.read(part.entry, (low - part.row) * width, (high - part.row) * width)
        if part.row != row:
            gathered.append([])
            row = part.row
        gathered[-1].append(flat.view(high - low, width))
    return torch.cat([torch.cat(pieces, 1) for pieces in gathered])


def widen(block: Tensor) -> Tensor:
    """Return values in the type that comparisons use: fp64 stays, other floats fp32, else int64."""
    if block.dtype == torch.float64:
        return block
    return block.to(torch.float32 if block.dtype.is_floating_point else torch.int64)
