"""A folder as a store."""

import filecmp
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from portal.storage.errors import ExistsError, StoreError, check_key
from portal.storage.stores import Progress, Stored

PIECE = 4 << 20


class FolderStore:
    """Keeps objects as files below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def local_path(self, key: str) -> Path:
        """Return the file of an object."""
        return self.root / check_key(key)

    def put_file(self, key: str, path: Path, progress: Progress | None = None) -> Stored:
        """Copy a file, holes left as holes, and make sure that it is on the disk."""
        say = progress or (lambda count: None)
        if self.head(key):
            # by its bytes: the time of a file says nothing about a copy
            if not filecmp.cmp(path, self.local_path(key), shallow=False):
                raise ExistsError(key)
            size = path.stat().st_size
            say(size)
            return Stored(size)
        with path.open("rb") as source, self._new(key) as target:
            size = os.fstat(source.fileno()).st_size
            told = 0
            for start, end in _data_spans(source.fileno(), size):
                source.seek(start)
                target.seek(start)
                while (left := end - source.tell()) > 0:
                    piece = source.read(min(left, PIECE))
                    if not piece:
                        raise StoreError(f"{path} became shorter while it was copied.")
                    target.write(piece)
                    say(source.tell() - told)
                    told = source.tell()
            target.truncate(size)
            say(size - told)
        return Stored(size)

    def put_bytes(self, key: str, content: bytes) -> Stored:
        """Write ``content`` and make sure that it is on the disk."""
        with self._new(key) as target:
            target.write(content)
        return Stored(len(content))

    @contextmanager
    def _new(self, key: str) -> Iterator[BinaryIO]:
        """Open a draft beside the object's place, and put it there when all is written."""
        place = self.local_path(key)
        draft = place.with_name(f".{secrets.token_hex(8)}.part")
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with draft.open("xb") as target:
                yield target
                target.flush()
                os.fsync(target.fileno())
            try:
                os.link(draft, place)
            except FileExistsError:
                raise ExistsError(key) from None
        except OSError as error:
            raise StoreError(
                f"{key} was not stored ({error.strerror}): make room below {self.root} "
                "and see that it can be written."
            ) from error
        finally:
            draft.unlink(missing_ok=True)

    def open(self, key: str, version: str = "") -> BinaryIO:
        """Return the file, for reading; a folder keeps no versions."""
        try:
            return self.local_path(key).open("rb")
        except OSError as error:
            raise StoreError(f"{key} cannot be read from the store ({error.strerror}).") from error

    def head(self, key: str, version: str = "") -> Stored | None:
        """Return the file's size, or None."""
        try:
            found = self.local_path(key).stat()
            return Stored(found.st_size) if stat.S_ISREG(found.st_mode) else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"{key} cannot be read from the store ({error.strerror}).") from error

    def delete(self, key: str, version: str = "") -> None:
        """Remove the file."""
        self.local_path(key).unlink(missing_ok=True)

    def presign(
        self, key: str, *, seconds: int, version: str = "", disposition: str = ""
    ) -> str | None:
        """Return None: the portal hands over what lies in a folder."""
        return None


def _data_spans(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield [start, end) of each part of a file that is not a hole (lseek(2), SEEK_DATA)."""
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        at = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        yield start, at
