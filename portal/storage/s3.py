"""An S3-compatible store, through boto3.

A store's own checksums are not relied on: Ceph RGW 16 accepts a wrong one. What a shard must be is
its SHA-256 in the signed manifest.
"""

from pathlib import Path
from typing import Any, BinaryIO

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings

from portal.storage.errors import StoreError, check_key


class S3Store:
    """Keeps objects in one bucket."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self._client: Any = boto3.client(
            "s3",
            region_name=settings.S3_REGION,
            endpoint_url=settings.S3_ENDPOINT or None,
            config=Config(
                # without this, boto3 presigns for a custom endpoint with the old version 2
                signature_version="s3v4",
                s3={"addressing_style": settings.S3_ADDRESSING},
                # trailing checksums fail on several compatible stores
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def put_file(self, key: str, path: Path) -> None:
        """Upload a file, in parts where it is large."""
        self._refuse_to_overwrite(key)
        try:
            self._client.upload_file(str(path), self.bucket, check_key(key))
        except (BotoCoreError, ClientError, Boto3Error) as error:
            raise StoreError(f"{key} was not stored: {error}.") from error

    def put_bytes(self, key: str, content: bytes) -> None:
        """Upload ``content``."""
        self._refuse_to_overwrite(key)
        try:
            self._client.put_object(Bucket=self.bucket, Key=check_key(key), Body=content)
        except (BotoCoreError, ClientError) as error:
            raise StoreError(f"{key} was not stored: {error}.") from error

    def _refuse_to_overwrite(self, key: str) -> None:
        """Raise StoreError where there is such an object.

        Two writers at one moment could both pass; a conditional write would not let them, but
        s3transfer offers none for parts.
        """
        if self.exists(key):
            raise StoreError(f"{key} is in the store already; nothing is overwritten.")

    def open(self, key: str) -> BinaryIO:
        """Return the object's body as a stream."""
        try:
            body: BinaryIO = self._client.get_object(Bucket=self.bucket, Key=check_key(key))["Body"]
        except (BotoCoreError, ClientError) as error:
            raise StoreError(f"{key} cannot be read from the store: {error}.") from error
        return body

    def size(self, key: str) -> int:
        """Return the object's size in bytes."""
        try:
            head = self._client.head_object(Bucket=self.bucket, Key=check_key(key))
        except (BotoCoreError, ClientError) as error:
            raise StoreError(f"{key} cannot be read from the store: {error}.") from error
        size: int = head["ContentLength"]
        return size

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            self._client.head_object(Bucket=self.bucket, Key=check_key(key))
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            raise StoreError(f"{key} cannot be looked up in the store: {error}.") from error
        except BotoCoreError as error:
            raise StoreError(f"{key} cannot be looked up in the store: {error}.") from error
        return True

    def delete(self, key: str) -> None:
        """Remove the object."""
        try:
            self._client.delete_object(Bucket=self.bucket, Key=check_key(key))
        except (BotoCoreError, ClientError) as error:
            raise StoreError(f"{key} was not removed: {error}.") from error

    def presign(self, key: str, *, method: str, seconds: int, disposition: str) -> str:
        """Return a URL that opens the object for ``seconds`` (SigV4; arithmetic, no request).

        A URL made for GET does not permit HEAD, so ``method`` is signed too.
        """
        operation = "head_object" if method == "HEAD" else "get_object"
        parameters = {"Bucket": self.bucket, "Key": check_key(key)}
        if method != "HEAD":
            parameters["ResponseContentDisposition"] = disposition
        url: str = self._client.generate_presigned_url(
            operation, Params=parameters, ExpiresIn=seconds
        )
        return url
