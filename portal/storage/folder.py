"""A folder as a store."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from portal.storage.errors import StoreError, check_key

PIECE = 4 << 20


class FolderStore:
    """Keeps objects as files below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def local_path(self, key: str) -> Path:
        """Return the file of an object."""
        return self.root / check_key(key)

    def put_file(self, key: str, path: Path) -> None:
        """Copy a file, holes left as holes, and make sure that it is on the disk."""
        with path.open("rb") as source, self._new(key) as target:
            size = os.fstat(source.fileno()).st_size
            for start, end in _data_spans(source.fileno(), size):
                source.seek(start)
                target.seek(start)
                while (left := end - source.tell()) > 0:
                    piece = source.read(min(left, PIECE))
                    if not piece:
                        raise StoreError(f"{path} became shorter while it was copied.")
                    target.write(piece)
            target.truncate(size)

    def put_bytes(self, key: str, content: bytes) -> None:
        """Write ``content`` and make sure that it is on the disk."""
        with self._new(key) as target:
            target.write(content)

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
                raise StoreError(
                    f"{key} is in the store already; nothing is overwritten."
                ) from None
        except OSError as error:
            raise StoreError(
                f"{key} was not stored ({error.strerror}): make room below {self.root} "
                "and see that it can be written."
            ) from error
        finally:
            draft.unlink(missing_ok=True)

    def open(self, key: str) -> BinaryIO:
        """Return the file, for reading."""
        try:
            return self.local_path(key).open("rb")
        except OSError as error:
            raise StoreError(f"{key} cannot be read from the store ({error.strerror}).") from error

    def size(self, key: str) -> int:
        """Return the file's size in bytes."""
        try:
            return self.local_path(key).stat().st_size
        except OSError as error:
            raise StoreError(f"{key} cannot be read from the store ({error.strerror}).") from error

    def exists(self, key: str) -> bool:
        """Whether there is such a file."""
        return self.local_path(key).is_file()

    def delete(self, key: str) -> None:
        """Remove the file."""
        self.local_path(key).unlink(missing_ok=True)


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
