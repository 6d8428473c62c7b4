"""A journal of digests, so that a long verification goes on where it was interrupted.

    FOLDER/<SHA-256 of the path>.journal   first line: the run of the machine and the path
                                           then a line per span: file, identity, kinds, digests

What could have changed since is not believed: a span counts only while its file still has the
same device, inode, size, mtime and ctime, was not written to just before it was read (a second
write could carry the same time), and the machine has not been started anew (after a crash a file
may lack what was only in memory, under the same times). The journal is a file of mode 0600 in a
folder of mode 0700, and is gone when its verification has come to an end.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from .errors import InputError

MAX_LINE = 64 << 10
MAX_JOURNAL_BYTES = 1 << 30
SETTLED_NS = 2_000_000_000
"""A file must have been left alone this long before it was read: the coarsest clock of a file
system (FAT's) counts in two seconds."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Span:
    """What was hashed: ``count`` leaves from leaf ``first`` on, or (0) the whole of a file.

    ``identity`` is (device, inode, size, mtime, ctime), times in nanoseconds.
    """

    name: str
    identity: tuple[int, int, int, int, int]
    kinds: tuple[str, ...]
    size: int
    first: int
    count: int


class Journal:
    """Digests of spans that an earlier run of the same verification made, and those of this one."""

    def __init__(self, file: TextIO, known: Mapping[Span, dict[str, Any]]) -> None:
        self._file = file
        self._known = known

    def recall(self, span: Span) -> dict[str, Any] | None:
        """Return the digests of ``span`` (bytes of leaves, hex of a whole) if they still count."""
        return self._known.get(span)

    def note(self, span: Span, digests: Mapping[str, Any]) -> None:
        """Write down the digests of ``span``, unless its file was written to a moment ago."""
        if time.time_ns() - max(span.identity[3:]) < SETTLED_NS:
            return
        values = {kind: v if isinstance(v, str) else v.hex() for kind, v in digests.items()}
        self._file.write(json.dumps([*astuple(span), values], separators=(",", ":")) + "\n")
        self._file.flush()


def folder(data: Path | None) -> Path:
    """Return where journals lie: below ``data``, else in the user's cache (XDG)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (data or cache / "weighbridge") / "resume"


@contextlib.contextmanager
def journal(folder: Path, root: Path) -> Iterator[Journal]:
    """Open the journal of verifying ``root``; it is removed when the block ends without an error.

    Raises:
        InputError: it cannot be written, or another verification of ``root`` holds it.
    """
    path = folder / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:32]}.journal"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise InputError(
            f"--resume cannot write {path}: {error.strerror}; set WEIGHBRIDGE_DATA to a folder "
            "of yours."
        ) from None
    with os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace") as file:
        _check_ours(path, os.fstat(descriptor))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"Another verification of {root} with --resume is running.") from None
        known = _read(file, root)
        if known is None:
            file.seek(0)
            file.truncate()
            file.write(json.dumps(_head(root)) + "\n")
            file.flush()
        yield Journal(file, known or {})
        path.unlink(missing_ok=True)


def _check_ours(path: Path, status: os.stat_result) -> None:
    if (
        not stat.S_ISREG(status.st_mode)
        or status.st_uid != os.geteuid()
        or status.st_mode & 0o022
        or status.st_size > MAX_JOURNAL_BYTES
    ):
        raise InputError(f"{path} is not a journal that only you can write; remove it.")


def _read(file: TextIO, root: Path) -> dict[Span, dict[str, Any]] | None:
    """Return what an earlier run wrote, and stand at its end; None where it does not count.

    A last line that was cut off is dropped: what follows would otherwise be joined to it.
    """
    if _parsed(file.readline(MAX_LINE)) != _head(root):
        return None
    known: dict[Span, dict[str, Any]] = {}
    end = file.tell()
    while line := file.readline(MAX_LINE):
        match _parsed(line):
            case [
                str(name),
                [int(), int(), int(), int(), int()] as identity,
                list(kinds),
                int(size),
                int(first),
                int(count),
                dict(values),
            ]:
                place = cast(tuple[int, int, int, int, int], tuple(identity))
                span = Span(name, place, tuple(map(str, kinds)), size, first, count)
                known[span] = _digests(values, whole=count == 0)
            case _:
                break
        end = file.tell()
    file.seek(end)
    file.truncate()
    return known


def _digests(values: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    """Return digests as the engine has them; what is no hex is nothing known."""
    try:
        return {k: str(v) if whole else bytes.fromhex(str(v)) for k, v in values.items()}
    except ValueError:
        return {}


def _parsed(line: str) -> Any:
    try:
        return json.loads(line) if line.endswith("\n") else None
    except ValueError:
        return None


def _head(root: Path) -> dict[str, str]:
    try:
        boot = _BOOT_ID.read_text().strip()
    except OSError:
        boot = f"unknown, {time.time_ns()}"  # runs cannot be told apart: nothing is believed
    return {"journal": "weighbridge.resume/1", "boot": boot, "path": str(root)}
