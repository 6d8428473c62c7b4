"""Integer and 8-bit matrices that are stored beside their scales, as one matrix of floats.

    NAME.weight  I8 or F8 [R, C]
    NAME.weight_scale  float [], [1], [R] or [R, 1]     value = code · scale       (compressed-tensors)
    NAME.weight_scale_inv                               the same                    (FP8 releases)
    NAME.SCB  F32 [R]                                   value = code · scale / 127  (bitsandbytes)

A scale of [R/128, C/128] is that of blocks of 128 × 128. Other packings are left as they are.
Imports torch.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from . import blocks
from .layouts import LogicalTensor

_CODES = ("I8", "F8_E4M3", "F8_E5M2")
_FLOATS = ("F64", "F32", "F16", "BF16")
_SCALES = (("_scale", 1.0), ("_scale_inv", 1.0))
_BLOCK = 128
_EXTRAS = (".weight_format", ".input_scale", ".weight_zero_point")
"""Names of small tensors beside such a matrix that hold no weights."""

MAX_SCALES = 1 << 24


@dataclass(frozen=True, slots=True)
class Scaled(LogicalTensor):
    """A matrix of codes with the tensor of its scales; ``divisor`` divides every scale."""

    scale: LogicalTensor | None = None
    divisor: float = 1.0

    @property
    def paths(self) -> set[str]:
        """Files that hold the codes or the scales."""
        own = {part.entry.path for part in self.parts}
        return own | (self.scale.paths if self.scale else set())


def join(tensors: Sequence[LogicalTensor]) -> list[LogicalTensor]:
    """Return the tensors with every matrix of codes joined to its scales, which then are no tensors."""
    by_name = {tensor.name: tensor for tensor in tensors}
    used: set[str] = set()
    joined: dict[str, LogicalTensor] = {}
    for tensor in tensors:
        found = _scale_of(tensor, by_name)
        if found is None:
            continue
        scale, divisor = found
        fields = {name: getattr(tensor, name) for name in LogicalTensor.__slots__}
        joined[tensor.name] = Scaled(**fields, scale=scale, divisor=divisor)
        used.add(scale.name)
        bare = tensor.name.removesuffix(".weight")
        used |= {bare + extra for extra in _EXTRAS if _is_small(by_name.get(bare + extra))}
    return [joined.get(t.name, t) for t in tensors if t.name not in used]


def is_scaled(tensor: LogicalTensor) -> bool:
    """Tell whether a tensor was joined to its scales, so that its values are floats."""
    return isinstance(tensor, Scaled) and tensor.scale is not None


def stream(files: blocks.Files, tensor: LogicalTensor) -> Iterator[Tensor]:
    """Yield the values of any tensor in canonical row order, flat; scaled ones fp32.

    Raises:
        ReadError: a file cannot be read, or copies of a tensor do not agree.
    """
    if not isinstance(tensor, Scaled) or tensor.scale is None:
        yield from blocks.stream(files, tensor)
        return
    scale = torch.cat([block.float() for block in blocks.stream(files, tensor.scale)])
    position, (rows, columns) = 0, tensor.shape
    by_row = tensor.scale.shape in ((rows,), (rows, 1))
    for block in blocks.stream(files, replace(tensor, scale=None)):
        places = torch.arange(position, position + len(block))
        yield block.float() * _scales(scale, by_row, places, columns) / tensor.divisor
        position += len(block)


def _scales(scale: Tensor, by_row: bool, places: Tensor, columns: int) -> Tensor:
    """Return the scale of each entry at the flat ``places``: of its row, or of its block."""
    if len(scale) == 1:
        return scale
    rows = places // columns
    if by_row:
        return scale[rows]
    across = -(-columns // _BLOCK)
    return scale[rows // _BLOCK * across + places % columns // _BLOCK]


def _scale_of(
    tensor: LogicalTensor, by_name: Mapping[str, LogicalTensor]
) -> tuple[LogicalTensor, float] | None:
    """Return the tensor of scales that fits a matrix of codes, and its divisor."""
    if tensor.dtype not in _CODES or len(tensor.shape) != 2 or tensor.pair_width is not None:
        return None
    candidates = [(tensor.name + end, divisor) for end, divisor in _SCALES]
    candidates.append((tensor.name.removesuffix(".weight") + ".SCB", 127.0))
    rows, columns = tensor.shape
    tiles = (-(-rows // _BLOCK), -(-columns // _BLOCK))
    for name, divisor in candidates:
        scale = by_name.get(name)
        if scale is None or scale.dtype not in _FLOATS or math.prod(scale.shape) > MAX_SCALES:
            continue
        if scale.shape in ((), (1,), (1, 1), (rows,), (rows, 1), tiles):
            return scale, divisor
    return None


def _is_small(tensor: LogicalTensor | None) -> bool:
    return tensor is not None and math.prod(tensor.shape) <= 1
