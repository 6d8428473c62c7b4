"""Matrices packed by common quantizers into several tensors, read as one matrix of floats.

    scales     NAME.weight I8 or F8 [R, C] with one of
                   NAME.weight_scale, .weight_scale_inv, .scale, .scales
                                                   [], [1], [R], [R, 1]   value = code · scale
                                                   [R/128, C/128]         of blocks of 128 × 128
                   NAME.SCB                        F32 [R]                value = code · scale / 127
    gptq       NAME.qweight I32 [C·b/32, R], .qzeros I32 [G, R·b/32], .scales [G, R], .g_idx I32 [C]
                   value = scale · (code − zero − 1); b bits, the first entry lowest
    packed     NAME.weight_packed I32 [R, C/8], .weight_scale [R, G], .weight_shape I64 [2]
                   value = scale · (code − 8); 4 bits, the first entry lowest (compressed-tensors)
    nf4, fp4   NAME.weight U8 [R·C/2, 1] with NAME.weight.absmax, .quant_map, .quant_state.*
                   value = map[code] · absmax of 64 entries; the first entry highest (bitsandbytes);
                   an absmax of U8 is a code of .nested_quant_map, scaled by .nested_absmax

Whatever fits none of these stays as it is. Imports torch.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import blocks, strict_json
from .errors import ManifestError, ReadError
from .layouts import LogicalTensor

_FLOATS = ("F64", "F32", "F16", "BF16")
_SCALES = {"weight_scale": 1.0, "weight_scale_inv": 1.0, "SCB": 127.0, "scale": 1.0, "scales": 1.0}
_TILE = 128
_STATES = ("quant_state.bitsandbytes__nf4", "quant_state.bitsandbytes__fp4")
_LEFTOVERS = ("_scale", "_zero_point", "_format")
"""Ends of the names of single numbers beside packed matrices, which are no weights."""
_ROWS = 256
"""Rows decoded at once where the packing runs across them."""

_Names = Mapping[str, LogicalTensor]

MAX_SIDE = 1 << 26
"""Entries of scales, zeros and the like that are held in memory."""
MAX_STATE = 1 << 16


@dataclass(frozen=True, slots=True)
class Packed(LogicalTensor):
    """A matrix with the tensors that it is packed into, by their role; ``style`` as above."""

    style: str = ""
    pieces: tuple[tuple[str, LogicalTensor], ...] = ()
    facts: tuple[tuple[str, float], ...] = ()

    @property
    def paths(self) -> set[str]:
        """Files that hold a piece."""
        return {path for _, piece in self.pieces for path in piece.paths}

    @property
    def stored_bytes(self) -> int:
        """Bytes of the pieces."""
        return sum(piece.stored_bytes for _, piece in self.pieces)


def join(root: Path, tensors: Sequence[LogicalTensor]) -> list[LogicalTensor]:
    """Return the tensors with packed matrices in the place of their pieces.

    Raises:
        ReadError: a file cannot be read.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    joined: dict[str, Packed] = {}
    for tensor in tensors:
        bare, _, end = tensor.name.rpartition(".")
        found = None
        if end == "weight":
            found = _scaled(bare, tensor, by_name) or _bitsandbytes(root, bare, tensor, by_name)
        elif end == "qweight":
            found = _gptq(bare, tensor, by_name)
        elif end == "weight_packed":
            found = _compressed(bare, tensor, by_name)
        if found is not None:
            joined[tensor.name] = found
    used = {piece.name for found in joined.values() for _, piece in found.pieces}

    def is_left(tensor: LogicalTensor) -> bool:
        single = math.prod(tensor.shape) <= 1 and tensor.name.endswith(_LEFTOVERS)
        return tensor.name not in used and not (joined and single)

    rest: list[LogicalTensor] = [tensor for tensor in tensors if is_left(tensor)]
    return [*rest, *joined.values()]


def stream(files: blocks.Files, tensor: LogicalTensor) -> Iterator[Tensor]:
    """Yield the values of any tensor in canonical row order, flat; packed ones as fp32.

    Raises:
        ReadError: a file cannot be read, or copies of a tensor do not agree.
    """
    if not isinstance(tensor, Packed):
        yield from blocks.stream(files, tensor)
        return
    decode = {"scales": _from_scales, "gptq": _from_gptq, "packed": _from_compressed}
    yield from decode.get(tensor.style, _from_codebook)(files, tensor)


def _make(
    bare: str,
    shape: tuple[int, ...],
    style: str,
    pieces: Mapping[str, LogicalTensor],
    facts: Mapping[str, float],
) -> Packed:
    first = pieces["codes"]
    return Packed(
        *(f"{bare}.weight", first.folder, first.dtype, shape, first.parts),
        style=style,
        pieces=tuple(pieces.items()),
        facts=tuple(facts.items()),
    )


def _scaled(bare: str, codes: LogicalTensor, by_name: _Names) -> Packed | None:
    eight = codes.dtype in ("I8", "F8_E4M3", "F8_E5M2")
    if not eight or len(codes.shape) != 2 or codes.pair_width is not None:
        return None
    rows, columns = codes.shape
    tiles = (-(-rows // _TILE), -(-columns // _TILE))
    shapes: tuple[tuple[int, ...], ...] = ((), (1,), (1, 1), (rows,), (rows, 1), tiles)
    for end, divisor in _SCALES.items():
        scale = _side(by_name, f"{bare}.{end}", _FLOATS)
        if scale is not None and scale.shape in shapes:
            pieces = {"codes": codes, "scale": scale}
            return _make(bare, codes.shape, "scales", pieces, {"divisor": divisor})
    return None


def _gptq(bare: str, codes: LogicalTensor, by_name: _Names) -> Packed | None:
    scales = _side(by_name, f"{bare}.scales", _FLOATS)
    zeros = _side(by_name, f"{bare}.qzeros", ("I32",))
    index = _side(by_name, f"{bare}.g_idx", ("I32",))
    if codes.dtype != "I32" or scales is None or zeros is None or index is None:
        return None
    if [len(piece.shape) for piece in (codes, scales, zeros, index)] != [2, 2, 2, 1]:
        return None
    columns, rows, groups = index.shape[0], codes.shape[1], scales.shape[0]
    bits = next((b for b in (2, 4, 8) if codes.shape[0] * 32 == columns * b), None)
    if bits is None or scales.shape[1] != rows or rows * bits % 32:
        return None
    if zeros.shape != (groups, rows * bits // 32):
        return None
    pieces = {"codes": codes, "scales": scales, "zeros": zeros, "index": index}
    return _make(bare, (rows, columns), "gptq", pieces, {"bits": bits})


def _compressed(bare: str, codes: LogicalTensor, by_name: _Names) -> Packed | None:
    scale = _side(by_name, f"{bare}.weight_scale", _FLOATS)
    if scale is None or codes.dtype != "I32" or len(codes.shape) != 2 or len(scale.shape) != 2:
        return None
    if f"{bare}.weight_zero_point" in by_name or f"{bare}.weight_g_idx" in by_name:
        return None
    rows, columns = codes.shape[0], 8 * codes.shape[1]
    if scale.shape[0] != rows or not scale.shape[1] or columns % scale.shape[1]:
        return None
    pieces = {"codes": codes, "scale": scale}
    size = by_name.get(f"{bare}.weight_shape")
    pieces |= {"shape": size} if size is not None else {}
    return _make(bare, (rows, columns), "packed", pieces, {})


def _bitsandbytes(root: Path, bare: str, codes: LogicalTensor, by_name: _Names) -> Packed | None:
    name = f"{bare}.weight"
    state = next((by_name[n] for e in _STATES if (n := f"{name}.{e}") in by_name), None)
    values = _side(by_name, f"{name}.quant_map", ("F32",))
    absmax = _side(by_name, f"{name}.absmax", ("F32", "U8"))
    if state is None or codes.dtype != "U8" or values is None or absmax is None:
        return None
    found = _state_of(root, state)
    match found:
        case {"shape": [int(rows), int(columns)], "blocksize": int(size)} if (
            rows > 0 and columns > 0 and size > 0
        ):
            pass
        case _:
            return None
    count = rows * columns
    whole = math.prod(codes.shape) * 2 == count and math.prod(absmax.shape) * size >= count
    if not whole or math.prod(values.shape) != 16:
        return None
    pieces = {"codes": codes, "absmax": absmax, "quant_map": values, "state": state}
    facts: dict[str, float] = {"size": size}
    if absmax.dtype == "U8":
        outer = _side(by_name, f"{name}.nested_absmax", ("F32",))
        inner_map = _side(by_name, f"{name}.nested_quant_map", ("F32",))
        if outer is None or inner_map is None or math.prod(inner_map.shape) != 256:
            return None
        match found:
            case {"nested_blocksize": int(inner), "nested_offset": float() | int() as offset} if (
                inner > 0 and math.prod(outer.shape) * inner >= math.prod(absmax.shape)
            ):
                facts |= {"inner": inner, "offset": float(offset)}
            case _:
                return None
        pieces |= {"nested_absmax": outer, "nested_quant_map": inner_map}
    return _make(bare, (rows, columns), "codebook", pieces, facts)


def _side(by_name: _Names, name: str, kinds: Sequence[str]) -> LogicalTensor | None:
    """Return a tensor of one of ``kinds``, if it is there and small enough to be held in memory."""
    found = by_name.get(name)
    if found is None or found.dtype not in kinds or math.prod(found.shape) > MAX_SIDE:
        return None
    return found


def _state_of(root: Path, state: LogicalTensor) -> Mapping[str, Any]:
    """Return the JSON that bitsandbytes keeps in a tensor of bytes, or nothing."""
    if state.dtype != "U8" or math.prod(state.shape) > MAX_STATE:
        return {}
    with blocks.Files(root, state.paths) as files:
        data = b"".join(bytes(block.tolist()) for block in blocks.stream(files, state))
    try:
        found = strict_json.loads(data, state.name)
    except ManifestError:
        return {}
    return found if isinstance(found, dict) else {}


def _whole(files: blocks.Files, tensor: Packed, role: str) -> Tensor:
    """Return one small piece, in its shape."""
    piece = dict(tensor.pieces)[role]
    if math.prod(piece.shape) > MAX_SIDE:
        raise ReadError(piece.parts[0].entry.path, f"tensor {piece.name[:80]!r} is too large")
    found = list(blocks.stream(files, piece))
    empty = torch.empty(0, dtype=blocks.DTYPES[piece.dtype])
    return torch.cat([empty, *found]).view(piece.shape)


def _from_scales(files: blocks.Files, tensor: Packed) -> Iterator[Tensor]:
    pieces, divisor = dict(tensor.pieces), dict(tensor.facts)["divisor"]
    scale = _whole(files, tensor, "scale").float().flatten()
    rows, columns = tensor.shape
    by_row = pieces["scale"].shape in ((rows,), (rows, 1))
    across = -(-columns // _TILE)
    position = 0
    for block in blocks.stream(files, pieces["codes"]):
        places = torch.arange(position, position + len(block))
        row, column = places // columns, places % columns
        at = row if by_row else row // _TILE * across + column // _TILE
        each = scale if len(scale) == 1 else scale[at]
        yield block.float() * each / divisor
        position += len(block)


def _from_gptq(files: blocks.Files, tensor: Packed) -> Iterator[Tensor]:
    """Decode AutoGPTQ's layout; symmetric models of its second version keep zeros as they are."""
    bits = int(dict(tensor.facts)["bits"])
    codes = _whole(files, tensor, "codes")
    scales = _whole(files, tensor, "scales").float()
    zeros = _unpacked(_whole(files, tensor, "zeros"), bits, 1)
    plain = bool((zeros == 2 ** (bits - 1)).all())
    zeros = zeros if plain else zeros + 1
    index = _whole(files, tensor, "index").long()
    if len(index) and (int(index.min()) < 0 or int(index.max()) >= len(scales)):
        path = tensor.parts[0].entry.path
        raise ReadError(path, f"tensor {tensor.name[:80]!r} names a group that is not there")
    for start in range(0, tensor.shape[0], _ROWS):
        part = slice(start, start + _ROWS)
        values = (_unpacked(codes[:, part], bits, 0) - zeros[index, part]) * scales[index, part]
        yield values.T.reshape(-1)


def _from_compressed(files: blocks.Files, tensor: Packed) -> Iterator[Tensor]:
    scale = _whole(files, tensor, "scale").float()
    columns = tensor.shape[1]
    codes = _whole(files, tensor, "codes")
    for start in range(0, tensor.shape[0], _ROWS):
        part = slice(start, start + _ROWS)
        each = scale[part].repeat_interleave(columns // scale.shape[1], 1)
        yield ((_unpacked(codes[part], 4, 1) - 8) * each).reshape(-1)


def _from_codebook(files: blocks.Files, tensor: Packed) -> Iterator[Tensor]:
    facts, pieces = dict(tensor.facts), dict(tensor.pieces)
    largest = _whole(files, tensor, "absmax").flatten()
    if "inner" in facts:
        codes = _whole(files, tensor, "nested_quant_map").flatten()[largest.long()]
        outer = _whole(files, tensor, "nested_absmax").flatten()
        at = torch.arange(len(codes)) // int(facts["inner"])
        largest = codes * outer[at] + facts["offset"]
    values = _whole(files, tensor, "quant_map").flatten()
    position = 0
    for block in blocks.stream(files, pieces["codes"]):
        both = torch.stack((block >> 4, block & 15), 1).flatten().long()
        places = torch.arange(position, position + len(both)) // int(facts["size"])
        yield values[both] * largest[places]
        position += len(both)


def _unpacked(words: Tensor, bits: int, dim: int) -> Tensor:
    """Return the codes in words of 32 bits, along ``dim``, the lowest first."""
    shifts = torch.arange(0, 32, bits)
    wide = words.long().unsqueeze(dim + 1)
    shape = (-1, 1) if dim == 0 else (-1,)
    codes: Tensor = (wide >> shifts.view(shape)) & (2**bits - 1)
    return codes.flatten(dim, dim + 1)
