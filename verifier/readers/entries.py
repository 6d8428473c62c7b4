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
QUANTIZED = {
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q8_1": (32, 40),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "Q8_K": (256, 292),
    "IQ2_XXS": (256, 66),
    "IQ2_XS": (256, 74),
    "IQ3_XXS": (256, 98),
    "IQ1_S": (256, 50),
    "IQ4_NL": (32, 18),
    "IQ3_S": (256, 110),
    "IQ2_S": (256, 82),
    "IQ4_XS": (256, 136),
    "IQ1_M": (256, 56),
    "TQ1_0": (256, 54),
    "TQ2_0": (256, 66),
    "MXFP4": (32, 17),
    "NVFP4": (64, 36),
    "Q1_0": (128, 18),
}
"""Entries and bytes of one block of a row, by ggml's name of the type (ggml-common.h)."""

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

    def rows(self, start: int, stop: int, name: str) -> "TensorEntry":
        """Return rows [start, stop) of it, which lie together, as a tensor of their own."""
        row = (self.end - self.start) // (self.shape[0] or 1)
        return TensorEntry(
            name,
            self.dtype,
            (stop - start, *self.shape[1:]),
            self.path,
            self.start + start * row,
            self.start + stop * row,
        )


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
