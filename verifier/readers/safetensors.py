"""The safetensors format: 8 bytes of length, a JSON header, then the tensors without a gap.

    <u64 little-endian N> <N bytes: {"name": {"dtype","shape","data_offsets":[a, b]}, …}> <data>

Offsets count from the end of the header. As the format asks, the data has neither hole nor overlap
nor tail: a byte that belongs to no tensor would be a byte that nobody compares.
"""

from typing import Any

from .. import strict_json
from ..errors import ManifestError, ReadError
from .entries import (
    ITEM_BYTES,
    MAX_NAME,
    MAX_RANK,
    MAX_TENSORS,
    TensorEntry,
    bounded,
    count_entries,
)
from .source import Source

MAX_HEADER = 100_000_000
"""The format's own limit, bytes."""
MAX_READ = 24 << 20
"""What is read of a header: ten times that of the largest known; parsed, it takes several times."""


def read(source: Source) -> list[TensorEntry]:
    """Return the tensors of a safetensors file in the order of their places.

    Raises:
        ReadError: the header or the places it promises do not fit the file.
    """
    path = source.path
    if source.size < 8:
        raise ReadError(path, "it is too short for a safetensors file; download it again")
    length = int.from_bytes(source.read(0, 8), "little")
    if length > MAX_HEADER:
        raise ReadError(
            path, f"it claims a header of {length:,} bytes, more than the format allows"
        )
    if 8 + length > source.size:
        raise ReadError(
            path, f"its header of {length:,} bytes does not fit its {source.size:,} bytes"
        )
    if length > MAX_READ:
        raise ReadError(path, f"its header is larger than {MAX_READ >> 20} MiB")
    header = _parse(source, length)
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise ReadError(path, f"it lists more than {MAX_TENSORS:,} tensors")
    entries = [_entry(path, name, fields, 8 + length) for name, fields in header.items()]
    entries.sort(key=lambda entry: (entry.start, entry.end))
    _check_gapless(source, entries, 8 + length)
    return entries


def _parse(source: Source, length: int) -> dict[str, Any]:
    try:
        header = strict_json.loads(source.read(8, length), "its header", max_bytes=MAX_READ)
    except ManifestError as error:
        raise ReadError(source.path, str(error).removesuffix(".")) from None
    if not isinstance(header, dict):
        raise ReadError(source.path, "its header is not a JSON object")
    return header


def _entry(path: str, name: str, fields: object, data: int) -> TensorEntry:
    """Turn one line of the header into an entry; ``data`` is where the tensors begin."""
    shown = repr(name[:80])
    if not name or len(name) > MAX_NAME:
        raise ReadError(path, f"a tensor has no name or one longer than {MAX_NAME} characters")
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise ReadError(path, f"tensor {shown} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ReadError(path, f"tensor {shown} has the unknown type {strict_json.brief(dtype)!r}")
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(map(bounded, shape)):
        raise ReadError(path, f"tensor {shown} has a shape that no tensor can have")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(bounded, offsets)):
        raise ReadError(path, f"tensor {shown} has offsets that no file can have")
    start, end = offsets
    if end - start != count_entries(shape) * ITEM_BYTES[dtype]:
        raise ReadError(path, f"tensor {shown} does not fill the bytes it claims")
    return TensorEntry(name, dtype, tuple(shape), path, data + start, data + end)


def _check_gapless(source: Source, entries: list[TensorEntry], data: int) -> None:
    position = data
    for entry in entries:
        if entry.start != position:
            fault = "overlaps the one before it" if entry.start < position else "leaves a hole"
            raise ReadError(source.path, f"tensor {entry.name[:80]!r} {fault}")
        position = entry.end
    if position > source.size:
        raise ReadError(
            source.path,
            f"it is cut off: {source.size:,} bytes of {position:,}; download it again",
        )
    if position < source.size:
        raise ReadError(
            source.path, f"{source.size - position:,} bytes follow the last tensor, unaccounted for"
        )
