"""Quantize official values again, and hold the blocks of a copy to the result.

A block *equals* when its bytes are those that the recipe makes of the official values (a zero
scale may have either sign: ggml and the gguf package differ in it). It *fits* when its values lie
within the error of its own quantization:

    K-quants     levels are the nearest ones to the official values under the stored scales, whatever
                 search found those (ggml-quants.c rounds again after it has stored them)
    Q4_0 … Q8_0  the same, but for the rounding of the scale to fp16; where levels were searched with
                 weights (an importance matrix), a block need only have the right size: the
                 regression of the official values on its own lies near 1

Beyond the lowest and the highest level a value may be cut off. The bounds were measured with
ggml's quantizers on normal, uniform, heavy-tailed and biased rows, with and without weights.
"""

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import gguf_blocks
from .readers import QUANTIZED

Flags = NDArray[np.bool_]

SOURCES: dict[str, torch.dtype | None] = {
    "": None,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""Types that the official values may have been converted to before they were quantized."""

PACKAGE_QUANTIZES = frozenset({"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"})
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_SEARCHED = frozenset({"Q4_0", "Q4_1", "Q5_0", "Q5_1"})
_HALVES = {"Q4_0": 1, "Q4_1": 2, "Q5_0": 1, "Q5_1": 2, "Q8_0": 1}
"""fp16 numbers at the start of a block."""

_SOURCE_ERROR = 2.0**-9  # half a unit in the last place of bfloat16, relative
_HALF_ERROR, _HALF_LEAST = 2.0**-11, 2.0**-25  # the same of fp16, relative and absolute
_CUT_OFF = 1.05  # steps that a plain recipe cuts off at most: one, and roundings
_SIZE = (0.75, 3.0)
_SIZE_K = (0.5, 2.0)
_TINY = 2.0**-12
"""Blocks of values below this have scales that fp16 cannot hold, and say nothing."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Per block, in the order of the copy: whether it equals (None: no recipe), and fits.

    ``fits_loosely`` allows what a search with weights may do.
    """

    equals: Flags | None
    fits: Flags
    fits_loosely: Flags


def package_available() -> bool:
    """Tell whether the ``gguf`` package, which quantizes, is installed; it is not imported."""
    return importlib.util.find_spec("gguf") is not None


def can_compare(dtype: str) -> bool:
    """Tell whether tensors of ``dtype`` can be held to official values."""
    return dtype in FLOATS or gguf_blocks.can_decode(dtype)


def has_recipe(dtype: str) -> bool:
    """Tell whether blocks of ``dtype`` can be made again bit by bit here."""
    return dtype in FLOATS or (dtype in PACKAGE_QUANTIZES and package_available())


def compare(dtype: str, raw: bytearray, official: Tensor, source: str) -> Compared:
    """Hold whole rows of a copy, ``raw``, to the ``official`` rows [R, C], fp32.

    ``source`` is one of ``SOURCES``. Entries are the blocks of plain floats.
    """
    through = SOURCES[source]
    values = official if through is None else official.to(through).to(torch.float32)
    if dtype in FLOATS:
        return _compare_floats(dtype, raw, official, values)
    unpacked = gguf_blocks.unpack(dtype, raw)
    wanted = values.numpy().reshape(unpacked.levels.shape)
    equals = None
    if has_recipe(dtype):
        equals = _same_blocks(dtype, raw, _quantize(dtype, values.numpy()))
    fits = _fits(dtype, unpacked, wanted)
    if equals is not None:
        fits = fits | equals
    loosely = fits
    if dtype in _SEARCHED:
        loosely = fits | _has_size(unpacked, wanted, _SIZE)
    return Compared(equals, fits, loosely)


def compare_int8(levels: Tensor, scale: Tensor, official: Tensor, *, absmax: bool) -> Compared:
    """Hold rows of int8 levels to the official rows [R, C], fp32; a row is a block.

    ``scale`` [R] is what one level is worth, or, with ``absmax``, what 127 are (LLM.int8, Dettmers
    et al. 2022).
    """
    stored = scale.to(torch.float32)
    step = (stored / 127 if absmax else stored)[:, None]
    peak = official.abs().amax(1)
    scales = [peak] if absmax else [peak / 127, peak / 127.5]
    same_scale = torch.zeros(len(stored), dtype=torch.bool)
    for wanted in scales:
        same_scale |= wanted.to(scale.dtype).to(torch.float32) == stored
    safe = peak.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    tries = (official / step.clamp(min=torch.finfo(torch.float32).tiny), official * (127 / safe))
    same_levels = torch.zeros(len(stored), dtype=torch.bool)
    for exact in (*tries, official * 127 / safe):
        rounded = exact.round().clamp(-128, 127)
        same_levels |= (rounded == levels.to(torch.float32)).all(1)
    error = (official - levels.to(torch.float32) * step).abs()
    bound = 0.5 * step * (1 + 2.0**-10) + _SOURCE_ERROR * official.abs()
    ends = (levels == 127) | (levels <= -127)
    fits = ((error <= bound) | (ends & (error <= 1.5 * step))).all(1) & stored.isfinite()
    equals = (same_scale & same_levels).numpy()
    return Compared(equals, fits.numpy() | equals, fits.numpy() | equals)


def _compare_floats(dtype: str, raw: bytearray, official: Tensor, values: Tensor) -> Compared:
    stored = torch.frombuffer(raw, dtype=FLOATS[dtype])
    wanted = values.reshape(-1).to(FLOATS[dtype])
    equals = (stored == wanted) | (stored.isnan() & wanted.isnan())
    error = (stored.double() - official.reshape(-1).double()).abs()
    fits = equals | (error <= 2 * _SOURCE_ERROR * official.reshape(-1).abs() + _HALF_LEAST)
    return Compared(equals.numpy(), fits.numpy(), fits.numpy())


def _quantize(dtype: str, rows: NDArray[np.float32]) -> NDArray[np.uint8]:
    import gguf

    with np.errstate(all="ignore"):
        made: Any = gguf.quants.quantize(rows, gguf.GGMLQuantizationType[dtype])
    return np.asarray(made, np.uint8)


def _same_blocks(dtype: str, raw: bytearray, made: NDArray[np.uint8]) -> Flags:
    """Compare blocks byte by byte, with a zero of either sign in the scale for the same."""
    size = QUANTIZED[dtype][1]
    pair = [np.frombuffer(data, np.uint8).reshape(-1, size).copy() for data in (raw, made.data)]
    for blocks in pair:
        for place in range(0, 2 * _HALVES[dtype], 2):
            zero = (blocks[:, place] == 0) & (blocks[:, place + 1] == 0x80)
            blocks[zero, place + 1] = 0
    same: Flags = (pair[0] == pair[1]).all(axis=1)
    return same


def _fits(dtype: str, unpacked: gguf_blocks.Unpacked, wanted: NDArray[np.float32]) -> Flags:
    """Tell of each block whether its levels are the nearest to the wanted values [N, G, E]."""
    values = unpacked.values()
    with np.errstate(all="ignore"):
        step = np.abs(unpacked.scale)
        error = np.abs(wanted - values)
        bound = 0.5 * step * (1 + 2.0**-10) + _SOURCE_ERROR * np.abs(wanted) + _HALF_LEAST
        is_k_quant = QUANTIZED[dtype][0] == 256
        if not is_k_quant:
            bound = bound + np.abs(unpacked.levels) * np.maximum(step * _HALF_ERROR, _HALF_LEAST)
        if unpacked.added is not None:
            bound = bound + np.abs(unpacked.added) * _HALF_ERROR + _HALF_LEAST
        ends = [np.full_like(unpacked.levels[:1], n) for n in (unpacked.lowest, unpacked.highest)]
        first, last = (unpacked.values(end) for end in ends)
        beyond = (wanted < np.minimum(first, last)) | (wanted > np.maximum(first, last))
        allowed = (
            beyond | (step == 0) if is_k_quant else beyond & (error <= _CUT_OFF * step + bound)
        )
        near = (error <= bound) | allowed
    good: Flags = (near & np.isfinite(values)).reshape(len(values), -1).all(axis=1)
    return good & _has_size(unpacked, wanted, _SIZE_K) if is_k_quant else good


def _has_size(
    unpacked: gguf_blocks.Unpacked, wanted: NDArray[np.float32], sizes: tuple[float, float]
) -> Flags:
    """Tell of each block whether the regression of the wanted values on its own lies in ``sizes``."""
    own = unpacked.values().reshape(len(wanted), -1).astype(np.float64)
    theirs = wanted.reshape(len(wanted), -1).astype(np.float64)
    with np.errstate(all="ignore"):
        slope = (own * theirs).sum(axis=1) / (own * own).sum(axis=1)
        right = (slope >= sizes[0]) & (slope <= sizes[1])
        largest = np.maximum(np.abs(own).max(axis=1), np.abs(theirs).max(axis=1))
    flags: Flags = right | (largest < _TINY)
    return flags
