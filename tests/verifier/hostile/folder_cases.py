"""The folder itself: links, pipes, devices, names, depth, sizes, and what may not be read."""

import contextlib
import os
import shutil
import socket
from pathlib import Path

from .cases import SHARD, Case, Make, Room, table

NOBODY = 65534


def replaced(kind: str, target: str = "") -> Make:
    """A listed shard is something else."""

    def make(room: Room) -> None:
        path = room.copy / SHARD
        path.unlink()
        special(path, kind, target)

    return make


def beside(kind: str, target: str = "") -> Make:
    """Something else lies beside good files, under a name that weights could have."""
    return lambda room: special(room.copy / "other.safetensors", kind, target)


def special(path: Path, kind: str, target: str) -> None:
    if kind == "link":
        path.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        bind(path)
    elif kind == "device":
        os.mknod(path, 0o20666, os.makedev(1, 5))
    elif kind == "block device":
        os.mknod(path, 0o60666, os.makedev(7, 200))


def bind(path: Path) -> None:
    """Leave a socket at ``path``, whose name may be too long to bind from elsewhere."""
    before = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


LINKS = {
    "out of the folder": ("/etc/passwd", "out of the folder"),
    "out of it, relatively": ("../aside", "out of the folder|to a folder"),
    "to an endless device": ("/dev/zero", "out of the folder"),
    "to a random device": ("/dev/urandom", "out of the folder"),
    "to a terminal": ("/dev/tty", "leads nowhere|out of the folder"),
    "to standard input": ("/dev/stdin", "leads nowhere|out of the folder"),
    "to the memory of this process": ("/proc/self/mem", "out of the folder"),
    "to an open file of this process": ("/proc/self/fd/0", "out of the folder|leads nowhere"),
    "to the root of this process": ("/proc/self/root", "out of the folder"),
    "to the folder of this process": ("/proc/self/cwd", "out of the folder"),
    "to itself": (SHARD, "leads to itself"),
    "to nowhere": ("none", "leads nowhere"),
    "to a name that is too long": ("a" * 300, "leads nowhere"),
    "to the folder around it": (".", "to a folder|out of the folder"),
    "to the root": ("/", "out of the folder"),
    "through a file": ("config.json/x", "leads nowhere"),
    "to its own side files": (".weighbridge", "to a folder"),
}


def link_farm(count: int, suffix: str = "") -> Make:
    """Links to a file inside, and as many out of it."""

    def make(room: Room) -> None:
        for number in range(count // 2):
            (room.copy / f"in-{number}{suffix}").symlink_to("config.json")
            (room.copy / f"out-{number}{suffix}").symlink_to("/dev/zero")

    return make


def link_chain(count: int) -> Make:
    """Each link leads to the next one, the last to a file."""

    def make(room: Room) -> None:
        for number in range(count):
            (room.copy / f"{number:05}.safetensors").symlink_to(f"{number + 1:05}.safetensors")
        (room.copy / f"{count:05}.safetensors").write_bytes(b"x")

    return make


def folder_loops(count: int) -> Make:
    """Links to folders that hold such links: endless, if they were walked."""

    def make(room: Room) -> None:
        for number in range(count):
            folder = room.copy / f"d{number}"
            folder.mkdir()
            (folder / "up").symlink_to("..")
            (folder / "here").symlink_to(".")

    return make


def doubling_links(room: Room) -> None:
    """l0 leads to d, l1 to l0/../l0, and so on: 2^n steps for whoever resolves them by hand."""
    (room.copy / "d").mkdir()
    (room.copy / "l0").symlink_to("d")
    for number in range(1, 60):
        (room.copy / f"l{number}").symlink_to(f"l{number - 1}/../l{number - 1}")


def many_files(count: int) -> Make:
    def make(room: Room) -> None:
        for number in range(count):
            (room.copy / f"{number}.safetensors").touch()

    return make


def hard_links(room: Room) -> None:
    for number in range(5000):
        (room.copy / f"{number}.safetensors").hardlink_to(room.copy / "config.json")


def deep(levels: int, name: str = "d") -> Make:
    """A folder in a folder in a folder: longer than any path may be."""

    def make(room: Room) -> None:
        before = os.getcwd()
        os.chdir(room.copy)
        try:
            for _ in range(levels):
                os.mkdir(name)
                os.chdir(name)
            Path("x.safetensors").touch()
        finally:
            os.chdir(before)

    return make


NAMES = {
    "not UTF-8": (b"bad\xff.safetensors", "bad-name", r"bad\\xff"),
    "an overlong slash": (b"a\xc0\xafb", "bad-name", "not UTF-8"),
    "UTF-8 of a surrogate": (b"\xed\xa0\x80", "bad-name", "not UTF-8"),
    "a newline": (b"a\nb.txt", "unlisted", r"a\\nb"),
    "an escape sequence": (b"\x1b[2Jx.txt", "unlisted", r"\\x1b\[2J"),
    "a bell and a delete": (b"\x07\x7f", "unlisted", r"\\x07\\x7f"),
    "a mark that turns around": ("\u202egnp.exe".encode(), "unlisted", r"\\u202e"),
    "a mark of no width": ("a\u200bb".encode(), "unlisted", r"\\u200b"),
    "a mark of a byte order": ("\ufeffa".encode(), "unlisted", r"\\ufeff"),
    "a line separator": ("a\u2028b".encode(), "unlisted", r"\\u2028"),
    "tags": ("a\U000e0041".encode(), "unlisted", r"\\U000e0041"),
    "a character of private use": ("\ue000".encode(), "unlisted", r"\\ue000"),
    "255 bytes": (b"a" * 255, "unlisted", "a" * 255),
    "an option": (b"--json", "unlisted", "--json"),
    "a backslash": (b"..\\..\\x", "unlisted", "not in the manifest"),
    "only spaces": (b"  ", "unlisted", "not in the manifest"),
    "dots": (b"...", "unlisted", r"\.\.\."),
    "another case of a listed name": (b"CONFIG.JSON", "unlisted", "CONFIG.JSON"),
    "a markup": (b"<script>alert(1)<!--", "unlisted", "script"),
    "a template": (b"{{7*7}}{0}%s", "unlisted", "7"),
}


def named(name: bytes) -> Make:
    return lambda room: Path(os.fsdecode(os.fsencode(room.copy) + b"/" + name)).touch()


def decomposed(room: Room) -> None:
    """Two names that one system keeps apart and another does not."""
    (room.copy / "\u00e9").write_text("1")
    (room.copy / "e\u0301").write_text("2")


def names_without_end(room: Room) -> None:
    for number in range(3000):
        room.put(os.fsdecode(b"\xff\xfe" + b"%d" % number), b"")


def sparse(name: str, size: int) -> Make:
    """A file that claims ``size`` bytes and has none of them."""

    def make(room: Room) -> None:
        with (room.copy / name).open("ab") as opened:
            opened.truncate(size)

    return make


def unreadable(name: str) -> Make:
    """What lies there may be read by nobody, and it is nobody who asks."""

    def make(room: Room) -> None:
        open_to_all(room)
        path = room.copy / name
        if name.endswith("closed"):
            path.mkdir()
        path.chmod(0)

    return make


def open_to_all(room: Room) -> None:
    for path in (room.folder, *room.folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    for parent in room.folder.parents:
        with contextlib.suppress(PermissionError):
            parent.chmod(parent.stat().st_mode | 0o011)
    for path in (room.signer.public, *list(room.signer.public.parents)[:2]):
        path.chmod(path.stat().st_mode | 0o055)


def closed(room: Room) -> None:
    open_to_all(room)
    room.copy.chmod(0)


def nested_copies(room: Room) -> None:
    """Folders that are links to one checkpoint: verified as often, if they were followed."""
    for name in os.listdir(room.copy):
        if name != "model.sig":
            path = room.copy / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(room.official, room.copy / "real")
    (room.copy / "model.sig").unlink()
    (room.copy / "real" / SHARD).unlink()
    for number in range(300):
        (room.copy / f"again-{number}").symlink_to("real")


def chain_to(room: Room, count: int) -> None:
    for number in range(count):
        (room.folder / str(number)).symlink_to(str(number + 1))


CASES = [
    *table("link", LINKS, lambda target: replaced("link", target), code="link"),
    *table(
        "listed shard",
        {
            "that is a pipe": ("pipe", "a pipe"),
            "that is a socket": ("socket", "a socket"),
        },
        replaced,
        code="not-a-file",
    ),
    *table(
        "listed shard",
        {
            "that is a character device": ("device", "a device"),
            "that is a block device": ("block device", "a device"),
        },
        replaced,
        code="not-a-file",
        needs_root=True,
    ),
    *(
        Case(f"name: {name}", named(raw), says, code, 0)
        for name, (raw, code, says) in NAMES.items()
    ),
    Case(
        "link: out of the folder and back",
        replaced("link", "../copy/config.json"),
        "holds the bytes of config.json",
        "damaged",
    ),
    Case("listed shard: that is a folder", replaced("folder"), "is missing", "missing"),
    Case("links: 10,000", link_farm(10_000), "out of the folder", "link", 0),
    Case("links: 2,000 called weights", link_farm(2000, ".safetensors"), "out of", "link", 0),
    Case("links: a chain of 10,000", link_chain(10_000), "too many others", "link", 0),
    Case("links: a chain of 38", link_chain(38), "not in the manifest", "unlisted", 0),
    Case("links: to folders that hold them", folder_loops(500), "to a folder|out of", "link", 0),
    Case("links: that double", doubling_links, "to a folder|itself", "link", 0),
    Case("files: 5,000 hard links", hard_links, "not in the manifest", "unlisted", 0),
    Case("files: 5,000 empty ones", many_files(5000), "not in the manifest", "unlisted", 0),
    Case("names: 3,000 that are not UTF-8", names_without_end, "not UTF-8", "bad-name", 0),
    Case("files: composed and decomposed", decomposed, "not in the manifest", "unlisted", 0),
    Case("folders: 40 deep", deep(40), "deeper than 32", "too-deep", 0),
    Case("folders: 3,000 deep", deep(3000), "deeper than 32", "too-deep", 0),
    Case(
        "folders: 40 deep, of long names", deep(40, "d" * 250), "cannot be listed", "unreadable", 0
    ),
    Case("pipe beside good files", beside("pipe"), "a pipe", "not-a-file", 0),
    Case("endless device beside good files", beside("link", "/dev/zero"), "link", "link", 0),
    Case("sparse: a shard of 1 TiB", sparse(SHARD, 1 << 40), "added|differs", "damaged"),
    Case("sparse: a config of 1 TiB", sparse("config.json", 1 << 40), "differs", "damaged"),
    Case(
        "sparse: 1 TiB beside good files",
        sparse("big.safetensors", 1 << 40),
        "not in",
        "unlisted",
        0,
    ),
    Case(
        "one file: 1 TiB, of no such name",
        sparse("big.safetensors", 1 << 40),
        "not in",
        "unlisted",
        argument="copy/big.safetensors",
    ),
    Case(
        "nobody: an unreadable shard",
        unreadable(SHARD),
        "Permission denied",
        "unreadable",
        user=NOBODY,
    ),
    Case(
        "nobody: an unreadable config",
        unreadable("config.json"),
        "Permission",
        "unreadable",
        user=NOBODY,
    ),
    Case(
        "nobody: an unreadable manifest",
        unreadable("model.sig"),
        "Permission denied",
        status=2,
        user=NOBODY,
    ),
    Case(
        "nobody: an unreadable side file",
        unreadable(".weighbridge/leaves.b3"),
        "Permission",
        "side-file-differs",
        0,
        user=NOBODY,
    ),
    Case(
        "nobody: unreadable side files",
        unreadable(".weighbridge"),
        "not there|Permission",
        "side-file-missing",
        0,
        user=NOBODY,
    ),
    Case(
        "nobody: an unreadable folder in it",
        unreadable("closed"),
        "cannot be listed",
        "unreadable",
        0,
        user=NOBODY,
    ),
    Case(
        "nobody: an unreadable copy",
        closed,
        "Permission denied",
        status=2,
        user=NOBODY,
    ),
    Case("PATH: not there", lambda room: None, "No such file", status=2, argument="none"),
    Case(
        "PATH: a pipe",
        lambda room: os.mkfifo(room.folder / "p"),
        "neither a folder",
        status=2,
        argument="p",
    ),
    Case(
        "PATH: a link to itself",
        lambda room: (room.folder / "p").symlink_to("p"),
        "cannot be opened",
        status=2,
        argument="p",
    ),
    Case(
        "PATH: an endless device",
        lambda room: (room.folder / "p").symlink_to("/dev/zero"),
        "neither a folder",
        status=2,
        argument="p",
    ),
    Case(
        "PATH: a chain of 2,000 links",
        lambda room: chain_to(room, 2000),
        "cannot be opened",
        status=2,
        argument="0",
    ),
    Case(
        "PATH: a name of 300 letters", lambda room: None, "too long", status=2, argument="a" * 300
    ),
    Case("PATH: 300 links to one checkpoint", nested_copies, "missing", "missing"),
]
