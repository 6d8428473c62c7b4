"""A file that is put together beside the one it will replace, and survives being killed.

    DIR/NAME                      what people see: the old file until the new one is whole
    DIR/.repair-<24 hex digits>   the draft; its name tells what it will be, so a rerun finds it

A draft begins as a clone of the old file where the file system shares blocks (FICLONE), else empty
with holes. What it holds is hashed again before it is trusted by another run. Folders are entered
one by one without following links, and nothing but a regular file of our own is ever written to.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from verifier.names import shown
from verifier.walk import FoundFile, Identity

from .errors import ClientError

PREFIX = ".repair-"
_FICLONE = 0x40049409  # linux/fs.h
_OURS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextlib.contextmanager
def entered(root: Path, name: str) -> Iterator[int]:
    """Open the folder of ``root`` that holds the file ``name``; make those that are missing.

    Raises:
        ClientError: one of them is a link or no folder.
    """
    *folders, _ = name.split("/")
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    current = os.open(root, flags)
    try:
        for depth, part in enumerate(folders, 1):
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=current)
            try:
                below = os.open(part, flags | os.O_NOFOLLOW, dir_fd=current)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                place = shown("/".join(folders[:depth]))
                raise ClientError(
                    f"{place} is not a folder but in the place of one; it is not followed."
                ) from None
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def draft_name(name: str, sha256: str) -> str:
    """Return the name of the draft of the file ``name`` that will have this digest."""
    return PREFIX + hashlib.sha256(f"{name}\0{sha256}".encode()).hexdigest()[:24]


@dataclass
class Draft:
    """An open draft, locked: two repairs never write to one."""

    folder: int
    own_name: str
    location: Path
    descriptor: int
    existed: bool

    @classmethod
    @contextlib.contextmanager
    def opened(cls, folder: int, location: Path) -> Iterator["Draft"]:
        """Open or make the draft at ``location``, whose folder is open as ``folder``.

        Raises:
            ClientError: another repair is at work on it.
        """
        name = location.name
        descriptor, existed = _open_own(folder, name)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine = os.path.samestat(os.fstat(descriptor), _stat(folder, name))
            except (BlockingIOError, FileNotFoundError):
                mine = False
            if not mine:
                raise ClientError("Another repair is at work here; wait until it has ended.")
            yield cls(folder, name, location, descriptor, existed)
        finally:
            os.close(descriptor)

    def clone(self, source: int) -> bool:
        """Share all blocks of the open file ``source``, where the file system can."""
        return _clone(self.descriptor, source)

    def found(self, name: str) -> FoundFile:
        """Return the draft as a file to be hashed."""
        return FoundFile(name, self.location, Identity.of(os.fstat(self.descriptor)))

    def resize(self, size: int) -> None:
        """Give it its length; what was not written reads as zeros."""
        os.ftruncate(self.descriptor, size)

    def write(self, data: bytes | memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset``."""
        view = memoryview(data)
        while view:
            done = os.pwrite(self.descriptor, view, offset)
            view, offset = view[done:], offset + done

    def replace(self, name: str, original: FoundFile | None) -> None:
        """Make the draft the file ``name`` of its folder, at once and for good.

        Raises:
            ClientError: what is there now is not ``original``.
        """
        last = name.rpartition("/")[2]
        try:
            now: os.stat_result | None = _stat(self.folder, last)
        except FileNotFoundError:
            now = None
        if (Identity.of(now) if now else None) != (original.identity if original else None):
            raise ClientError(f"{shown(name)} changed while it was mended; run this again.")
        if now:
            os.fchmod(self.descriptor, stat.S_IMODE(now.st_mode) & 0o777)
        os.fsync(self.descriptor)
        os.rename(self.own_name, last, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        os.fsync(self.folder)


def open_original(folder: int, file: FoundFile) -> int:
    """Open the file that was verified, and not what may have taken its place.

    Raises:
        ClientError: it is another, or a link.
    """
    name = file.name.rpartition("/")[2]
    descriptor = os.open(
        name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
    )
    if Identity.of(os.fstat(descriptor)) != file.identity:
        os.close(descriptor)
        raise ClientError(f"{shown(file.name)} changed while it was mended; run this again.")
    return descriptor


def kind_in_place(root: Path, name: str) -> str | None:
    """Return what lies at ``name`` if it is not a regular file, in words; None if it may be mended."""
    with entered_if_there(root, name) as folder:
        if folder is None:
            return None
        try:
            mode = _stat(folder, name.rpartition("/")[2]).st_mode
        except FileNotFoundError:
            return None
    words = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"), (stat.S_ISREG, None))
    return next((word for test, word in words if test(mode)), "a device or a pipe")


@contextlib.contextmanager
def entered_if_there(root: Path, name: str) -> Iterator[int | None]:
    """Open the folder that holds ``name`` as :func:`entered` does, but make none: None instead."""
    folder = root
    for part in name.split("/")[:-1]:
        folder = folder / part
        if not os.path.lexists(folder):
            yield None
            return
    with entered(root, name) as descriptor:
        yield descriptor


def allocated(root: Path, name: str) -> int:
    """Return the bytes that the draft at ``name`` occupies already."""
    try:
        return (root / name).lstat().st_blocks * 512
    except OSError:
        return 0


def shares_blocks(folder: Path) -> bool:
    """Tell whether files in ``folder`` can be cloned."""
    flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
    try:
        with open(os.open(folder, flags), "wb") as one, open(os.open(folder, flags), "wb") as two:
            one.write(bytes(4096))
            one.flush()
            return _clone(two.fileno(), one.fileno())
    except OSError:
        return False


def _clone(target: int, source: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _open_own(folder: int, name: str) -> tuple[int, bool]:
    """Open the draft ``name``, and say whether it was there; what is not ours is removed."""
    try:
        descriptor = os.open(name, _OURS, dir_fd=folder)
        status = os.fstat(descriptor)
        own = status.st_uid == os.geteuid() and status.st_nlink == 1
        if stat.S_ISREG(status.st_mode) and own:
            return descriptor, True
        os.close(descriptor)
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.EACCES):
            raise
        os.unlink(name, dir_fd=folder)
    return os.open(name, _OURS | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder), False


def _stat(folder: int, name: str) -> os.stat_result:
    return os.stat(name, dir_fd=folder, follow_symlinks=False)
