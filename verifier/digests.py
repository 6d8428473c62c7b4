"""Digests of one file: leaves on a 4 MiB grid, their roots, and whole-file digests.

leaf i   = digest of bytes [4 MiB · i, 4 MiB · (i + 1)), the last leaf short; SHA-256 or BLAKE3
root     = SHA-256("wb-leaves-v1\\0" ‖ leaf 0 ‖ leaf 1 ‖ …), so that one file's leaves check alone
bt2 root = SHA-256 tree over 16 KiB blocks, padded with zero hashes to a power of two (BEP 52)
git sha1 = SHA-1("blob <size>\\0" ‖ bytes), the object id of the file in git
"""

import hashlib
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from .walk import FoundFile, check_unchanged, open_found

LEAF_BYTES = 4 << 20
DIGEST_BYTES = 32
ROOT_PREFIX = b"wb-leaves-v1\0"

BLOCK_BYTES = 16 << 10
_BLOCKS_PER_LEAF = LEAF_BYTES // BLOCK_BYTES
_READ_BYTES = 1 << 20
_REPORT_BYTES = 64 << 20


class Hash(Protocol):
    """What hashlib and blake3 objects have in common."""

    def update(self, data: bytes | bytearray | memoryview, /) -> object:
        """Take in ``data``."""

    def digest(self) -> bytes:
        """Return the digest of what was taken in."""


def blake3_available() -> bool:
    """Tell whether BLAKE3 leaves can be computed here."""
    from importlib.util import find_spec

    return find_spec("blake3") is not None


def leaf_count(size: int) -> int:
    """Return how many leaves a file of ``size`` bytes has; an empty file has none."""
    return -(-size // LEAF_BYTES)


def leaf_root(leaves: bytes) -> str:
    """Return the root, in hex, of a file's concatenated leaf digests."""
    return hashlib.sha256(ROOT_PREFIX + leaves).hexdigest()


def bt2_root(subtrees: bytes) -> str | None:
    """Return the BEP 52 pieces root, in hex, over the leaves' subtrees; None for an empty file."""
    if not subtrees:
        return None
    hashes = [subtrees[i : i + DIGEST_BYTES] for i in range(0, len(subtrees), DIGEST_BYTES)]
    padding = _tree([bytes(DIGEST_BYTES)] * _BLOCKS_PER_LEAF)
    return _tree(_padded(hashes, padding)).hex()


def hash_leaves(
    file: FoundFile, size: int, first: int, count: int, kinds: Sequence[str], *, mapped: bool
) -> dict[str, bytes]:
    """Return the digests of ``count`` leaves of ``file`` from leaf ``first`` on, for each kind.

    ``size`` is where its last leaf ends, in bytes; what lies behind is not looked at.
    ``mapped`` reads through a memory map: faster, but a file that shrinks meanwhile ends the
    process with SIGBUS, so only child processes may. Kinds are ``sha256``, ``blake3``, ``bt2``.

    Raises:
        ReadError: the file cannot be read, or is not what was listed.
    """
    start, end = first * LEAF_BYTES, min((first + count) * LEAF_BYTES, size)
    single = leaf_count(size) == 1
    digests: dict[str, list[bytes]] = {kind: [] for kind in kinds}
    descriptor = open_found(file)
    try:
        for leaf in (_map if mapped else _read)(descriptor, start, end, file):
            for kind in kinds:
                digests[kind].append(leaf_digest(kind, leaf, single))
    finally:
        os.close(descriptor)
    return {kind: b"".join(parts) for kind, parts in digests.items()}


def hash_whole(
    file: FoundFile, kinds: Sequence[str], advance: Callable[[int], None]
) -> dict[str, str]:
    """Return digests of all of ``file`` in hex.

    Kinds are ``git_sha1``, what hashlib knows, ``blake3``, and such as ``sha256-sharded-1000``.
    ``advance`` is called with the bytes read since the last call.

    Raises:
        ReadError: the file cannot be read, or changed while it was.
    """
    hashes = {kind: _whole_hash(kind, file.size) for kind in kinds}
    descriptor = open_found(file)
    buffer = memoryview(bytearray(_READ_BYTES))
    reported = done = 0
    try:
        while done < file.size:
            read = os.preadv(descriptor, [buffer[: file.size - done]], done)
            if read == 0:
                break
            for hash_ in hashes.values():
                hash_.update(buffer[:read])
            done += read
            if done - reported >= _REPORT_BYTES:
                advance(done - reported)
                reported = done
    finally:
        os.close(descriptor)
    advance(done - reported)
    check_unchanged(file)
    return {kind: hash_.digest().hex() for kind, hash_ in hashes.items()}


def _whole_hash(kind: str, size: int) -> Hash:
    if kind == "git_sha1":
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    if kind == "blake3" or "-sharded-" in kind:
        from .serialization import new_hash

        return new_hash(kind)
    return hashlib.new(kind, usedforsecurity=kind not in ("md5", "sha1"))


def leaf_digest(kind: str, leaf: memoryview, single: bool) -> bytes:
    """Return the digest of one leaf; a file's ``single`` leaf is padded less (BEP 52)."""
    if kind == "sha256":
        return hashlib.sha256(leaf).digest()
    if kind == "blake3":
        from blake3 import blake3

        return bytes(blake3(leaf).digest())
    blocks = [
        hashlib.sha256(leaf[start : start + BLOCK_BYTES]).digest()
        for start in range(0, len(leaf), BLOCK_BYTES)
    ]
    zero = bytes(DIGEST_BYTES)
    if single:
        return _tree(_padded(blocks, zero))
    return _tree(blocks + [zero] * (_BLOCKS_PER_LEAF - len(blocks)))


def _padded(hashes: list[bytes], padding: bytes) -> list[bytes]:
    """Fill up to the next power of two."""
    return hashes + [padding] * ((1 << (len(hashes) - 1).bit_length()) - len(hashes))


def _tree(hashes: list[bytes]) -> bytes:
    """Return the root of a binary SHA-256 tree over a power of two of hashes."""
    while len(hashes) > 1:
        hashes = [
            hashlib.sha256(hashes[i] + hashes[i + 1]).digest() for i in range(0, len(hashes), 2)
        ]
    return hashes[0]


def _read(descriptor: int, start: int, end: int, file: FoundFile) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(min(LEAF_BYTES, end - start)))
    for leaf in range(start, end, LEAF_BYTES):
        wanted, filled = min(LEAF_BYTES, end - leaf), 0
        while filled < wanted:
            read = os.preadv(descriptor, [buffer[filled:wanted]], leaf + filled)
            if read == 0:
                check_unchanged(file)
                break
            filled += read
        yield buffer[:filled]


def _map(descriptor: int, start: int, end: int, file: FoundFile) -> Iterator[memoryview]:
    with mmap.mmap(descriptor, end - start, prot=mmap.PROT_READ, offset=start) as mapping:
        mapping.madvise(mmap.MADV_SEQUENTIAL)
        with memoryview(mapping) as view:
            for leaf in range(0, end - start, LEAF_BYTES):
                with view[leaf : leaf + LEAF_BYTES] as part:
                    yield part


@dataclass(frozen=True, slots=True)
class LeafList:
    """The signed leaf digests of one file, in one kind of digest, concatenated."""

    kind: str
    digests: bytes

    def bad_leaves(self, found: bytes) -> list[int]:
        """Return the numbers of the leaves that differ in, or are absent from, ``found``."""
        return [
            i // DIGEST_BYTES
            for i in range(0, len(self.digests), DIGEST_BYTES)
            if self.digests[i : i + DIGEST_BYTES] != found[i : i + DIGEST_BYTES]
        ]
