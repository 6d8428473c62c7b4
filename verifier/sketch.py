"""A sketch of each tensor that stays with the portal: evidence of descent without the weights.

Per tensor: 1,024 entries at secret places, and a 1,024-bit SimHash (Charikar 2002), whose share of
differing bits is the angle between two tensors over π. The tensor is first folded into 4,096 sums
with secret signs (a count sketch: Charikar, Chen, Farach-Colton 2002), which keeps inner products
and needs one pass; the planes then cut the sums. Everything random comes from SHAKE-256 of the
secret. Whoever knows it could leave just the sampled entries alone: it is given to nobody lightly.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ManifestError
from .layouts import LogicalTensor, arrange, published_names
from .readers import TensorEntry, is_weight_file, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES = 1024
BITS = 1024
INTEGERS = frozenset(["I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"])
"""Types of which no sketch is made; every other one, quantized blocks too, decodes to floats."""
FOLDS = 4096
SCHEMA = 1
KEPT = 2**-7
"""Relative error below which an entry may be the official one in a 16-bit type."""
_STEP = 256 * FOLDS
"""Entries folded at once; signs are drawn per step, so it is part of the format."""

MALFORMED = "The sketch is not well-formed; ask the portal for a new one."


@dataclass(frozen=True, slots=True)
class TensorSketch:
    """Entries at the secret places of one tensor, fp32, and its SimHash."""

    samples: bytes
    simhash: bytes


@dataclass(frozen=True, slots=True)
class Likeness:
    """What two sketches say. ``cosine`` over samples, ``hamming`` the share of differing bits.

    ``centred_cosine`` is without the means of the samples; both are None where a side is zero.
    ``differing`` of ``samples`` entries are not equal; ``zeroed`` became zero, ``kept`` are the
    official ones within the rounding of any 16-bit type. ``equal_bits`` is the share of equal
    ones among the upper 16 bits of the entries as fp32, those that every float type keeps.
    ``error`` is the mean squared difference over the official mean square, None without one.
    """

    cosine: float | None
    hamming: float
    differing: int
    samples: int
    centred_cosine: float | None = None
    zeroed: int = 0
    kept: int = 0
    equal_bits: float = 0.0
    error: float | None = None


def make(root: Path, files: Sequence[str], secret: bytes) -> dict[str, Any]:
    """Return the sketch of the checkpoint whose weight files are ``files``.

    Raises:
        ReadError: a file cannot be read, or its tensors cannot be arranged.
    """
    from . import blocks

    entries: list[TensorEntry] = []
    for path in files:
        if is_weight_file(path):
            entries += read_tensors(root, path)
    sets, problems = arrange(root, entries)
    if problems:
        raise problems[0]
    seed = hmac.new(secret, b"wb-sketch-v1", hashlib.sha256).digest()
    tensors: dict[str, Any] = {}
    for name, tensor in published_names(sets).items():
        with blocks.Files(root, tensor.paths) as opened:
            made = sketch_of(name, tensor, blocks.stream(opened, tensor), seed)
        if made is not None:
            tensors[name] = {
                "samples": base64.b64encode(made.samples).decode(),
                "simhash": base64.b64encode(made.simhash).decode(),
            }
    return {"schema": SCHEMA, "seed": seed.hex(), "tensors": tensors}


def sketch_of(
    name: str, tensor: LogicalTensor, stream: Iterator[Tensor], seed: bytes
) -> TensorSketch | None:
    """Sketch the stream of one floating-point tensor in one pass; None for integers and nothing."""
    import torch

    from .blocks import widen

    count = math.prod(tensor.shape)
    if tensor.dtype in INTEGERS or count == 0:
        return None
    places = torch.tensor(places_of(name, count, seed))
    samples = torch.empty(len(places))
    sums = torch.zeros(FOLDS, dtype=torch.float64)
    for position, values in _steps(stream):
        wide = widen(values).to(torch.float32)
        low, high = (
            int(n) for n in torch.searchsorted(places, torch.tensor([0, len(wide)]) + position)
        )
        samples[low:high] = wide[places[low:high] - position]
        sums += _fold(wide, _signs(name, position // _STEP, len(wide), seed))
    above = (_planes(seed) @ sums.to(torch.float32)) > 0
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128])
    packed = (above.view(-1, 8) * weights).sum(1).to(torch.uint8)
    return TensorSketch(samples.numpy().astype("<f4").tobytes(), packed.numpy().tobytes())


def load(sketch: Mapping[str, Any], name: str) -> TensorSketch | None:
    """Return the published sketch of one tensor.

    Raises:
        ManifestError: the sketch is malformed.
    """
    try:
        found = sketch["tensors"].get(name)
        if found is None:
            return None
        made = TensorSketch(
            base64.b64decode(found["samples"], validate=True),
            base64.b64decode(found["simhash"], validate=True),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ManifestError(MALFORMED) from None
    if len(made.simhash) != BITS // 8 or len(made.samples) % 4 or len(made.samples) > 4 * SAMPLES:
        raise ManifestError(MALFORMED)
    return made


def compare(official: TensorSketch, copy: TensorSketch) -> Likeness:
    """Return how alike two tensors of one shape are."""
    import torch

    one, two = entries_of(official), entries_of(copy)
    same = (one == two) | (one.isnan() & two.isnan())
    zeroed = (two == 0) & (one != 0)
    kept = same | ((one - two).abs() <= KEPT * one.abs())
    patterns = [(x.float().view(torch.int32) >> 16) & 0xFFFF for x in (one, two)]
    unequal = _bits((patterns[0] ^ patterns[1]).to(torch.int16).numpy().tobytes()) > 0
    bits = int.from_bytes(official.simhash, "big") ^ int.from_bytes(copy.simhash, "big")
    energy = float(one.square().sum())
    error = float((one - two).square().sum()) / energy if 0 < energy < math.inf else None
    return Likeness(
        cosine=_cosine(one, two),
        hamming=bits.bit_count() / BITS,
        differing=int((~same).sum()),
        samples=len(one),
        centred_cosine=_cosine(one - one.mean(), two - two.mean()),
        zeroed=int(zeroed.sum()),
        kept=int((kept & ~zeroed).sum()),
        equal_bits=1 - float(unequal.double().mean()),
        error=error if error is not None and math.isfinite(error) else None,
    )


def entries_of(sketch: TensorSketch) -> Tensor:
    """Return the sampled entries, fp64."""
    import torch

    return torch.frombuffer(bytearray(sketch.samples), dtype=torch.float32).double()


def _cosine(one: Tensor, two: Tensor) -> float | None:
    norms = float(one.norm() * two.norm())
    return float(one @ two) / norms if 0 < norms < math.inf else None


@functools.lru_cache(maxsize=1)
def _planes(seed: bytes) -> Tensor:
    return _bits(hashlib.shake_256(seed + b"planes").digest(BITS * FOLDS // 8)).view(BITS, FOLDS)


def places_of(name: str, count: int, seed: bytes) -> list[int]:
    """Return sorted places of the sampled entries, all of them where there are no more."""
    if count <= SAMPLES:
        return list(range(count))
    stream = hashlib.shake_256(seed + b"places" + name.encode()).digest(8 * SAMPLES)
    return sorted(int.from_bytes(stream[n : n + 8], "little") % count for n in range(0, 8192, 8))


def _signs(name: str, step: int, count: int, seed: bytes) -> Tensor:
    stream = hashlib.shake_256(seed + b"signs" + step.to_bytes(8, "little") + name.encode())
    return _bits(stream.digest(-(-count // 8)))[:count]


def _bits(data: bytes) -> Tensor:
    """Return one ±1 (fp32) per bit of ``data``, lowest bit first."""
    import torch

    packed = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    return bits.flatten().to(torch.float32) * 2 - 1


def _fold(values: Tensor, signs: Tensor) -> Tensor:
    """Sum signed entries by their place modulo ``FOLDS``, fp64."""
    import torch

    signed = torch.nan_to_num(values, posinf=0.0, neginf=0.0) * signs
    padded = torch.nn.functional.pad(signed, (0, -len(signed) % FOLDS))
    return padded.view(-1, FOLDS).sum(0, dtype=torch.float64)


def _steps(stream: Iterator[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Cut a stream of blocks of any size into steps of ``_STEP``, with the place of each."""
    import torch

    waiting: list[Tensor] = []
    held = position = 0
    for block in stream:
        waiting.append(block)
        held += len(block)
        if held < _STEP:
            continue
        joined = torch.cat(waiting) if len(waiting) > 1 else block
        whole = held - held % _STEP
        for start in range(0, whole, _STEP):
            yield position, joined[start : start + _STEP]
            position += _STEP
        waiting, held = [joined[whole:]], held - whole
    if held:
        yield position, torch.cat(waiting)
