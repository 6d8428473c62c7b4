"""Open one file of a copy for reading: inside the root, no links, no waiting, sizes known.

Each folder on the way is opened relative to the one before with O_NOFOLLOW, so a link put in its
place meanwhile is refused and not followed; O_NONBLOCK keeps a pipe from blocking the open. The
links of a snapshot to the blobs of its own cache, as Hugging Face's tools make them, are followed.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import hf_cache
from ..errors import ReadError

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = _FILE | os.O_DIRECTORY


@dataclass(frozen=True, slots=True)
class Source:
    """An open regular file: its POSIX path in the checkpoint and its size when it was opened."""

    path: str
    descriptor: int
    size: int
    stamp: tuple[int, int]

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``.

        Raises:
            ReadError: the file is shorter, or the medium fails.
        """
        self._check_place(offset, length)
        try:
            data = os.pread(self.descriptor, length, offset)
        except OSError as error:
            raise ReadError(self.path, f"it cannot be read: {error.strerror}") from None
        if len(data) == length:
            return data  # the usual case, without a second copy in memory
        buffer = bytearray(length)
        self.read_into(buffer, offset)
        return bytes(buffer)

    def read_into(self, buffer: bytearray | memoryview, offset: int) -> None:
        """Fill ``buffer`` from ``offset``.

        Raises:
            ReadError: the file is shorter, or the medium fails.
        """
        view, done = memoryview(buffer), 0
        self._check_place(offset, len(view))
        while done < len(view):
            try:
                got = os.preadv(self.descriptor, [view[done:]], offset + done)
            except OSError as error:
                raise ReadError(self.path, f"it cannot be read: {error.strerror}") from None
            if got == 0:
                raise ReadError(self.path, "it became shorter while it was being read")
            done += got

    def _check_place(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ReadError(self.path, f"it ends at byte {self.size:,}, before what it promises")

    def check_unchanged(self) -> None:
        """Raise ReadError if the file was written to since it was opened."""
        if _stamp(os.fstat(self.descriptor)) != self.stamp:
            raise ReadError(self.path, "it changed while it was being read")


@contextmanager
def open_source(root: Path, path: str) -> Iterator[Source]:
    """Open ``path``, POSIX and relative to ``root``, for the length of a ``with`` block.

    Raises:
        ReadError: it is not a regular file inside ``root``, or cannot be opened.
    """
    descriptor = _open(root, path)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ReadError(path, "it is not a regular file")
        yield Source(path, descriptor, status.st_size, _stamp(status))
    finally:
        os.close(descriptor)


def _open(root: Path, path: str) -> int:
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise ReadError(path, "it is not a name inside the checkpoint's folder")
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for position, part in enumerate(parts):
            flags = _FILE if position == len(parts) - 1 else _FOLDER
            try:
                step = os.open(part, flags, dir_fd=folder)
            finally:
                os.close(folder)
            folder = step
    except OSError as error:
        blob = _open_blob(root, parts)
        if blob is not None:
            return blob
        link = os.path.lexists(root / path) and _has_link(root, parts)
        reason = "it is a link, which is not followed" if link else f"{error.strerror}"
        raise ReadError(path, f"it cannot be opened: {reason}") from None
    return folder


def _open_blob(root: Path, parts: list[str]) -> int | None:
    """Open the blob that a link of a snapshot ends in, or return None where it is another link."""
    if not root.joinpath(*parts).is_symlink() or _has_link(root, parts[:-1]):
        return None
    real = root.resolve()
    blob = hf_cache.blob_behind(real, real.joinpath(*parts))
    if blob is None:
        return None
    try:
        folder = os.open(blob.parent, _FOLDER)
        try:
            return os.open(blob.name, _FILE, dir_fd=folder)
        finally:
            os.close(folder)
    except OSError:
        return None


def _has_link(root: Path, parts: list[str]) -> bool:
    """Tell whether a step of the way was a link; only used to word an error."""
    return any(root.joinpath(*parts[: n + 1]).is_symlink() for n in range(len(parts)))


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
