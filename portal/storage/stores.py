"""Where shards lie: a folder or an S3-compatible store, behind one small interface."""

from functools import cache
from pathlib import Path
from typing import BinaryIO, Protocol

from django.conf import settings

from portal.storage.errors import StoreError

__all__ = ["Store", "StoreError", "store"]


class Store(Protocol):
    """Keeps whole objects under keys: POSIX, relative, without ``..``."""

    def put_file(self, key: str, path: Path) -> None:
        """Keep a copy of the file; it appears whole or not at all, and overwrites nothing."""

    def put_bytes(self, key: str, content: bytes) -> None:
        """Keep ``content``; it appears whole or not at all, and overwrites nothing."""

    def open(self, key: str) -> BinaryIO:
        """Return the object for reading; the caller closes it."""

    def size(self, key: str) -> int:
        """Return the object's size in bytes."""

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""

    def delete(self, key: str) -> None:
        """Remove the object; one that is not there is no error."""


@cache
def _made(kind: str, place: str) -> Store:
    if kind == "s3":
        from portal.storage.s3 import S3Store

        return S3Store(place)
    from portal.storage.folder import FolderStore

    return FolderStore(Path(place))


def store() -> Store:
    """Return the store that the settings name, one per process."""
    place = settings.S3_BUCKET if settings.STORE == "s3" else str(settings.STORE_FOLDER)
    return _made(settings.STORE, place)
