"""Zip archives of tensors that lie, multiply, or hide something."""

import struct
from dataclasses import replace
from typing import Any

from .cases import MIB, PART, Case, Make, Room, table
from .pickles import ORDERED, START, running, state, tensor
from .zips import Entry, archive, local, zip64

CANARY = "touch executed"


GOOD = state(a=tensor())


PICKLE = Entry(b"c/data.pkl", GOOD)


DATA = Entry(b"c/data/0", bytes(16))


def zipped(pickled: bytes, *storages: bytes) -> bytes:
    """Return an honest archive around a pickle."""
    files = [Entry(b"c/data/%d" % n, data) for n, data in enumerate(storages or (bytes(16),))]
    return archive([replace(PICKLE, data=pickled), *files])


def put(given: Any) -> Make:
    """The file lies where the official shards were."""
    return lambda room: room.instead(PART, given() if callable(given) else given)


def central(**changes: Any) -> bytes:
    return archive([PICKLE, replace(DATA, **changes)])


def itself() -> bytes:
    """An archive whose storage is the archive, as far as a storage can be."""
    inner = zipped(GOOD)
    count = len(inner) // 4
    return zipped(state(a=tensor(count=count, shape=(count,), stride=(1,))), inner)


def overlapping_locals() -> bytes:
    """Two entries whose local headers are one in the other (Fifield 2019, "A better zip bomb")."""
    second = local(Entry(b"c/data/1")) + bytes(16)
    first = Entry(b"c/data/0", second)
    body = local(PICKLE) + PICKLE.data + local(first)
    inner = Entry(b"c/data/1", b"", packed=16, offset=len(body))
    return archive([PICKLE, first, inner])


def tied(count: int) -> bytes:
    """Many tensors that share one storage of a mebibyte."""
    one = tensor(count=MIB // 4, shape=(MIB // 4,), stride=(1,))
    return zipped(state(**{f"t{n}": one for n in range(count)}), bytes(MIB))


ZIPS = {
    "only its first bytes": (b"PK\3\4", "too short"),
    "cut off in the end record": (zipped(GOOD)[:-1], "does not end as a zip"),
    "cut off in the directory": (zipped(GOOD)[:-60], "does not end as a zip"),
    "cut off in the data": (zipped(GOOD)[:100], "does not end as a zip"),
    "a byte after the end": (zipped(GOOD) + b"x", "does not end as a zip"),
    "a comment": (archive([PICKLE, DATA], comment=b"hello"), "does not end as a zip"),
    "a comment that is an archive": (
        archive([PICKLE, DATA], comment=zipped(GOOD)),
        "not where its end record says|more than|share bytes|other",
    ),
    "a second archive behind the first": (
        zipped(GOOD) + zipped(GOOD),
        "not where its end record says|another local|beyond",
    ),
    "several volumes": (archive([PICKLE, DATA], volume=3), "several volumes"),
    "65,534 entries claimed": (archive([PICKLE, DATA], count=65_534), "cannot be right"),
    "one entry more claimed": (archive([PICKLE, DATA], count=3), "cannot be right|cut off"),
    "one entry fewer claimed": (archive([PICKLE, DATA], count=1), "longer than its entries"),
    "no entry claimed": (archive([PICKLE, DATA], count=0), "longer than its entries"),
    "a directory of 4 GiB": (
        archive([PICKLE, DATA], directory_size=0xFFFFFFFE),
        "cannot be right|not where",
    ),
    "a directory beyond the end": (
        archive([PICKLE, DATA], directory_offset=0xFFFFFFFE),
        "not where",
    ),
    "a directory at 0": (archive([PICKLE, DATA], directory_offset=0), "not where|well-formed"),
    "a gap before the end record": (
        archive([PICKLE, DATA], between=bytes(100)),
        "not where its end record says",
    ),
    "zip64 marked, no record": (archive([PICKLE, DATA], count=0xFFFF), "zip64 end record"),
    "zip64 record elsewhere": (zip64([PICKLE, DATA], record=0), "not where it should be"),
    "zip64 record at 2^63": (zip64([PICKLE, DATA], record=2**63), "not where it should be"),
    "zip64 with 2^63 entries": (zip64([PICKLE, DATA], count=2**63), "cannot be right"),
    "zip64 directory of 2^63": (zip64([PICKLE, DATA], size=2**63), "not where"),
    "zip64 directory at 2^64 - 1": (zip64([PICKLE, DATA], offset=2**64 - 1), "not where"),
    "deflated": (archive([PICKLE, replace(DATA, data=bytes(64)).deflated()]), "compressed"),
    "a deflated pickle": (archive([PICKLE.deflated(), DATA]), "compressed"),
    "a bomb: 64 MiB in 64 KiB": (
        lambda: archive([PICKLE, replace(DATA, data=bytes(64 * MIB)).deflated()]),
        "compressed",
    ),
    "a bomb as pickle": (
        lambda: archive([replace(PICKLE, data=b"N" * 64 * MIB).deflated(), DATA]),
        "compressed",
    ),
    "bzip2": (central(method=12), "compressed"),
    "lzma": (central(method=14), "compressed"),
    "method 99": (central(method=99), "compressed"),
    "deflated in the local header only": (central(local_method=8), "another local header"),
    "encrypted": (central(flags=1), "encrypted"),
    "strongly encrypted": (central(flags=0x41), "encrypted"),
    "a masked directory": (central(flags=0x2000), "encrypted"),
    "encrypted in the local header only": (central(local_flags=1), "another local header"),
    "on another volume": (central(disk=7), "another volume"),
    "another name in the local header": (central(local_name=b"c/data/1"), "another name"),
    "a longer name in the local header": (central(local_name=b"c/data/00"), "another name"),
    "no name in the local header": (central(local_name=b""), "another name"),
    "a name twice": (archive([PICKLE, DATA, DATA]), "twice"),
    "two pickles": (archive([PICKLE, PICKLE, DATA]), "twice"),
    "two roots": (
        archive([PICKLE, DATA, replace(PICKLE, name=b"d/data.pkl")]),
        "not one that torch.save wrote",
    ),
    "an alias of another entry": (
        archive([PICKLE, DATA, Entry(b"c/data/1", packed=16, offset=len(local(PICKLE) + GOOD))]),
        "another name",
    ),
    "two local headers, one in the other": (overlapping_locals(), "share bytes|two sizes|beyond"),
    "an archive in itself": (itself, "share bytes|does not fill|another size|lists|of"),
    "no pickle": (archive([DATA]), "not one that torch.save wrote"),
    "no entry": (archive([]), "neither"),
    "a name of no letters": (archive([PICKLE, DATA, Entry(b"")]), "no honest name"),
    "NUL in a name": (archive([PICKLE, DATA, Entry(b"c/\0")]), "no honest name"),
    "a name of 60,000 bytes": (archive([PICKLE, DATA, Entry(b"a" * 60_000)]), "no honest name"),
    "a name that is not UTF-8": (archive([PICKLE, DATA, Entry(b"c/\xff")]), "not UTF-8"),
    "a packed size that lies": (central(packed=1, size=16), "two sizes"),
    "a size of 4 GiB": (central(packed=0xFFFFFFFE), "beyond the archive's data"),
    "a zip64 size that is not there": (central(packed=0xFFFFFFFF), "lacks its zip64"),
    "a zip64 size of 2^64 - 1": (
        central(packed=0xFFFFFFFF, central_extra=struct.pack("<2H2Q", 1, 16, *[2**64 - 1] * 2)),
        "beyond the archive's data",
    ),
    "a zip64 field cut off": (
        central(packed=0xFFFFFFFF, central_extra=struct.pack("<2HL", 1, 16, 1)),
        "lacks its zip64",
    ),
    "a header at 4 GiB": (central(offset=0xFFFFFFFE), "beyond the end of the file"),
    "a header in the directory": (central(offset=150), "another local|beyond|another name"),
    "a local extra field beyond the end": (
        archive([PICKLE, replace(DATA, local_extra=bytes(200), data=b"", packed=16)]),
        "beyond the archive's data",
    ),
    "60 KiB of empty extra fields each": (
        lambda: archive(
            [PICKLE, *(Entry(b"c/data/%d" % n, central_extra=bytes(60_000)) for n in range(250))]
        ),
        "storage that is not there|another size|no storage|zip|of",
    ),
    "60,000 entries": (
        lambda: zip64([PICKLE, *(Entry(b"c/data/%d" % n) for n in range(60_000))]),
        "cannot be right",
    ),
    "49,000 entries": (
        lambda: archive([PICKLE, *(Entry(b"c/data/%d" % n) for n in range(49_000))]),
        "another size",
    ),
    "big-endian": (
        archive([PICKLE, DATA, Entry(b"c/byteorder", b"big")]),
        "big-endian",
    ),
    "a byte order of 64 KiB": (
        archive([PICKLE, DATA, Entry(b"c/byteorder", b"little" * 10_000)]),
        "big-endian",
    ),
    "a pickle of 40 MiB": (lambda: zipped(b"N" * 40 * MIB), "larger than 32 MiB"),
    "a mebibyte before the archive": (
        archive([PICKLE, DATA], before=b"PK\3\4" + bytes(MIB), directory_offset=0),
        "not where",
    ),
    "a storage that is too short": (zipped(GOOD, bytes(15)), "another size"),
    "a storage that is too long": (zipped(GOOD, bytes(17)), "another size"),
    "tied two hundred times": (lambda: tied(200), "again and again"),
}


def executable_beside(room: Room) -> None:
    """Good weights in Meta's layout, and code that a careless loader would import."""
    room.in_meta()
    room.put("sitecustomize.py", "open('executed', 'w')")
    room.put("torch.py", "open('executed', 'w')")
    room.put("conftest.py", "open('executed', 'w')")


def unknown_module_state(room: Room) -> None:
    """An archive as TorchScript writes it: code, constants, and its own pickles."""
    script = [PICKLE, Entry(b"c/code/__torch__.py", b"def forward(self): pass"), DATA]
    script += [Entry(b"c/constants.pkl", START + ORDERED + b".")]
    room.instead(PART, archive([replace(PICKLE, data=running(CANARY)), *script[1:]]))


CASES = [
    *table("zip", ZIPS, put, code="weights-refused"),
    Case("zip: TorchScript that runs", unknown_module_state, "could run code", "weights-refused"),
    Case("zip: modules beside good weights", executable_beside, "torch.py", "unlisted"),
]
