"""Where shards lie: a folder or an S3-compatible store, behind one small interface."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, Protocol

from django.conf import settings

from portal.storage.errors import ExistsError, StoreError

__all__ = ["ExistsError", "Progress", "Store", "StoreError", "Stored", "store"]

Progress = Callable[[int], object]  # is told of so many more bytes that are in the store


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as its store holds it; ``version`` is empty where the store keeps none."""

    size: int
    version: str = ""


class Store(Protocol):
    """Keeps whole objects under keys: POSIX, relative, without ``..``.

    ``version`` names one version of an object in a store that keeps them; empty, the newest.
    """

    def put_file(self, key: str, path: Path, progress: Progress | None = None) -> Stored:
        """Keep a copy of the file; it appears whole or not at all, and overwrites nothing.

        Where an earlier call ended half-way, what is there already is not sent again.

        Raises:
            ExistsError: other bytes have this key.
        """

    def put_bytes(self, key: str, content: bytes) -> Stored:
        """Keep ``content``; it appears whole or not at all, and overwrites nothing."""

    def open(self, key: str, version: str = "") -> BinaryIO:
        """Return the object for reading; the caller closes it."""

    def head(self, key: str, version: str = "") -> Stored | None:
        """Return what the store says of the object, or None where there is no such object."""

    def delete(self, key: str, version: str = "") -> None:
        """Remove the object; one that is not there is no error."""

    def presign(
        self, key: str, *, seconds: int, version: str = "", disposition: str = ""
    ) -> str | None:
        """Return a URL by which anyone may GET the object for ``seconds``.

        None means that the store has no door of its own: the portal hands the bytes over.
        """


@dataclass(frozen=True, slots=True)
class Bucket:
    """How an S3-compatible store is reached; empty means what AWS or boto3 says."""

    name: str
    region: str = "us-east-1"
    endpoint: str = ""
    public_endpoint: str = ""
    addressing: str = "path"
    kms_key: str = ""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A CloudFront distribution in front of a bucket, and the key that signs for it."""

    url: str
    key_id: str
    key_file: Path
    allow_ecdsa: bool = False


@cache
def _folder(place: Path) -> Store:
    from portal.storage.folder import FolderStore

    return FolderStore(place)


@cache
def _bucket(bucket: Bucket, distribution: Distribution | None) -> Store:
    if distribution is None:
        from portal.storage.s3 import S3Store

        return S3Store(bucket)
    from portal.storage.cloudfront import CloudFrontStore

    return CloudFrontStore(bucket, distribution)


def store() -> Store:
    """Return the store that the settings name, one per process.

    Raises:
        StoreError: the settings do not fit together.
    """
    if settings.STORE == "folder":
        return _folder(settings.STORE_FOLDER)
    bucket = Bucket(
        name=settings.S3_BUCKET,
        region=settings.S3_REGION,
        endpoint=settings.S3_ENDPOINT,
        public_endpoint=settings.S3_PUBLIC_ENDPOINT,
        addressing=settings.S3_ADDRESSING,
        kms_key=settings.S3_KMS_KEY,
    )
    if not settings.CLOUDFRONT_URL:
        return _bucket(bucket, None)
    distribution = Distribution(
        url=settings.CLOUDFRONT_URL,
        key_id=settings.CLOUDFRONT_KEY_ID,
        key_file=settings.CLOUDFRONT_KEY_FILE or Path(),
        allow_ecdsa=settings.CLOUDFRONT_UNVERIFIED_ECDSA,
    )
    return _bucket(bucket, distribution)
