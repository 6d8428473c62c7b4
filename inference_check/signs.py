"""Public random signs and token ids: SHAKE-256 of a label and a seed, never a library's numbers."""

import hashlib

import torch
from torch import Tensor


def random_bytes(label: str, seed: str, count: int) -> bytes:
    """Return ``count`` bytes for one purpose of one seed."""
    return hashlib.shake_256(f"wb-reference-v1\0{label}\0{seed}".encode()).digest(count)


def signs(label: str, seed: str, rows: int, columns: int) -> Tensor:
    """Return ±1, int8 [rows, columns], one bit each, lowest bit first."""
    count = rows * columns
    return _unpack(random_bytes(label, seed, -(-count // 8)))[:count].view(rows, columns)


class ManySigns:
    """±1 for very many rows, of a multiple of eight columns: unpacked where they are used."""

    def __init__(self, label: str, seed: str, rows: int, columns: int) -> None:
        self._row = columns // 8
        self._packed = random_bytes(label, seed, rows * self._row)

    def rows(self, first: int, count: int) -> Tensor:
        """Return rows [first, first + count) of ``signs(label, seed, rows, columns)``."""
        packed = self._packed[first * self._row : (first + count) * self._row]
        return _unpack(packed).view(count, 8 * self._row)


def _unpack(packed: bytes) -> Tensor:
    data = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
    bits = (data[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    return bits.flatten().to(torch.int8) * 2 - 1


def token_ids(seed: str, count: int, vocab: int) -> list[int]:
    """Return fixed token ids below ``vocab``; no tokenizer is involved."""
    stream = random_bytes("tokens", seed, 4 * count)
    return [int.from_bytes(stream[4 * n : 4 * n + 4], "little") % vocab for n in range(count)]
