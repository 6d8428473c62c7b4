"""An S3-compatible store, through boto3.

The SHA-256 of what is sent is part of the signature, so that a store refuses other bytes. AWS is told
it as a checksum too, keeps it and tells it again. Ceph RGW 16 does neither: there, what lay in the
bucket before is compared by MD5, which is the ETag, and the whole by the ETags of its parts. An
upload that was ended half-way stays in the bucket, and the next one of the same file goes on with it.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import boto3
from botocore.config import Config

from portal.storage.errors import ExistsError, StoreError, check_key
from portal.storage.parts import (
    SMALLEST_PART,
    Digests,
    Part,
    kind_told,
    md5_told,
    plan,
    read,
    whole_agrees,
)
from portal.storage.remedies import REFUSALS, code_of, explain
from portal.storage.stores import Bucket, Progress, Stored

AT_ONCE = 8  # parts on their way; each is in memory
LONGEST_URL = 7 * 24 * 3600  # SigV4 refuses more
WITHOUT_REASON = ("301", "400", "403")
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 10, 60, 4


class S3Store:
    """Keeps objects in one bucket."""

    part_bytes = SMALLEST_PART

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self._session = boto3.session.Session()
        public = bucket.public_endpoint
        with self._told("The store cannot be used"):
            self._client: Any = _client(self._session, bucket, bucket.endpoint)
            self._signer: Any = _client(self._session, bucket, public) if public else self._client
        self._knows_sha256 = True  # until it has answered
        self._encrypted = (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": bucket.kms_key}
            if bucket.kms_key
            else {}
        )

    def put_file(self, key: str, path: Path, progress: Progress | None = None) -> Stored:
        """Upload a file, in parts where it is large; parts that are there are not sent again."""
        say = progress or (lambda count: None)
        with self._told(f"{key} was not stored"), path.open("rb") as file:
            parts = plan(os.fstat(file.fileno()).st_size, self.part_bytes)
            if there := self._head(key):
                self._require_same(key, file.fileno(), parts, there)
                say(sum(part.length for part in parts))
                return _stored(there)
            if len(parts) <= 1:
                content = read(file.fileno(), parts[0]) if parts else b""
                stored = self._put(key, content)
                say(len(content))
                return stored
            return self._put_parts(key, file.fileno(), parts, say)

    def put_bytes(self, key: str, content: bytes) -> Stored:
        """Upload ``content``."""
        with self._told(f"{key} was not stored"):
            if self._head(key):
                raise ExistsError(key)
            return self._put(key, content)

    def _put(self, key: str, content: bytes) -> Stored:
        digests = Digests.of(content)
        try:
            answer = self._client.put_object(
                Bucket=self.bucket.name,
                Key=check_key(key),
                Body=content,
                ChecksumSHA256=digests.checksum,
                IfNoneMatch="*",
                **self._encrypted,
            )
        except REFUSALS as error:
            if code_of(error) == "PreconditionFailed":
                raise ExistsError(key) from error
            raise
        if not digests.agree_with(answer):
            self.delete(key, answer.get("VersionId", ""))
            raise StoreError(f"{key} arrived in the store with other bytes; try again.")
        return Stored(len(content), answer.get("VersionId") or "")

    def _put_parts(self, key: str, descriptor: int, parts: list[Part], say: Progress) -> Stored:
        upload, there = self._upload_to_go_on_with(key)
        finished: dict[int, dict[str, Any]] = {}
        digests: dict[int, Digests] = {}

        def send(part: Part) -> None:
            content = read(descriptor, part)
            answer = there.get(part.number, {})
            mine = Digests.of(content, {kind_told(answer)} if answer else ())
            if answer.get("Size") != part.length or not mine.agree_with(answer):
                answer, mine = self._send_part(key, upload, part, content)
            told = {"PartNumber": part.number, "ETag": answer["ETag"]}
            # a store that keeps no checksums may refuse to hear of one when it joins the parts
            if answer.get("ChecksumSHA256"):
                told["ChecksumSHA256"] = mine.checksum
            finished[part.number], digests[part.number] = told, mine

        with ThreadPoolExecutor(AT_ONCE, "upload") as pool:
            running = {pool.submit(send, part): part for part in parts}
            try:
                for done in as_completed(running):
                    done.result()
                    say(running[done].length)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        self._client.complete_multipart_upload(
            Bucket=self.bucket.name,
            Key=key,
            UploadId=upload,
            MultipartUpload={"Parts": [finished[part.number] for part in parts]},
            IfNoneMatch="*",
        )
        self._end_uploads(key)
        answer = self._head(key)
        if answer is None or not self._is_whole(descriptor, parts, digests, answer):
            self.delete(key, (answer or {}).get("VersionId", ""))
            raise StoreError(f"{key} was joined from its parts to other bytes; try again.")
        return _stored(answer)

    def _send_part(
        self, key: str, upload: str, part: Part, content: bytes
    ) -> tuple[dict[str, Any], Digests]:
        """Send a part; return the store's answer and the digests by which the whole is compared."""
        mine = Digests.of(content, {"sha256"} if self._knows_sha256 else ())
        answer: dict[str, Any] = self._client.upload_part(
            Bucket=self.bucket.name,
            Key=key,
            UploadId=upload,
            PartNumber=part.number,
            Body=content,
            **({"ChecksumSHA256": mine.checksum} if mine.sha256 else {}),
        )
        self._knows_sha256 = kind_told(answer) == "sha256"
        if self._knows_sha256 and not mine.agree_with(answer):
            raise StoreError(f"Part {part.number} of {key} arrived in the store with other bytes.")
        return answer, Digests(mine.sha256, md5_told(answer))

    def _is_whole(
        self,
        descriptor: int,
        parts: list[Part],
        known: dict[int, Digests],
        answer: dict[str, Any],
    ) -> bool:
        """Whether the object that ``answer`` tells of is the file in these parts."""
        kind = kind_told(answer)

        def one(part: Part) -> Digests:
            found = known.get(part.number)
            if found and getattr(found, kind):
                return found
            return Digests.of(read(descriptor, part), {kind})

        with ThreadPoolExecutor(AT_ONCE, "digest") as pool:
            digests = list(pool.map(one, parts))
        if len(digests) > 1:
            return whole_agrees(digests, answer)
        return (digests[0] if digests else Digests.of(b"")).agree_with(answer)

    def _upload_to_go_on_with(self, key: str) -> tuple[str, dict[int, dict[str, Any]]]:
        """Return the newest unfinished upload of ``key`` and its parts, else a new one."""
        uploads = self._uploads(key)
        if not uploads:
            made = self._client.create_multipart_upload(
                Bucket=self.bucket.name,
                Key=check_key(key),
                ChecksumAlgorithm="SHA256",
                **self._encrypted,
            )
            return str(made["UploadId"]), {}
        upload = max(uploads, key=lambda each: each["Initiated"])["UploadId"]
        pages = self._client.get_paginator("list_parts").paginate(
            Bucket=self.bucket.name, Key=key, UploadId=upload
        )
        there = {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}
        return str(upload), there

    def _uploads(self, key: str) -> list[dict[str, Any]]:
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.bucket.name, Prefix=key
        )
        return [each for page in pages for each in page.get("Uploads", ()) if each["Key"] == key]

    def _end_uploads(self, key: str) -> None:
        """Remove what unfinished uploads of ``key`` keep in the bucket, which is paid for."""
        for upload in self._uploads(key):
            self._client.abort_multipart_upload(
                Bucket=self.bucket.name, Key=key, UploadId=upload["UploadId"]
            )

    def _require_same(
        self, key: str, descriptor: int, parts: list[Part], there: dict[str, Any]
    ) -> None:
        """Raise ExistsError unless the object is, by its digest, what the file is."""
        if there["ContentLength"] != sum(part.length for part in parts):
            raise ExistsError(key)
        if not self._is_whole(descriptor, parts, {}, there):
            raise ExistsError(key)

    def open(self, key: str, version: str = "") -> BinaryIO:
        """Return the object's body as a stream."""
        with self._told(f"{key} cannot be read from the store"):
            body: BinaryIO = self._client.get_object(**self._named(key, version))["Body"]
        return body

    def head(self, key: str, version: str = "") -> Stored | None:
        """Return the object's size and version, or None."""
        with self._told(f"{key} cannot be looked up in the store"):
            answer = self._head(key, version)
        return _stored(answer) if answer else None

    def _head(self, key: str, version: str = "") -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = self._client.head_object(
                **self._named(key, version), ChecksumMode="ENABLED"
            )
        except REFUSALS as error:
            if code_of(error) in ("404", "NoSuchKey", "NoSuchVersion"):
                return None
            if code_of(error) in WITHOUT_REASON:
                # an answer to HEAD has no room for the reason; one to GET has
                self._client.get_object(**self._named(key, version), Range="bytes=0-0")
            raise
        if "ContentLength" not in answer:  # the connection ended within the headers
            raise StoreError(f"The store gave half an answer about {key}; try again.")
        return answer

    def delete(self, key: str, version: str = "") -> None:
        """Remove the object, and parts of it that were sent and never joined.

        Without ``version``, a bucket that keeps versions only hides it.
        """
        with self._told(f"{key} was not removed"):
            # what is not there is not hidden either: it would leave a mark where versions are kept
            if version or self._head(key):
                self._client.delete_object(**self._named(key, version))
            self._end_uploads(key)

    def presign(
        self, key: str, *, seconds: int, version: str = "", disposition: str = ""
    ) -> str | None:
        """Return a URL signed with SigV4; arithmetic, no request. It is good for GET, not HEAD."""
        parameters = self._named(key, version)
        parameters["ResponseContentType"] = "application/octet-stream"
        if disposition:
            parameters["ResponseContentDisposition"] = disposition
        with self._told(f"{key} cannot be signed for"):
            url: str = self._signer.generate_presigned_url(
                "get_object",
                Params=parameters,
                ExpiresIn=min(seconds, LONGEST_URL, self._seconds_left()),
            )
        return url

    def _seconds_left(self) -> int:
        """Return how long the credentials live: a URL should not promise more."""
        credentials = self._session.get_credentials()
        # botocore tells the end of credentials that are renewed in no public way
        ends = getattr(credentials, "_expiry_time", None)
        if ends is None:
            return LONGEST_URL
        return max(int((ends - datetime.now(UTC)).total_seconds()), 1)

    def _named(self, key: str, version: str) -> dict[str, str]:
        named = {"Bucket": self.bucket.name, "Key": check_key(key)}
        return named | {"VersionId": version} if version else named

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turn a refusal of the store, or of the disk, into one sentence."""
        try:
            yield
        except REFUSALS as error:
            raise StoreError(f"{what}: {explain(error)}.") from error
        except RuntimeError as error:  # botocore's word for credentials that nobody renewed
            raise StoreError(f"{what}: {explain(error)}; renew the credentials.") from error
        except OSError as error:
            raise StoreError(f"{what} ({error.strerror or error}).") from error


def _client(session: boto3.session.Session, bucket: Bucket, endpoint: str) -> Any:
    """Return a client; each process makes its own, and threads share it."""
    return session.client(
        "s3",
        region_name=bucket.region,
        endpoint_url=endpoint or None,
        config=Config(
            # without this, boto3 presigns for a custom endpoint with the old version 2
            signature_version="s3v4",
            # the bytes are signed over TLS too, where boto3 would leave them out
            s3={"addressing_style": bucket.addressing, "payload_signing_enabled": True},
            # trailing checksums fail on several compatible stores; ours stand in the header
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=2 * AT_ONCE,
            tcp_keepalive=True,
        ),
    )


def _stored(answer: dict[str, Any]) -> Stored:
    version = answer.get("VersionId") or ""
    return Stored(answer["ContentLength"], "" if version == "null" else version)
