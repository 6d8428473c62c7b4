"""The directory of a zip archive as ``torch.save`` writes it: stored entries, zip64 where needed.

Read after PKWARE's APPNOTE 6.3.9, sections 4.3.7 (local header), 4.3.12 (central directory) and
4.3.14-16 (end records). Python's ``zipfile`` would load a directory of any size, accept two
entries of one name and look for the end record in a comment; here each of these is refused.
"""

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import ReadError
from .source import Source

MAX_ENTRIES = 50_000
MAX_DIRECTORY = 16 << 20
MAX_EXTRA_FIELDS = 32

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED = 0x1 | 0x40 | 0x2000


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored entry: its bytes are [start, end) of the file."""

    name: str
    start: int
    end: int


def read_directory(source: Source) -> dict[str, Entry]:
    """Return the entries by name, each checked against its local header.

    Raises:
        ReadError: the archive is cut off, compressed, encrypted, ambiguous or over a limit.
    """
    path = source.path
    count, size, offset = _find_directory(source)
    if count > MAX_ENTRIES or size > MAX_DIRECTORY or count * _CENTRAL.size > size:
        raise ReadError(path, f"its zip directory lists {count:,} entries, which cannot be right")
    directory = source.read(offset, size)
    entries: dict[str, Entry] = {}
    spans: list[tuple[int, int]] = []
    position = 0
    for _ in range(count):
        name, header, length, position = _central_entry(path, directory, position)
        if name in entries:
            raise ReadError(path, f"its zip directory lists {name[:80]!r} twice")
        start = _data_start(source, name, header)
        if start + length > offset:
            raise ReadError(path, f"zip entry {name[:80]!r} reaches beyond the archive's data")
        entries[name] = Entry(name, start, start + length)
        spans.append((header, start + length))
    if position != size:
        raise ReadError(path, "its zip directory is longer than its entries")
    spans.sort()
    if any(after[0] < before[1] for before, after in itertools.pairwise(spans)):
        raise ReadError(path, "two of its zip entries share bytes")
    return entries


def _find_directory(source: Source) -> tuple[int, int, int]:
    """Return count, size and offset of the central directory, from the records at the end."""
    path, size = source.path, source.size
    if size < _END.size:
        raise ReadError(path, "it is too short for a zip archive; download it again")
    end_at = size - _END.size
    end = _END.unpack(source.read(end_at, _END.size))
    if end[0] != b"PK\x05\x06" or end[7]:
        raise ReadError(path, "it does not end as a zip archive: cut off, or something follows it")
    _, disk, first_disk, here, count, length, offset, _ = end
    if (disk, first_disk) != (0, 0) or here != count:
        raise ReadError(path, "it is a zip archive in several volumes")
    stop = end_at
    if count == _FULL16 or _FULL32 in (length, offset):
        locator_at = end_at - _END64_LOCATOR.size
        locator = _END64_LOCATOR.unpack(source.read(max(locator_at, 0), _END64_LOCATOR.size))
        stop = locator[2]
        if locator[0] != b"PK\x06\x07" or stop + _END64.size != locator_at:
            raise ReadError(path, "its zip64 end record is not where it should be")
        record = _END64.unpack(source.read(stop, _END64.size))
        if record[0] != b"PK\x06\x06" or record[6] != record[7] or any(record[4:6]):
            raise ReadError(path, "its zip64 end record is not well-formed")
        count, length, offset = record[7:]
    if offset + length > stop or offset + length + _END64.size + _END64_LOCATOR.size < stop:
        raise ReadError(path, "its zip directory is not where its end record says")
    return count, length, offset


def _central_entry(path: str, directory: bytes, position: int) -> tuple[str, int, int, int]:
    """Return name, local header offset, length, and the position of the next entry."""
    try:
        fields = _CENTRAL.unpack_from(directory, position)
    except struct.error:
        raise ReadError(path, "its zip directory is cut off") from None
    magic, flags, method = fields[0], fields[3], fields[4]
    packed, length, name_length, extra_length, comment_length = fields[8:13]
    disk, header = fields[13], fields[16]
    begin = position + _CENTRAL.size
    extra_at = begin + name_length
    following = extra_at + extra_length + comment_length
    if magic != b"PK\x01\x02" or following > len(directory):
        raise ReadError(path, "its zip directory is not well-formed")
    name = _decode(path, directory[begin:extra_at])
    if method != 0:
        raise ReadError(path, f"zip entry {name[:80]!r} is compressed, which torch.save never does")
    if flags & _ENCRYPTED or disk not in (0, _FULL16):
        raise ReadError(path, f"zip entry {name[:80]!r} is encrypted or on another volume")
    wide = _zip64_values(directory[extra_at : extra_at + extra_length])
    try:
        length = next(wide) if length == _FULL32 else length
        packed = next(wide) if packed == _FULL32 else packed
        header = next(wide) if header == _FULL32 else header
    except StopIteration:
        raise ReadError(path, f"zip entry {name[:80]!r} lacks its zip64 sizes") from None
    if packed != length:
        raise ReadError(path, f"zip entry {name[:80]!r} has two sizes")
    return name, header, length, following


def _zip64_values(extra: bytes) -> Iterator[int]:
    """Yield the 8-byte values of the zip64 extra field (APPNOTE 4.5.3), none where it is absent."""
    position = 0
    for _ in range(MAX_EXTRA_FIELDS):
        if position + 4 > len(extra):
            return
        kind, length = struct.unpack_from("<2H", extra, position)
        position += 4
        if kind == 1:
            body = extra[position : position + length]
            yield from (value for (value,) in struct.iter_unpack("<Q", body[: len(body) // 8 * 8]))
            return
        position += length


def _data_start(source: Source, name: str, header: int) -> int:
    """Return where an entry's bytes begin: after its *local* name and extra field.

    ``torch.save`` aligns storages to 64 bytes by an extra field that only the local header has.
    """
    path = source.path
    encoded = name.encode()
    name_at = header + _LOCAL.size
    if name_at + len(encoded) > source.size:
        raise ReadError(path, f"zip entry {name[:80]!r} begins beyond the end of the file")
    local = source.read(header, _LOCAL.size + len(encoded))
    fields = _LOCAL.unpack_from(local)
    if fields[0] != b"PK\x03\x04" or fields[3] != 0 or fields[2] & _ENCRYPTED:
        raise ReadError(path, f"zip entry {name[:80]!r} has another local header")
    if fields[9] != len(encoded) or not local.endswith(encoded):
        raise ReadError(path, f"zip entry {name[:80]!r} has another name in its local header")
    return name_at + int(fields[9]) + int(fields[10])


def _decode(path: str, raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ReadError(path, "a zip entry's name is not UTF-8") from None
    if not name or "\0" in name or len(name) > 1024:
        raise ReadError(path, "a zip entry has no honest name")
    return name
