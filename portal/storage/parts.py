"""The parts in which a large file is sent to S3, and their digests.

A part's digests are those that S3's interface speaks of: SHA-256 as ``x-amz-checksum-sha256``,
in base64, and MD5 as the ETag, in hexadecimal digits. Those of a whole object in N parts are the
digest of its parts' digests, one after the other, with ``-N`` behind.
"""

import base64
import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from portal.storage.errors import StoreError

SMALLEST_PART = 16 << 20
MOST_PARTS = 10_000
MD5 = re.compile("[0-9a-f]{32}")
KINDS = ("sha256", "md5")
LARGEST = 5 << 40  # bytes of one object


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes [start, end) of a file, counted from 1 as S3 does."""

    number: int
    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Digests:
    """The digests of a part, as bytes; one that was not asked for is empty."""

    sha256: bytes = b""
    md5: bytes = b""

    @classmethod
    def of(cls, content: bytes, kinds: Collection[str] = KINDS) -> "Digests":
        """Return the digests of ``content``."""
        # MD5 is what a store's ETag is made of; it guards against accidents, not against people
        return cls(
            hashlib.sha256(content).digest() if "sha256" in kinds else b"",
            hashlib.md5(content, usedforsecurity=False).digest() if "md5" in kinds else b"",
        )

    @property
    def checksum(self) -> str:
        """The SHA-256 as S3 writes it."""
        return base64.b64encode(self.sha256).decode()

    def agree_with(self, answer: Mapping[str, Any]) -> bool:
        """Whether a store's ``answer`` about these bytes is about the same bytes.

        A store that knows SHA-256 is asked for that; else the ETag must be the MD5.
        """
        if told := answer.get("ChecksumSHA256"):
            return bool(self.sha256 and told == self.checksum)
        return bool(self.md5 and str(answer.get("ETag", "")).strip('"') == self.md5.hex())


def kind_told(answer: Mapping[str, Any]) -> str:
    """Return by which digest a store's ``answer`` can be compared."""
    return "sha256" if answer.get("ChecksumSHA256") else "md5"


def md5_told(answer: Mapping[str, Any]) -> bytes:
    """Return the MD5 that an ETag is, or nothing where it is something else."""
    etag = str(answer.get("ETag", "")).strip('"')
    return bytes.fromhex(etag) if MD5.fullmatch(etag) else b""


def plan(size: int, smallest: int = SMALLEST_PART) -> list[Part]:
    """Return the parts of a file of ``size`` bytes, always the same for the same size.

    Raises:
        StoreError: S3 keeps no object so large.
    """
    if size > LARGEST:
        raise StoreError(f"A file of {size:,} bytes is larger than S3 keeps ({LARGEST:,}).")
    least = -(-size // MOST_PARTS)
    length = max(smallest, -(-least // (1 << 20)) << 20)
    starts = range(0, size, length)
    return [Part(n, at, min(at + length, size)) for n, at in enumerate(starts, start=1)]


def read(descriptor: int, part: Part) -> bytes:
    """Return the bytes of a part.

    Raises:
        StoreError: the file became shorter.
    """
    pieces, at = [], part.start
    while at < part.end:
        piece = os.pread(descriptor, part.end - at, at)
        if not piece:
            raise StoreError(
                "The file became shorter while it was stored; try again when it rests."
            )
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


def whole_agrees(digests: Sequence[Digests], answer: Mapping[str, Any]) -> bool:
    """Whether a store's ``answer`` about an object sent in several parts is about these."""
    count = len(digests)
    if told := answer.get("ChecksumSHA256"):
        joined = hashlib.sha256(b"".join(each.sha256 for each in digests)).digest()
        # complete and head write the count, or leave it out: what is compared stands before it
        return bool(str(told).partition("-")[0] == base64.b64encode(joined).decode())
    md5 = hashlib.md5(b"".join(each.md5 for each in digests), usedforsecurity=False)
    return bool(str(answer.get("ETag", "")).strip('"') == f"{md5.hexdigest()}-{count}")
