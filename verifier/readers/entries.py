"""One tensor's place in a file, and the bounds that every reader holds it to."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ReadError

ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}
"""Bytes of one entry, by the safetensors spelling of its type."""

MAX_TENSORS = 200_000
MAX_NAME = 4096
MAX_RANK = 16
MAX_NUMBER = 1 << 48


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor that lies row by row in [start, end) of a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: str
    start: int
    end: int

    @property
    def count(self) -> int:
        """Entries of the tensor."""
        return math.prod(self.shape)


def bounded(value: object) -> bool:
    """Tell whether ``value`` is a whole number that a size, offset or dimension may be."""
    return type(value) is int and 0 <= value <= MAX_NUMBER


def count_entries(shape: Iterable[int]) -> int:
    """Return the product of ``shape``, never larger than one step over ``MAX_NUMBER``."""
    count = 1
    for size in shape:
        if size == 0:
            return 0
        count = min(count * size, MAX_NUMBER + 1)
    return count


def check_spans(path: str, entries: list[TensorEntry], size: int) -> None:
    """Refuse tensors that share bytes, unless they are one tensor under two names.

    Tied tensors are legal in ``.pth`` files. What they add up to is bounded, so that a small file
    cannot ask for the work of a large one.

    Raises:
        ReadError: two tensors overlap, or together they claim more than twice the file.
    """
    end, previous = 0, None
    for entry in sorted((e for e in entries if e.end > e.start), key=lambda e: (e.start, e.end)):
        if entry.start < end and (entry.start, entry.end) != previous:
            raise ReadError(path, f"tensor {entry.name[:80]!r} overlaps the one before it")
        end, previous = entry.end, (entry.start, entry.end)
    if sum(entry.end - entry.start for entry in entries) > 2 * size:
        raise ReadError(path, "its tensors claim the same bytes again and again")
