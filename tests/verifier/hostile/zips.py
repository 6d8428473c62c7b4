"""Zip archives byte by byte, so that every field of them can lie (PKWARE APPNOTE 6.3.9, 4.3)."""

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

DEFLATED = 8


@dataclass(frozen=True)
class Entry:
    """One entry; what is None is what an honest archive has there."""

    name: bytes
    data: bytes = b""
    method: int = 0
    flags: int = 0
    local_name: bytes | None = None
    local_method: int | None = None
    local_flags: int | None = None
    local_extra: bytes = b""
    central_extra: bytes = b""
    packed: int | None = None
    size: int | None = None
    offset: int | None = None
    disk: int = 0

    def deflated(self) -> "Entry":
        """Return the entry compressed."""
        squeezed = zlib.compress(self.data, 9)[2:-4]
        return replace(self, data=squeezed, method=DEFLATED, size=len(self.data))


def archive(
    entries: Sequence[Entry],
    *,
    count: int | None = None,
    directory_size: int | None = None,
    directory_offset: int | None = None,
    comment: bytes = b"",
    before: bytes = b"",
    between: bytes = b"",
    volume: int = 0,
    spoil: Callable[[bytearray], object] | None = None,
) -> bytes:
    """Return an archive of ``entries`` whose end record says what it is told to."""
    body, directory = bytearray(before), bytearray()
    for entry in entries:
        offset = len(body) if entry.offset is None else entry.offset
        body += local(entry) + entry.data
        directory += central(entry, offset)
    at = len(body)
    if spoil:
        spoil(directory)
    body += directory + between
    number = len(entries) if count is None else count
    size = len(directory) if directory_size is None else directory_size
    at = at if directory_offset is None else directory_offset
    end = struct.pack("<4s4H2LH", b"PK\5\6", volume, 0, number, number, size, at, len(comment))
    return bytes(body) + end + comment


def local(entry: Entry) -> bytes:
    """Return the local header of ``entry``; sizes follow only in the directory, as torch does."""
    name = entry.name if entry.local_name is None else entry.local_name
    method = entry.method if entry.local_method is None else entry.local_method
    flags = entry.flags if entry.local_flags is None else entry.local_flags
    numbers = (20, flags, method, 0, 0, 0, 0, 0, len(name), len(entry.local_extra))
    return struct.pack("<4s5H3L2H", b"PK\3\4", *numbers) + name + entry.local_extra


def central(entry: Entry, offset: int) -> bytes:
    """Return the line of the directory that says where ``entry`` is."""
    packed = len(entry.data) if entry.packed is None else entry.packed
    size = packed if entry.size is None else entry.size
    numbers = (20, 20, entry.flags, entry.method, 0, 0, 0, packed, size, len(entry.name))
    numbers += (len(entry.central_extra), 0, entry.disk, 0, 0, offset)
    return struct.pack("<4s6H3L5H2L", b"PK\1\2", *numbers) + entry.name + entry.central_extra


def zip64(entries: Sequence[Entry], **lies: int) -> bytes:
    """Return an archive with the zip64 end records; ``lies`` are their fields by name."""
    plain = archive(entries)
    body, end = plain[:-22], plain[-22:]
    number, size, offset = len(entries), *struct.unpack_from("<2L", end, 12)
    record = struct.pack(
        "<4sQ2H2L4Q",
        b"PK\6\6",
        44,
        45,
        45,
        0,
        0,
        lies.get("count", number),
        lies.get("count", number),
        lies.get("size", size),
        lies.get("offset", offset),
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, lies.get("record", len(body)), 1)
    full = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return body + record + locator + full
