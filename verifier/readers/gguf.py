"""The GGUF format, versions 2 and 3 (llama.cpp, docs/gguf.md), little-endian.

    "GGUF" <u32 version> <u64 tensors> <u64 pairs>
    pairs    <key> <u32 type> <value>           a string is <u64 length> <bytes>,
                                                an array <u32 type> <u64 count> <values>
    tensors  <name> <u32 rank> <u64 size>… <u32 type> <u64 offset>
    padding to general.alignment, then the tensors, each padded to it

Sizes are in reversed order: the length of a row comes first. Offsets count from the end of the
padding. Between tensors there is nothing but padding: a byte that belongs to no tensor would be a
byte that nobody compares. Of the metadata only numbers and short texts outside arrays are kept.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ReadError
from .entries import (
    ITEM_BYTES,
    QUANTIZED,
    TensorEntry,
    bounded,
    count_entries,
)
from .source import Source

MAGIC = b"GGUF"
MAX_TENSORS = 100_000
MAX_PAIRS = 16_384
MAX_KEY = 1024
MAX_NAME = 256
MAX_RANK = 4
MAX_DEPTH = 4
MAX_ITEMS = 1 << 21
"""Texts and arrays in all arrays together; the largest vocabularies have a million."""
MAX_TEXT = 1 << 26
MAX_KEPT = 4096
MAX_HEADER = 1 << 30
MAX_ALIGNMENT = 1 << 16
QUANTIZATION_VERSION = 2
"""The layout of blocks that every GGUF file has had (GGML_QNT_VERSION)."""

TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    8: "Q8_0",
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    30: "BF16",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
    41: "Q1_0",
}
"""ggml's numbers of tensor types (ggml.h)."""

_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_TEXT, _ARRAY, _UINT32 = 8, 9, 4
_WINDOW = 1 << 18
_LEAST_INFO, _LEAST_PAIR = 24, 13
"""Bytes that the description of a tensor and a pair of metadata have at least."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says before its tensors."""

    metadata: Mapping[str, Any]
    tensors: list[TensorEntry]


def read(source: Source) -> list[TensorEntry]:
    """Return the tensors of a GGUF file in the order of their places.

    Raises:
        ReadError: the header or the places it promises do not fit the file.
    """
    return read_header(source).tensors


def read_header(source: Source) -> Header:
    """Return metadata and tensors; only the header is read.

    Raises:
        ReadError: the header or the places it promises do not fit the file.
    """
    cursor = _Cursor(source)
    start = cursor.take(4)
    if start != MAGIC:
        raise ReadError(source.path, "it does not begin as a GGUF file; download it again")
    version = cursor.number("<I")
    if version not in (2, 3):
        if version & 0xFFFF == 0:
            raise ReadError(source.path, "it is a big-endian GGUF file; convert it again")
        raise ReadError(source.path, f"it is of GGUF version {version}; 2 and 3 can be read")
    tensors, pairs = cursor.number("<Q"), cursor.number("<Q")
    if tensors > MAX_TENSORS:
        raise ReadError(source.path, f"it lists more than {MAX_TENSORS:,} tensors")
    if pairs > MAX_PAIRS:
        raise ReadError(source.path, f"it has more than {MAX_PAIRS:,} pairs of metadata")
    if tensors * _LEAST_INFO + pairs * _LEAST_PAIR > source.size:
        raise ReadError(
            source.path, "it promises more than it can hold, or is cut off; download it again"
        )
    metadata = _metadata(cursor, pairs)
    alignment = _alignment(source.path, metadata)
    infos = [_info(cursor) for _ in range(tensors)]
    data = _aligned(cursor.position, alignment)
    entries = _entries(source.path, infos, data, alignment)
    _check_places(source, entries, data, alignment)
    if any(entry.dtype in QUANTIZED for entry in entries):
        layout = metadata.get("general.quantization_version", QUANTIZATION_VERSION)
        if layout != QUANTIZATION_VERSION:
            raise ReadError(
                source.path, f"its blocks have layout {str(layout)[:20]}, not 2; quantize again"
            )
    return Header(metadata, entries)


@dataclass(slots=True)
class _Cursor:
    """Reads a header forwards through a window of it, so that memory does not grow with it."""

    source: Source
    position: int = 0
    items: int = 0
    _window: bytes = b""
    _at: int = field(default=0)

    def take(self, length: int) -> bytes:
        """Return the next ``length`` bytes, at most a window."""
        begin = self.position - self._at
        if begin < 0 or begin + length > len(self._window):
            self._move()
            begin = 0
            if length > len(self._window):
                raise ReadError(
                    self.source.path,
                    f"its header ends at byte {self.source.size:,}, cut off; download it again",
                )
        self.position += length
        return self._window[begin : begin + length]

    def number(self, form: str) -> Any:
        """Return the next number."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, limit: int, what: str) -> str:
        """Return the next text of at most ``limit`` bytes."""
        length = self.number("<Q")
        if length > limit:
            raise ReadError(self.source.path, f"{what} of {length:,} bytes is too long")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise ReadError(self.source.path, f"{what} is not UTF-8") from None

    def skip(self, length: int) -> None:
        """Pass over bytes that must be there."""
        if length > self.source.size - self.position:
            raise ReadError(
                self.source.path, f"its metadata claims {length:,} bytes more than the file has"
            )
        self.position += length
        if self.position > MAX_HEADER:
            raise ReadError(self.source.path, f"its header is larger than {MAX_HEADER >> 20} MiB")

    def skip_texts(self, count: int) -> None:
        """Pass over texts, of which a vocabulary has a million."""
        begin = self.position - self._at
        for _ in range(count):
            raw = self._window[begin : begin + 8]
            if len(raw) < 8:
                self.position = self._at + begin
                raw, begin = self.take(8), self.position - 8 - self._at
            length = int.from_bytes(raw, "little")
            begin += 8 + length
            if length > MAX_TEXT or self._at + begin > self.source.size:
                raise ReadError(
                    self.source.path, f"its metadata has a text of {length:,} bytes, beyond its end"
                )
        self.position = self._at + begin
        self.skip(0)

    def count(self, items: int) -> None:
        """Count items of arrays that cost time each."""
        self.items += items
        if self.items > MAX_ITEMS:
            raise ReadError(self.source.path, f"its metadata has more than {MAX_ITEMS:,} items")

    def _move(self) -> None:
        self._at = self.position
        left = max(self.source.size - self._at, 0)
        self._window = self.source.read(self._at, min(_WINDOW, left)) if left else b""
        if self._at > MAX_HEADER:
            raise ReadError(self.source.path, f"its header is larger than {MAX_HEADER >> 20} MiB")


def _metadata(cursor: _Cursor, pairs: int) -> dict[str, Any]:
    """Return numbers and short texts by key; the rest is passed over, its bounds checked."""
    found: dict[str, Any] = {}
    for _ in range(pairs):
        key = cursor.text(MAX_KEY, "a key of its metadata")
        if key in found:
            raise ReadError(cursor.source.path, f"its metadata repeats the key {key[:80]!r}")
        found[key] = _value(cursor, cursor.number("<I"), 0)
    return {key: value for key, value in found.items() if value is not None}


def _value(cursor: _Cursor, kind: int, depth: int) -> Any:
    """Read one value; None for an array and for a text that is not kept."""
    path = cursor.source.path
    if kind in _SCALARS:
        return cursor.number(_SCALARS[kind])
    if kind == _TEXT:
        length = cursor.number("<Q")
        if length <= MAX_KEPT:
            return cursor.take(length).decode("utf-8", "replace")
        cursor.skip(length)
        return None
    if kind != _ARRAY:
        raise ReadError(path, f"its metadata has a value of the unknown type {kind}")
    inner, count = cursor.number("<I"), cursor.number("<Q")
    if inner in _SCALARS:
        cursor.skip(count * struct.calcsize(_SCALARS[inner]))
        return None
    if inner not in (_TEXT, _ARRAY):
        raise ReadError(path, f"its metadata has an array of the unknown type {inner}")
    cursor.count(count)
    if inner == _TEXT:
        cursor.skip_texts(count)
        return None
    if depth + 1 >= MAX_DEPTH:
        raise ReadError(path, f"its metadata has arrays more than {MAX_DEPTH} deep")
    for _ in range(count):
        _value(cursor, _ARRAY, depth + 1)
    return None


def _alignment(path: str, metadata: Mapping[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    good = type(alignment) is int and 0 < alignment <= MAX_ALIGNMENT
    if not good or alignment & (alignment - 1):
        raise ReadError(path, f"its alignment {str(alignment)[:40]!r} is not a power of two")
    return int(alignment)


def _info(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Return name, shape, number of the type, and offset of one tensor."""
    path = cursor.source.path
    name = cursor.text(MAX_NAME, "the name of a tensor")
    if not name:
        raise ReadError(path, "a tensor has no name")
    rank = cursor.number("<I")
    if rank > MAX_RANK:
        raise ReadError(path, f"tensor {name[:80]!r} has {rank:,} dimensions")
    sizes = struct.unpack(f"<{rank}Q", cursor.take(8 * rank))
    kind, offset = struct.unpack("<IQ", cursor.take(12))
    if not all(map(bounded, (*sizes, offset))):
        raise ReadError(path, f"tensor {name[:80]!r} has a size or offset that no file can have")
    return name, sizes[::-1], kind, offset


def _entries(
    path: str,
    infos: list[tuple[str, tuple[int, ...], int, int]],
    data: int,
    alignment: int,
) -> list[TensorEntry]:
    """Return the tensors in the order of their places, each with the bytes that its type needs."""
    entries: list[TensorEntry] = []
    names: set[str] = set()
    for name, shape, kind, offset in infos:
        shown = repr(name[:80])
        if name in names:
            raise ReadError(path, f"it lists tensor {shown} twice")
        names.add(name)
        dtype = TYPES.get(kind)
        if dtype is None:
            raise ReadError(path, f"tensor {shown} has the unknown type {kind}")
        if offset % alignment:
            raise ReadError(path, f"tensor {shown} begins at a place that is not aligned")
        count = count_entries(shape)
        per_block, block_bytes = QUANTIZED.get(dtype) or (1, ITEM_BYTES[dtype])
        if count % per_block or (shape and shape[-1] % per_block) or (per_block > 1 and not shape):
            raise ReadError(path, f"tensor {shown} has rows that are not made of {dtype} blocks")
        length = count // per_block * block_bytes
        if not bounded(length):
            raise ReadError(path, f"tensor {shown} has a shape that no tensor can have")
        entries.append(TensorEntry(name, dtype, shape, path, data + offset, data + offset + length))
    entries.sort(key=lambda entry: (entry.start, entry.end))
    return entries


def _check_places(source: Source, entries: list[TensorEntry], data: int, alignment: int) -> None:
    """Refuse overlaps, holes, a file cut off, and bytes behind the last tensor."""
    position = end = data
    for entry in entries:
        if entry.start != position:
            fault = "overlaps the one before it" if entry.start < position else "leaves a hole"
            raise ReadError(source.path, f"tensor {entry.name[:80]!r} {fault}")
        end = entry.end
        position = _aligned(end, alignment)
    if entries and end > source.size:
        raise ReadError(
            source.path, f"it is cut off: {source.size:,} bytes of {end:,}; download it again"
        )
    if source.size > position:
        raise ReadError(
            source.path, f"{source.size - position:,} bytes follow the last tensor, unaccounted for"
        )


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment
