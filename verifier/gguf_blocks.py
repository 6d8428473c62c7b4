"""Decode the block quantizations of ggml: Q4_0 to Q8_0, and the K-quants.

Every block is unpacked into whole levels in groups, a scale per group, and what is added or taken
away; a value is

    scale × level (+ added) (− taken)

in fp32, in that order of operations (ggml-quants.c, dequantize_row_*). N blocks, G groups in a
block, E entries in a group.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .readers import QUANTIZED

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Blocks of one type: ``levels`` [N, G, E], the others [N, G, 1].

    Levels lie in [``lowest``, ``highest``].
    """

    levels: Floats
    scale: Floats
    lowest: int
    highest: int
    added: Floats | None = None
    taken: Floats | None = None

    def values(self, levels: Floats | None = None) -> Floats:
        """Return the values, or those that other ``levels`` would have."""
        with np.errstate(all="ignore"):
            found = self.scale * (self.levels if levels is None else levels)
            if self.added is not None:
                found = found + self.added
            if self.taken is not None:
                found = found - self.taken
        return found


def can_decode(dtype: str) -> bool:
    """Tell whether blocks of ``dtype`` can be decoded."""
    return dtype in _UNPACK


def decode(dtype: str, data: bytes | bytearray | Bytes) -> Floats:
    """Return the values of whole blocks, flat, fp32.

    Raises:
        KeyError: blocks of ``dtype`` cannot be decoded.
    """
    return unpack(dtype, data).values().reshape(-1)


def unpack(dtype: str, data: bytes | bytearray | Bytes) -> Unpacked:
    """Return the parts of whole blocks.

    Raises:
        KeyError: blocks of ``dtype`` cannot be decoded.
    """
    function = _UNPACK[dtype]
    return function(np.frombuffer(data, np.uint8).reshape(-1, QUANTIZED[dtype][1]))


def _half(pair: Bytes) -> Floats:
    """Return fp16 numbers of two bytes each, [N, 1, 1], widened."""
    with np.errstate(invalid="ignore"):
        wide: Floats = np.ascontiguousarray(pair).view("<f2").astype(np.float32)
    return wide.reshape(-1, 1, 1)


def _levels(levels: NDArray[Any], groups: int) -> Floats:
    return levels.reshape(len(levels), groups, -1).astype(np.float32)


def _nibbles(packed: Bytes, run: int) -> Bytes:
    """Unpack runs of ``run`` bytes, all low halves of a run before its high ones, [N, R, 2, run]."""
    runs = packed.reshape(len(packed), -1, 1, run)
    return np.concatenate([runs & 15, runs >> 4], axis=2)


def _crumbs(packed: Bytes) -> Bytes:
    """Unpack runs of 32 bytes into four times 32 numbers of two bits, [N, R, 4, 32]."""
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    crumbs: Bytes = (packed.reshape(len(packed), -1, 1, 32) >> shifts) & np.uint8(3)
    return crumbs


def _planes(packed: Bytes) -> Bytes:
    """Unpack 32 bytes into eight times 32 bits, the lowest bits of all bytes first, [N, 8, 32]."""
    shifts = np.arange(8, dtype=np.uint8).reshape(1, 8, 1)
    bits: Bytes = (packed.reshape(len(packed), 1, 32) >> shifts) & np.uint8(1)
    return bits


def _fifth_bits(packed: Bytes) -> Bytes:
    """Return the fifth bit of 32 entries, in its place, [N, 32]."""
    bits: Bytes = np.unpackbits(packed, axis=1, bitorder="little") << np.uint8(4)
    return bits


def _q4_0(blocks: Bytes) -> Unpacked:
    levels = _levels(_nibbles(blocks[:, 2:], 16), 1) - 8
    return Unpacked(levels, _half(blocks[:, :2]), -8, 7)


def _q4_1(blocks: Bytes) -> Unpacked:
    levels = _levels(_nibbles(blocks[:, 4:], 16), 1)
    return Unpacked(levels, _half(blocks[:, :2]), 0, 15, added=_half(blocks[:, 2:4]))


def _q5_0(blocks: Bytes) -> Unpacked:
    low = _nibbles(blocks[:, 6:], 16).reshape(len(blocks), 32)
    levels = _levels(low | _fifth_bits(blocks[:, 2:6]), 1) - 16
    return Unpacked(levels, _half(blocks[:, :2]), -16, 15)


def _q5_1(blocks: Bytes) -> Unpacked:
    low = _nibbles(blocks[:, 8:], 16).reshape(len(blocks), 32)
    levels = _levels(low | _fifth_bits(blocks[:, 4:8]), 1)
    return Unpacked(levels, _half(blocks[:, :2]), 0, 31, added=_half(blocks[:, 2:4]))


def _q8_0(blocks: Bytes) -> Unpacked:
    levels = _levels(np.ascontiguousarray(blocks[:, 2:]).view(np.int8), 1)
    return Unpacked(levels, _half(blocks[:, :2]), -128, 127)


def _q2_k(blocks: Bytes) -> Unpacked:
    scales = blocks[:, :16, None]
    levels = _levels(_crumbs(blocks[:, 16:80]), 16)
    with np.errstate(all="ignore"):
        scale = _half(blocks[:, 80:82]) * (scales & 15).astype(np.float32)
        taken = _half(blocks[:, 82:84]) * (scales >> 4).astype(np.float32)
    return Unpacked(levels, scale, 0, 3, taken=taken)


def _q3_k(blocks: Bytes) -> Unpacked:
    """Three bits: two in ``qs``; where the third, in ``hmask``, is not set, 4 is taken away."""
    low = _crumbs(blocks[:, 32:96]).reshape(len(blocks), 256)
    high = _planes(blocks[:, :32]).reshape(len(blocks), 256)
    levels = _levels(low | (high << 2), 16) - 4
    packed = blocks[:, 96:108]
    low_scales = _nibbles(packed[:, :8], 8).reshape(len(blocks), 16)
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(1, 4, 1)
    high_scales = ((packed[:, None, 8:] >> shifts) & 3).reshape(len(blocks), 16)
    scales = (low_scales | (high_scales << 4)).astype(np.float32) - 32
    with np.errstate(all="ignore"):
        scale = _half(blocks[:, 108:]) * scales[:, :, None]
    return Unpacked(levels, scale, -4, 3)


def _six_bit_pairs(packed: Bytes) -> tuple[Floats, Floats]:
    """Unpack eight scales and eight minima of six bits from twelve bytes, [N, 8, 1] each.

    The first four of each are the low bits of bytes 0 to 3 and 4 to 7; the last four have their
    low halves in bytes 8 to 11, and their upper two bits above the first ones (get_scale_min_k4).
    """
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=1)
    minima = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=1)
    return scales.astype(np.float32)[:, :, None], minima.astype(np.float32)[:, :, None]


def _with_minima(blocks: Bytes, levels: Floats, highest: int) -> Unpacked:
    scales, minima = _six_bit_pairs(blocks[:, 4:16])
    with np.errstate(all="ignore"):
        scale = _half(blocks[:, :2]) * scales
        taken = _half(blocks[:, 2:4]) * minima
    return Unpacked(levels, scale, 0, highest, taken=taken)


def _q4_k(blocks: Bytes) -> Unpacked:
    return _with_minima(blocks, _levels(_nibbles(blocks[:, 16:], 32), 8), 15)


def _q5_k(blocks: Bytes) -> Unpacked:
    low = _nibbles(blocks[:, 48:], 32).reshape(len(blocks), 8, 32)
    return _with_minima(blocks, _levels(low | (_planes(blocks[:, 16:48]) << 4), 8), 31)


def _q6_k(blocks: Bytes) -> Unpacked:
    low = _nibbles(blocks[:, :128], 64).reshape(len(blocks), 256)
    high = _crumbs(blocks[:, 128:192]).reshape(len(blocks), 256)
    levels = _levels(low | (high << 4), 16) - 32
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    with np.errstate(all="ignore"):
        scale = _half(blocks[:, 208:]) * scales[:, :, None]
    return Unpacked(levels, scale, -32, 31)


_UNPACK: dict[str, Callable[[Bytes], Unpacked]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
