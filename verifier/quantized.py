"""Does a matrix lie on the grid of a quantization, and which? Stored as floats or in any other way.

A few rows tell. Quantization leaves few different values beside each other: at most 20 among any
32 consecutive entries of a row that are not zero, for four bits and fewer (zeros are left out:
with them every pruned matrix would look quantized); or whole multiples of one step, for eight.
Names are given where the structure of the blocks fits:

    Q4_0, Q5_0, Q8_0, Q3_K, Q6_K    blocks of 32 or 16 on multiples of their own step
    Q4_1, Q5_1, Q2_K, Q4_K          blocks of 32 or 16 on a step and an offset of their own
    NF4, FP4                        blocks of 64 on the 16 values of the type (QLoRA, appendix E)
    int8 per row, int8 per tensor, int4 group 64 …   one step per row, tensor or group
    F8_E4M3, F8_E5M2                every entry is one of that type, unscaled

ggml's blocks are those of llama.cpp's ``ggml-quants.c``; once widened, two of them can be alike,
and the plainer name is given. Imports torch.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

LEVELS = 20
WINDOW = 32
OFF_GRID = 0.10
COSINE = 0.90
ERRORS = 2.0
"""Root mean square error over what the grid's step explains; more is another matrix, quantized.

Rounding to the nearest has 1; what minimizes the error of outputs instead stays below 1.5."""

ROWS, WIDTH = 16, 2048
"""Rows looked at, and entries of each."""
MOST = 127
WINDOWS = 128
_SLACK = 0.02
_UNITS = ((torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11))
_FLOATS8 = (
    ("F8_E5M2", torch.float8_e5m2, 2, -14),
    ("F8_E4M3", torch.float8_e4m3fn, 3, -6),
)
"""Name, type, bits of the fraction, least exponent: OCP 8-bit Floating Point 1.0, table 1."""
_GROUPS = (128, 64, 32, 16)

NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""Dettmers et al. 2023, "QLoRA", appendix E."""
FP4 = tuple(s * v / 12 for s in (-1, 1) for v in (0, 0.0625, 2, 3, 4, 6, 8, 12))
MXFP4 = tuple(s * v / 6 for s in (-1, 1) for v in (0, 0.5, 1, 1.5, 2, 3, 4, 6))
"""OCP Microscaling Formats 1.0, section 5.3.3 (E2M1); NVFP4 has the same values."""
_USED = 12
"""Values of a codebook that a few rows use when they are of that type."""
_CODEBOOKS = {"NF4": (NF4, (64, 32)), "FP4": (FP4, (64,)), "MXFP4": (MXFP4, (32, 16))}


@dataclass(frozen=True, slots=True)
class Grid:
    """What a few rows say. ``levels``: different values in the usual window; None: no window.

    ``off_grid`` is the share of entries off the best grid of at most ±127 steps. ``scheme`` is a
    name, or "4-bit" and the like where the structure has none; None where nothing is quantized.
    ``noise`` is the mean squared error that the step explains, over the mean square.
    """

    levels: float | None
    off_grid: float
    scheme: str | None
    noise: float | None

    @property
    def is_quantized(self) -> bool:
        """Whether the values lie on few levels, or on a grid."""
        few = self.levels is not None and self.levels <= LEVELS
        return few or self.off_grid < OFF_GRID

    def explains(self, error: float | None) -> bool:
        """Tell whether rounding to this grid explains a relative mean squared ``error``."""
        if error is None or self.noise is None:
            return False
        return error <= ERRORS**2 * self.noise


@dataclass(slots=True)
class RowWatch:
    """Keeps a few rows of a matrix [R, C] while it streams by; secret rows, so that none is spared.

    ``rows`` is [n, min(C, WIDTH)] fp32 once the stream has ended.
    """

    name: str
    shape: Sequence[int]
    seed: bytes
    rows: Tensor = field(init=False)
    _starts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        height, columns = self.shape
        stream = hashlib.shake_256(self.seed + b"rows" + self.name.encode()).digest(8 * ROWS)
        drawn = {int.from_bytes(stream[n : n + 8], "little") % height for n in range(0, 128, 8)}
        picked = range(height) if height <= ROWS else sorted(drawn)
        self._starts = [row * columns for row in picked]
        self.rows = torch.zeros(len(self._starts), min(columns, WIDTH))

    def watch(self, stream: Iterator[Tensor]) -> Iterator[Tensor]:
        """Yield the blocks of ``stream`` as they are."""
        position, width = 0, self.rows.shape[1]
        for block in stream:
            end = position + len(block)
            for row, start in enumerate(self._starts):
                low, high = max(start, position), min(start + width, end)
                if low < high:
                    part = block[low - position : high - position]
                    self.rows[row, low - start : high - start] = part.float()
            yield block
            position = end


def look(rows: Tensor, *, stored: bool = False) -> Grid:
    """Return what rows [n, C] fp32 say about the grid of their matrix.

    ``stored``: the matrix says itself that it is quantized, so that only the noise is asked for.
    """
    if rows.shape[1] < WINDOW:
        return Grid(None, 1.0, None, None)
    unit = _unit_of(rows)
    levels = _levels(rows)
    if not bool(torch.isfinite(rows).all()) or not bool((rows != 0).any()):
        return Grid(levels, 1.0, None, None)
    off_grid = _off_grid(rows, unit)
    if not stored and not Grid(levels, off_grid, None, None).is_quantized:
        return Grid(levels, off_grid, None, None)
    scheme, noise = _name(rows, unit)
    noise = noise if noise is not None else _gaps(rows)
    if noise is not None and not math.isfinite(noise):  # squares beyond fp32
        noise = None
    return Grid(levels, off_grid, scheme, noise)


def _unit_of(rows: Tensor) -> float:
    """Return the relative rounding of the type that the values lie in."""
    for kind, unit in _UNITS:
        if bool((rows.to(kind).float() == rows).all()):
            return unit
    return 2.0**-23


def _levels(rows: Tensor) -> float | None:
    """Return the different values in the usual window of 32 entries that are not zero."""
    windows = []
    for row in rows:
        values = row[row != 0]
        whole = len(values) // WINDOW * WINDOW
        windows.append(values[:whole].view(-1, WINDOW))
    together = torch.cat(windows)
    if not len(together):
        return None
    ordered = together.sort(1).values
    return float((1 + (ordered[:, 1:] != ordered[:, :-1]).sum(1)).float().median())


def _blocks(rows: Tensor, size: int) -> Tensor:
    """Return [groups, size]: the rows cut into aligned groups; the rest of a row is left out."""
    columns = rows.shape[1] // size * size
    return rows[:, :columns].reshape(-1, size)


def _off_grid(rows: Tensor, unit: float) -> float:
    """Return the share of non-zero entries off the best grid of the blocks that hold them.

    Blocks of 16 have at most ±32 steps, as 6 bits allow: few entries fit finer ones by chance.
    """
    shares = [1.0]
    for size, most in ((WINDOW, MOST), (16, 32)):
        blocks = _blocks(rows, size)
        blocks = blocks[(blocks != 0).sum(1) * 2 > size]
        blocks = blocks[:: max(1, len(blocks) // WINDOWS)]
        if len(blocks):
            shares.append(float(_off_of_steps(blocks, unit, most).min(1).values.mean()))
    return min(shares)


def _off_of_steps(blocks: Tensor, unit: float, most: int) -> Tensor:
    """Return [blocks, most]: the share off the grid whose n-th multiple is the largest entry."""
    steps = torch.arange(1, most + 1, dtype=torch.float32)
    largest = blocks.abs().amax(1, keepdim=True)
    scaled = (blocks / largest)[:, None, :] * steps[None, :, None]
    off = _is_off(scaled, unit) & (blocks != 0)[:, None, :]
    return off.sum(2) / (blocks != 0).sum(1).clamp(min=1)[:, None]


def _is_off(scaled: Tensor, unit: float) -> Tensor:
    """Tell which entries, in steps, are no whole number, or are too small to be one."""
    nearest = scaled.round()
    slack = _SLACK + 2 * unit * nearest.abs()
    return ((scaled - nearest).abs() > slack) | (nearest == 0)


def _name(rows: Tensor, unit: float) -> tuple[str | None, float | None]:
    """Return the name of the scheme and the noise of its step, where a known one fits."""
    for name, kind, fraction, least in _FLOATS8:
        if unit > 2.0**-12 and bool((rows.to(kind).float() == rows).all()):
            exponents = rows.abs().log2().floor().clamp(min=least)
            squares = torch.exp2(2 * (exponents - fraction))
            return name, float(squares.sum() / 12 / rows.square().sum())
    for name, (values, sizes) in _CODEBOOKS.items():
        for size in sizes:
            noise = _codebook_noise(rows, size, torch.tensor(values), unit)
            if noise is not None:
                return name, noise
    fits = [fit for fit in (_symmetric(rows, unit), _affine(rows, unit)) if fit is not None]
    return min(fits)[1:] if fits else (None, None)


def _codebook_noise(rows: Tensor, size: int, values: Tensor, unit: float) -> float | None:
    """Return the noise of a codebook scaled to the largest entry of each block, if it fits."""
    blocks = _blocks(rows, size)
    if not len(blocks):
        return None
    scale = blocks.abs().amax(1, keepdim=True)
    blocks, scale = blocks[scale[:, 0] > 0], scale[scale[:, 0] > 0]
    ordered = torch.tensor(sorted(set(values.tolist())))
    at = torch.bucketize(blocks / scale, (ordered[1:] + ordered[:-1]) / 2)
    apart = (blocks / scale - ordered[at]).abs()
    if float((apart > 3 * unit * ordered[at].abs() + 1e-6).float().mean()) > OFF_GRID / 10:
        return None
    if (
        int((at.flatten().bincount() > 0).sum()) < _USED
    ):  # coarser grids lie on some of the values too
        return None
    gaps = torch.diff(ordered)
    widths = torch.cat((gaps[:1], (gaps[1:] + gaps[:-1]) / 2, gaps[-1:]))
    noise = (widths[at] * scale).square().sum() / 12 / blocks.square().sum()
    return float(noise)


def _symmetric(rows: Tensor, unit: float) -> tuple[float, str, float] | None:
    """Return bits an entry, name and noise of the grid through zero that takes the fewest bits."""
    best: tuple[float, str, float] | None = None
    for group in ("tensor", "row", *_GROUPS):
        found = _shared_steps(rows, group, unit)
        if found is None:
            continue
        steps, blocks = found
        counts = (blocks / steps).round()
        span = int((counts.amax(1) - counts.amin(1)).max())
        if group == 16 and span > 64:  # no scheme, and 16 rounded entries fit by chance
            continue
        cost = math.ceil(math.log2(span + 1)) + 16 / blocks.shape[1]
        noise = float(steps.square().sum() * blocks.shape[1] / 12 / blocks.square().sum())
        if best is None or cost < best[0]:
            best = cost, _symmetric_name(group, counts, span), noise
    return best


def _shared_steps(rows: Tensor, group: str | int, unit: float) -> tuple[Tensor, Tensor] | None:
    """Return the step [groups, 1] of each group and the groups, where all lie on their grids."""
    if group == "tensor":
        blocks = rows.reshape(1, -1)
    else:
        blocks = rows if group == "row" else _blocks(rows, int(group))
        blocks = blocks[:: max(1, len(blocks) // WINDOWS)]
    blocks = blocks[(blocks != 0).any(1)]
    if not len(blocks) or blocks.shape[1] < 2:
        return None
    steps = _steps(blocks, unit)
    off = _is_off(blocks / steps, unit) & (blocks != 0)
    on = float(off.sum() / (blocks != 0).sum()) < OFF_GRID / 2
    within = int((blocks / steps).round().abs().max()) <= MOST + 1
    return (steps, blocks) if on and within else None


def _steps(blocks: Tensor, unit: float) -> Tensor:
    """Return the largest step of each block that its entries are multiples of, [blocks, 1].

    The finest step among several windows of a block is that of the block: in one window alone all
    entries may be even.
    """
    size = min(64, blocks.shape[1])
    windows = blocks[:, : blocks.shape[1] // size * size].reshape(len(blocks), -1, size)
    windows = windows[:, :4].reshape(-1, size)
    most = MOST + 1
    off = torch.cat([_off_of_steps(part, unit, most) for part in torch.split(windows, 64)])
    good = off <= torch.maximum(off.min(1, keepdim=True).values, torch.tensor(0.02))
    first = good.float().argmax(1) + 1
    steps = windows.abs().amax(1) / first
    steps = torch.where(steps > 0, steps, torch.inf).view(len(blocks), -1)
    step = steps.amin(1, keepdim=True)
    return _refined(blocks, step)


def _refined(blocks: Tensor, step: Tensor) -> Tensor:
    """Return the steps by least squares over whole numbers: entries are rounded, many less so."""
    counts = (blocks / step).round()
    top = (blocks * counts).sum(1, keepdim=True)
    below = counts.square().sum(1, keepdim=True)
    return torch.where(below > 0, top / below.clamp(min=1), step)


def _symmetric_name(group: str | int, counts: Tensor, span: int) -> str:
    """Name a grid by its group and by how many codes it has."""
    most = int(counts.abs().max())
    reached = counts.abs().amax(1) >= (most if most < MOST else MOST - 1)
    reaches = float(reached.float().mean()) > 0.9
    if group == 32 and most >= MOST and reaches:
        return "Q8_0"
    if group == 32 and most in (8, 16) and reaches and _is_one_sided(counts, most):
        return "Q4_0" if most == 8 else "Q5_0"
    if group == 16 and most <= 32:
        return "Q3_K" if most <= 4 else "Q6_K"
    bits = next((bits for bits in (2, 3, 4, 5, 6) if span < 2**bits), 8)
    return f"int{bits} per {group}" if isinstance(group, str) else f"int{bits} group {group}"


def _is_one_sided(counts: Tensor, most: int) -> bool:
    """Tell whether no block reaches ±``most`` on both sides.

    ggml gives the entry of largest size the lowest code, whatever its sign.
    """
    both = (counts.amax(1) == most) & (counts.amin(1) == -most)
    return not bool(both.any())


def _affine(rows: Tensor, unit: float) -> tuple[float, str, float] | None:
    """Return the same of a grid with an offset: entries less the smallest of a block are on it."""
    for group, most in ((32, 15), (32, 31), (16, 3), (64, 15), (128, 15)):
        blocks = _blocks(rows, group)[:WINDOWS].double()
        blocks = blocks[blocks.amax(1) > blocks.amin(1)] if len(blocks) else blocks
        if not len(blocks):
            continue
        counts = _affine_counts(blocks, unit, most)
        if counts is None:
            continue
        steps = (blocks.amax(1) - blocks.amin(1)) / counts
        noise = float(steps.square().sum() * group / 12 / blocks.square().sum())
        plain = bool((counts == most).all()) and not _share_units(steps, unit)
        cost = math.log2(most + 1) + 32 / group
        return cost, _AFFINE.get((group, most, plain), f"int4 group {group}"), noise
    return None


_AFFINE = {
    (32, 15, True): "Q4_1",
    (32, 15, False): "Q4_K",
    (32, 31, True): "Q5_1",
    (32, 31, False): "Q5_K",
    (16, 3, True): "Q2_K",
    (16, 3, False): "Q2_K",
}
"""By group, codes, and whether every block has both ends and a step of its own."""


def _share_units(steps: Tensor, unit: float) -> bool:
    """Tell whether the steps of 8 neighbours are whole multiples of one, as in a K-quant's 256."""
    together = steps[: len(steps) // 8 * 8].view(-1, 8)
    if unit > 2.0**-9 or not len(together):  # bfloat16 is too coarse to tell
        return False
    counts = torch.arange(1, 64, dtype=torch.float64)
    scaled = (together / together.amax(1, keepdim=True))[:, None, :] * counts[None, :, None]
    off = (scaled - scaled.round()).abs() > _SLACK + 8 * unit * scaled
    return float((~off.any(2)).any(1).double().mean()) > 0.9


def _affine_counts(blocks: Tensor, unit: float, most: int) -> Tensor | None:
    """Return [blocks]: in how many steps each goes from its smallest to its largest entry."""
    low, span = blocks.amin(1, keepdim=True), (blocks.amax(1) - blocks.amin(1))[:, None]
    counts = torch.arange(1, most + 1, dtype=torch.float64)
    scaled = ((blocks - low) / span)[:, None, :] * counts[None, :, None]
    rounding = 2 * unit * blocks.abs().amax(1, keepdim=True) / span
    slack = _SLACK + rounding[:, :, None] * counts[None, :, None]
    good = ((scaled - scaled.round()).abs() > slack).double().mean(2) <= 0.02
    if float(good.any(1).double().mean()) < 1 - OFF_GRID / 2:
        return None
    return good.double().argmax(1) + 1.0


def _gaps(rows: Tensor) -> float | None:
    """Return the noise that the gaps between neighbouring values of a window explain."""
    blocks = _blocks(rows, WINDOW)
    ordered = blocks.sort(1).values
    gaps = torch.diff(ordered, dim=1)
    squares, counts = gaps.square().sum(1), (gaps > 0).sum(1).clamp(min=1)
    noise = (squares / counts * blocks.shape[1]).sum() / 12 / blocks.square().sum()
    return float(noise) if math.isfinite(float(noise)) else None
