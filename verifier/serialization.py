"""How a model becomes a list of digests: whole files, or shards of them, in one of three hashes.

    files    {"name": "a.bin",        "algorithm": "sha256",              "digest": HEX}
    shards   {"name": "a.bin:0:1000", "algorithm": "sha256-sharded-1000", "digest": HEX}, …

OMS specification 1.0, sections 6.3 and 7: SHA-256, BLAKE2b (512 bits) and BLAKE3; a shard is named
by its file, its first byte and the byte after its last; a file of no bytes has no shard. The
specification writes the plain algorithm beside shards, the reference tool the longer name: both
are read. Here a file in shards has one digest: those of its shards, one after the other.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import names, strict_json
from .digests import Hash, blake3_available
from .errors import ManifestError
from .findings import Range

DIGEST_HEX = {"sha256": 64, "blake2b": 128, "blake3": 64}
"""The hashes of the specification, and how many hex digits each writes."""
MAX_RESOURCES = 100_000
MAX_SHARD_BYTES = 1 << 50

_SHARD = re.compile(r"(.+):(0|[1-9][0-9]{0,15}):([1-9][0-9]{0,15})", re.DOTALL)
_SHARDED = re.compile(r"(sha256|blake2b|blake3)-sharded-([1-9][0-9]{0,15})")


@dataclass(frozen=True, slots=True)
class Resource:
    """One signed file: its POSIX name, and its digest in lowercase hex.

    ``sha256`` is that of the whole file; where another ``algorithm`` was signed, which may be one
    of shards (``sha256-sharded-1000``), it is empty and ``digest`` counts. The size in bytes is
    signed only with shards.
    """

    name: str
    sha256: str = ""
    size: int | None = None
    algorithm: str = "sha256"
    digest: str = ""

    @property
    def whole(self) -> str:
        """Its digest by ``algorithm``."""
        return self.digest or self.sha256

    def matches(self, data: bytes) -> bool:
        """Tell whether ``data`` is what was signed."""
        hash_ = new_hash(self.algorithm)
        hash_.update(data)
        return hash_.digest().hex() == self.whole


@dataclass(frozen=True, slots=True)
class Serialization:
    """The parameters under which a model was listed; ``shard_bytes`` None: whole files."""

    hash_type: str = "sha256"
    shard_bytes: int | None = None
    allow_symlinks: bool = False

    @property
    def algorithm(self) -> str:
        """What our code calls the digest of a file listed so."""
        if self.shard_bytes is None:
            return self.hash_type
        return f"{self.hash_type}-sharded-{self.shard_bytes}"

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> "Serialization":
        """Read the predicate's ``serialization``.

        Raises:
            ManifestError: a field is missing, unknown or of the wrong type.
        """
        unknown = set(fields) - {
            "method",
            "hash_type",
            "shard_size",
            "allow_symlinks",
            "ignore_paths",
        }
        if unknown:
            raise ManifestError(
                f"The signed serialization has a field {min(unknown)[:40]!a}, which OMS 1.0 "
                "does not know."
            )
        method, hash_type = fields.get("method"), fields.get("hash_type")
        if not isinstance(hash_type, str) or hash_type not in DIGEST_HEX:
            raise ManifestError(
                f"The signed statement lists digests in {strict_json.brief(hash_type, 20)!a}; "
                "only SHA-256, BLAKE2b and BLAKE3 are read."
            )
        if hash_type == "blake3" and not blake3_available():
            raise ManifestError("The model is signed in BLAKE3; install the package blake3.")
        allow = fields.get("allow_symlinks")
        if not isinstance(allow, bool):
            raise ManifestError("The signed serialization's allow_symlinks is not true or false.")
        shard_bytes = fields.get("shard_size")
        if method == "files" and shard_bytes is None:
            return cls(hash_type, None, allow)
        size = _whole_number(shard_bytes)
        if method == "shards" and size is not None:
            return cls(hash_type, size, allow)
        raise ManifestError(
            f"The signed statement lists {strict_json.brief(method, 20)!a} with a shard_size of "
            f"{strict_json.brief(shard_bytes, 20)!a}; only whole files, and shards of a "
            "positive size, are read."
        )

    def resources(self, listed: Iterable[tuple[str, str, str]]) -> tuple[Resource, ...]:
        """Return the files in (name, algorithm, digest) as listed, each once.

        Raises:
            ManifestError: a name, algorithm or digest is wrong, or shards do not make up a file.
        """
        rows = [(name, self._digest(name, algorithm, digest)) for name, algorithm, digest in listed]
        if self.shard_bytes is None:
            return tuple(self._whole(names.safe(name), digest) for name, digest in rows)
        return self._joined(rows, self.shard_bytes)

    def _whole(self, name: str, digest: str) -> Resource:
        if self.hash_type == "sha256":
            return Resource(name, digest)
        return Resource(name, algorithm=self.hash_type, digest=digest)

    def _digest(self, name: str, algorithm: str, digest: str) -> str:
        if algorithm not in (self.hash_type, self.algorithm):
            raise ManifestError(
                f"The manifest gives {names.shown(name[:80])!r} in {algorithm[:40]!a}, although "
                f"it says that all is in {self.algorithm}."
            )
        if not re.fullmatch(rf"[0-9a-f]{{{DIGEST_HEX[self.hash_type]}}}", digest):
            raise ManifestError(
                f"The manifest's digest of {names.shown(name[:80])!r} is not "
                f"{DIGEST_HEX[self.hash_type]} lowercase hex digits."
            )
        return digest

    def _joined(self, rows: Iterable[tuple[str, str]], shard_bytes: int) -> tuple[Resource, ...]:
        """Put the shards of each file together; they must cover it once, without a gap."""
        spans: dict[str, dict[Range, str]] = {}
        for label, digest in rows:
            match = _SHARD.fullmatch(label)
            if not match:
                raise ManifestError(
                    f"The manifest lists {names.shown(label[:80])!r}, which does not end in the "
                    "first byte and the end of a shard."
                )
            span = int(match[2]), int(match[3])
            shards = spans.setdefault(names.safe(match[1]), {})
            if span in shards:
                raise ManifestError(f"The manifest lists {names.shown(label[:80])!r} twice.")
            shards[span] = digest
        files = []
        for name, shards in spans.items():
            ordered = sorted(shards)
            size = ordered[-1][1]
            if ordered != grid(size, shard_bytes):
                raise ManifestError(
                    f"The shards of {names.shown(name[:80])!r} do not make up one file in steps "
                    f"of {shard_bytes:,} bytes."
                )
            digest = "".join(shards[span] for span in ordered)
            files.append(Resource(name, size=size, algorithm=self.algorithm, digest=digest))
        return tuple(files)


def new_hash(algorithm: str) -> Hash:
    """Return a hash object for ``algorithm``, whole or sharded."""
    sharded = _SHARDED.fullmatch(algorithm)
    if sharded:
        return _ShardedHash(sharded[1], int(sharded[2]))
    if algorithm == "blake3":
        from blake3 import blake3

        return blake3()
    return hashlib.new(algorithm)


def is_sharded(algorithm: str) -> bool:
    """Tell whether ``algorithm`` gives a digest for each shard of a file."""
    return "-sharded-" in algorithm


def differing(algorithm: str, signed: str, found: str, sizes: tuple[int, int]) -> tuple[Range, ...]:
    """Return the bytes in which a file differs; ``sizes``: as signed, and as found.

    With an ``algorithm`` of shards, these are the shards that differ or are not there, and what
    lies behind the end; otherwise a file differs as a whole.
    """
    expected, actual = sizes
    sharded = _SHARDED.fullmatch(algorithm)
    if not sharded:
        return () if signed == found else ((0, max(expected, actual)),)
    width, step = DIGEST_HEX[sharded[1]], int(sharded[2])
    spans: list[Range] = []
    for number, (start, end) in enumerate(grid(expected, step)):
        at = number * width
        if signed[at : at + width] != found[at : at + width]:
            if spans and spans[-1][1] == start:
                start = spans.pop()[0]
            spans.append((start, end))
    if actual > expected:
        start = spans.pop()[0] if spans and spans[-1][1] == expected else expected
        spans.append((start, actual))
    return tuple(spans)


def grid(size: int, step: int) -> list[Range]:
    """Return the shards of ``size`` bytes; refuses more than a manifest may list.

    Raises:
        ManifestError: there are too many.
    """
    if size > step * MAX_RESOURCES:
        raise ManifestError(f"The manifest lists a file in more than {MAX_RESOURCES:,} shards.")
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def _whole_number(value: object) -> int | None:
    """Return ``value`` if it may be a shard's size; protobuf writes every number as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 < value <= MAX_SHARD_BYTES and value == int(value) else None


class _ShardedHash:
    """The digests of consecutive shards, one after the other; at most as many as may be signed."""

    def __init__(self, kind: str, shard_bytes: int) -> None:
        self.kind = kind
        self.shard_bytes = shard_bytes
        self.done: list[bytes] = []
        self.current = new_hash(kind)
        self.left = shard_bytes

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take in ``data``."""
        rest = memoryview(data)
        while len(rest) and len(self.done) < MAX_RESOURCES:
            part, rest = rest[: self.left], rest[self.left :]
            self.current.update(part)
            self.left -= len(part)
            if self.left == 0:
                self._close()

    def digest(self) -> bytes:
        """Return the digests of what was taken in; nothing was: no digest."""
        if self.left < self.shard_bytes:
            self._close()
        return b"".join(self.done)

    def _close(self) -> None:
        self.done.append(self.current.digest())
        self.current = new_hash(self.kind)
        self.left = self.shard_bytes
