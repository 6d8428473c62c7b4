"""The hash tree of BEP 52: SHA-256 over blocks of 16 KiB, up to a file's `pieces root`.

block    SHA-256 of 16 KiB, the last block short
parent   SHA-256(left ‖ right); the lowest row is filled with zero hashes to a power of two
piece    the node that covers `piece length` bytes; a file's row of them is its piece layer
"""

import hashlib
from functools import cache

from .digests import BLOCK_BYTES, DIGEST_BYTES

_ZERO = bytes(DIGEST_BYTES)


def top(hashes: list[bytes], filling: bytes = _ZERO, *, width: int = 1) -> bytes:
    """Return the node above ``hashes``, filled up to a power of two, at least ``width``, of them."""
    size = max(width, 1 << (len(hashes) - 1).bit_length())
    hashes = hashes + [filling] * (size - len(hashes))
    while len(hashes) > 1:
        hashes = [
            hashlib.sha256(hashes[i] + hashes[i + 1]).digest() for i in range(0, len(hashes), 2)
        ]
    return hashes[0]


def piece_node(blocks: list[bytes], piece_length: int, *, whole: bool) -> bytes:
    """Return the node of one piece; a file that is ``whole`` in it is filled no further than it."""
    return top(blocks, width=1 if whole else piece_length // BLOCK_BYTES)


def root_of_layer(layer: bytes, piece_length: int) -> bytes:
    """Return the root that a piece layer, its hashes concatenated, leads to."""
    hashes = [layer[i : i + DIGEST_BYTES] for i in range(0, len(layer), DIGEST_BYTES)]
    return top(hashes, _filling(piece_length))


@cache
def _filling(piece_length: int) -> bytes:
    """Return the node of a piece behind the end of a file."""
    node = _ZERO
    for _ in range((piece_length // BLOCK_BYTES).bit_length() - 1):
        node = hashlib.sha256(node + node).digest()
    return node
