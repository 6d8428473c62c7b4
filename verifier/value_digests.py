"""Digests of a tensor's values, whatever type, shard and layout they are stored in.

    SHA-256( "wb-tensor-v1\\0" ‖ canonical name ‖ "\\0" ‖ shape ‖ "\\0" ‖ kind ‖ "\\0" ‖ values )

``shape`` is decimal numbers with commas. The values follow in canonical row order, little-endian:

    exact        as they are: fp32 for every narrower float, −0 kept, any NaN as 0x7fc00000;
                 fp64 where fp32 cannot hold them; integers and booleans as int64
    bf16-rne     rounded to bfloat16, nearest even; 2 bytes each
    bf16-trunc   fp32's upper two bytes
    fp16-rne     rounded to IEEE half precision, nearest even

A copy that was cast from the official weights holds exactly the values that one of the roundings
of the official ones has, and its own type loses nothing of them.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .blocks import widen

EXACT = "exact"
ROUNDINGS = ("bf16-rne", "bf16-trunc", "fp16-rne")
_ROUNDING_TYPE = {
    "bf16-rne": torch.bfloat16,
    "bf16-trunc": torch.bfloat16,
    "fp16-rne": torch.float16,
}
VARIED = 64
"""Different values that a run of entries needs to be evidence."""
_UPPER_HALF = -65536  # 0xFFFF0000 as int32


@dataclass(frozen=True, slots=True)
class ValueDigests:
    """Hex digests by kind; ``fits`` are the roundings that change none of the values.

    ``telling``: floats of many different values, so that equality is evidence; matrices of zeros
    or ones, and identities, are equal in models that have nothing to do with each other.
    """

    digests: dict[str, str]
    fits: frozenset[str]
    telling: bool


def digest_values(
    name: str, shape: Iterable[int], kinds: Iterable[str], blocks: Iterator[Tensor]
) -> ValueDigests:
    """Hash a stream of blocks in one pass; integers have only the kind ``exact``."""
    shape = tuple(shape)
    hashers = {kind: hashlib.sha256(_prefix(name, shape, kind)) for kind in kinds}
    double = hashlib.sha256(_prefix(name, shape, EXACT))
    fits = set(hashers) - {EXACT}
    is_double = narrows = False
    telling = False
    for block in blocks:
        values = widen(block)
        if not block.dtype.is_floating_point:
            hashers = {kind: hasher for kind, hasher in hashers.items() if kind == EXACT}
            fits = set()
        telling = telling or (block.dtype.is_floating_point and _is_varied(values))
        if values.dtype == torch.float64:
            is_double = True
            values = _one_nan(values)
            double.update(values.numpy().data)
            single = values.to(torch.float32)
            narrows = narrows or not _same(single.to(torch.float64), values)
            values = single
        elif block.dtype.is_floating_point:
            values = _one_nan(values)
        for kind, hasher in hashers.items():
            if kind == EXACT:
                hasher.update(values.numpy().data)
                continue
            rounded = round_to(kind, values)
            hasher.update(rounded.view(torch.int16).numpy().data)
            if kind in fits and not _same(rounded.to(torch.float32), values):
                fits.discard(kind)
    found = {kind: hasher.hexdigest() for kind, hasher in hashers.items()}
    if is_double and narrows:
        fits = set()
        if EXACT in found:
            found[EXACT] = double.hexdigest()
    return ValueDigests(found, frozenset(fits), telling)


def round_to(kind: str, values: Tensor) -> Tensor:
    """Return fp32 ``values`` in the 16-bit type of a rounding, NaN as that type's usual one."""
    if kind == "bf16-trunc":
        values = (values.view(torch.int32) & _UPPER_HALF).view(torch.float32)
    rounded = values.to(_ROUNDING_TYPE[kind])
    return _one_nan(rounded) if bool(values.sum().isnan()) else rounded


def _prefix(name: str, shape: tuple[int, ...], kind: str) -> bytes:
    return "\0".join(("wb-tensor-v1", name, ",".join(map(str, shape)), kind, "")).encode()


def _is_varied(values: Tensor) -> bool:
    return len(torch.unique(values[: 1 << 14])) >= VARIED


def _one_nan(values: Tensor) -> Tensor:
    """Return ``values`` with every NaN made the same one; conversions differ in the payload."""
    if not bool(values.sum().isnan()):  # a sum is cheap, and NaN if any entry is (or ±∞ meet)
        return values
    return values.masked_fill(values.isnan(), float("nan"))


def _same(rounded: Tensor, values: Tensor) -> bool:
    """Tell whether rounding changed nothing; NaN equals NaN, and −0 differs from 0 nowhere here."""
    return bool(((rounded == values) | (values != values)).all())
