"""A bounded walk of a folder that a stranger filled.

Nothing is opened here: names, kinds and sizes come from ``lstat``. Links are followed only to
regular files inside the folder, or from a snapshot in a cache of Hugging Face's tools to its blobs;
folder links never. What cannot be walked becomes a finding.
"""

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from . import hf_cache, names
from .errors import InputError, ReadError
from .findings import Code, Finding

MAX_FILES = 100_000
MAX_DEPTH = 32
MAX_FILE_BYTES = 1 << 50


@dataclass(frozen=True, slots=True)
class Identity:
    """What must stay the same while a file is read: where it lies, its size, when it changed."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Identity":
        """Take the identity out of ``status``."""
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file: POSIX name in the folder, and where its bytes really lie."""

    name: str
    location: Path
    identity: Identity

    @property
    def size(self) -> int:
        """Bytes, when it was listed."""
        return self.identity.size


@dataclass(slots=True)
class Listing:
    """What lies in a folder: its regular files by name, and what was refused."""

    root: Path
    files: dict[str, FoundFile] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    truncated: bool = False


def walk(root: Path, *, skip: Iterable[str] = (), max_files: int = MAX_FILES) -> Listing:
    """List ``root``, a folder or one file, without the names in ``skip`` and what lies below them.

    Raises:
        InputError: ``root`` is not there, cannot be opened, or is neither a folder nor a file.
    """
    root = resolve_root(root)
    listing = Listing(root)
    if not root.is_dir():
        _add_file(listing, root.parent, root.name)
        listing.root = root.parent
        return listing
    skipped = frozenset(skip)
    pending: list[tuple[str, int]] = [("", 0)]
    while pending and not listing.truncated:
        folder, depth = pending.pop()
        for entry in _entries(listing, folder):
            name = f"{folder}/{entry.name}" if folder else entry.name
            if name in skipped:
                continue
            if len(listing.files) + len(listing.findings) + len(pending) >= max_files:
                listing.truncated = True
                listing.findings.append(
                    Finding(
                        Code.TOO_MANY,
                        "",
                        f"More than {max_files:,} files; the rest was not listed.",
                    )
                )
                break
            if not names.is_utf8(name):
                _refuse(listing, Code.BAD_NAME, name, "its name is not UTF-8")
            elif not entry.is_dir(follow_symlinks=False):
                _add_file(listing, root, name)
            elif depth + 1 >= MAX_DEPTH:
                _refuse(
                    listing, Code.TOO_DEEP, name, f"deeper than {MAX_DEPTH} folders; not entered"
                )
            else:
                pending.append((name, depth + 1))
    return listing


def look_up(listing: Listing, wanted: Iterable[str]) -> None:
    """Add those of ``wanted`` that a truncated walk did not reach, if they are there."""
    known = set(listing.files) | {finding.path for finding in listing.findings}
    for name in wanted:
        if name not in known and os.path.lexists(listing.root / name):
            _add_file(listing, listing.root, name)


def resolve_root(path: Path) -> Path:
    """Return the real place of ``path``, which a person named, so links in it are followed.

    A repository of a Hugging Face cache stands for its snapshot, whose files keep their names.

    Raises:
        InputError: it is not there, cannot be opened, or is neither a folder nor a regular file.
    """
    try:
        root = path.resolve(strict=True)
        named = path.parent.resolve() / path.name
        if named.is_symlink() and hf_cache.blob_behind(named.parent, named):
            root = named
        root = hf_cache.snapshot_of(root)
        mode = root.stat().st_mode
        if stat.S_ISDIR(mode):
            os.scandir(root).close()
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not a path"
        raise InputError(f"{names.shown(str(path))} cannot be opened: {reason}.") from None
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise InputError(f"{names.shown(str(path))} is neither a folder nor a regular file.")
    return root


def open_found(file: FoundFile) -> int:
    """Open ``file`` for reading and return its descriptor; never blocks, never follows a link.

    Raises:
        ReadError: it cannot be opened, or is no longer the file that was listed.
    """
    try:
        descriptor = os.open(
            file.location, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except OSError as error:
        raise ReadError(file.name, f"it cannot be read: {error.strerror}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or Identity.of(status) != file.identity:
        os.close(descriptor)
        raise ChangedError(file.name)
    return descriptor


class ChangedError(ReadError):
    """A file was replaced or written to while it was being looked at."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "it changed while it was being read")

    def __reduce__(self) -> tuple[type[ReadError], tuple[str, ...]]:
        return type(self), (self.path,)


def check_unchanged(file: FoundFile) -> None:
    """Make sure that ``file`` is still what was listed.

    Raises:
        ChangedError: it is not.
    """
    try:
        same = Identity.of(os.lstat(file.location)) == file.identity
    except OSError:
        same = False
    if not same:
        raise ChangedError(file.name)


def _entries(listing: Listing, folder: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(listing.root / folder) as found:
            entries = []
            for entry in found:
                entries.append(entry)
                if len(entries) > MAX_FILES:
                    break  # the caller's count says so
    except OSError as error:
        _refuse(listing, Code.UNREADABLE, folder, f"the folder cannot be listed: {error.strerror}")
        return []
    return sorted(entries, key=lambda entry: entry.name)


def _add_file(listing: Listing, root: Path, name: str) -> None:
    """Add the file ``name``, or say why it is refused."""
    location = root / name
    try:
        status = location.lstat()
        if stat.S_ISLNK(status.st_mode):
            blob = hf_cache.blob_behind(root, location)
            location = blob or _end_of(location)
            if blob is None and not location.is_relative_to(root):
                return _refuse(listing, Code.LINK, name, "it is a link out of the folder")
            status = location.lstat()
            if stat.S_ISDIR(status.st_mode):
                return _refuse(listing, Code.LINK, name, "it is a link to a folder, never followed")
    except OSError as error:
        reason = f"it is a link that leads nowhere: {error.strerror}"
        if error.errno == errno.ELOOP:
            reason = "it is a link that leads to itself, or through too many others"
        return _refuse(listing, Code.LINK, name, reason)
    if not stat.S_ISREG(status.st_mode):
        return _refuse(listing, Code.NOT_A_FILE, name, f"it is {_kind(status.st_mode)}")
    if status.st_size > MAX_FILE_BYTES:
        return _refuse(listing, Code.UNREADABLE, name, "it claims more than a million gigabytes")
    listing.files[name] = FoundFile(name, location, Identity.of(status))
    return None


def _end_of(link: Path) -> Path:
    """Return the real place that ``link`` leads to.

    The system follows it, which gives up after forty steps: resolved in Python, a chain of ten
    thousand links would take minutes.

    Raises:
        OSError: it leads nowhere, or through too many links.
    """
    if not hasattr(os, "O_PATH"):
        link.stat()
        return link.resolve(strict=True)
    descriptor = os.open(link, os.O_PATH | os.O_CLOEXEC)
    try:
        return Path(f"/proc/self/fd/{descriptor}").readlink()
    finally:
        os.close(descriptor)


def _refuse(listing: Listing, code: Code, name: str, reason: str) -> None:
    shown = names.shown(name)
    path = name if names.is_utf8(name) else shown
    listing.findings.append(Finding(code, path, f"{shown or 'The folder'} was not read: {reason}."))


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISDIR, "a folder"),
    )
    return next((word for test, word in kinds if test(mode)), "not a regular file")
