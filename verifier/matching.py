"""Tensors under names that no table knows, matched to official ones by shape and sketch.

Only what names do not explain is looked at: tensors of the copy whose name is not official, or
whose values are nothing like those of that name, against official tensors that nothing answers to.
A matrix answers to the one that its entries at that one's secret places resemble most, beyond
chance; a vector to one whose sampled entries it holds exactly. Imports torch.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import blocks, packed, significance
from . import sketch as sketches
from .layouts import LogicalTensor
from .lineage import DERIVED_COSINE
from .tensor_check import is_telling_matrix

MAX_CANDIDATES = 1024
"""Official tensors of one shape that a tensor is compared with; the rest of them is left out."""
LOG_P = math.log(1e-6)
"""Of a match by chance, over all candidates."""


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Official tensors of one shape: their entries [M, S] at their places [M, S]."""

    names: tuple[str, ...]
    places: Tensor
    entries: Tensor


def match(
    root: Path,
    pool: Sequence[LogicalTensor],
    free: Sequence[str],
    official: Mapping[str, Mapping[str, Any]],
    sketch: Mapping[str, Any],
) -> dict[int, str]:
    """Return the official name among ``free`` that each tensor of ``pool``, by its index, answers to.

    Raises:
        ReadError: a file cannot be read.
        ManifestError: the sketch is malformed.
    """
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name in free:
        by_shape.setdefault(tuple(official[name]["shape"]), []).append(name)
    seed = bytes.fromhex(sketch["seed"])
    known: dict[tuple[int, ...], _Candidates] = {}
    likely: list[tuple[float, int, str]] = []
    for index, tensor in enumerate(pool):
        shape = tensor.shape
        if shape not in by_shape:
            continue
        if shape not in known:
            known[shape] = _candidates(by_shape[shape], shape, sketch, seed)
        likely += [(like, index, name) for like, name in _likely(root, tensor, known[shape])]
    matched: dict[int, str] = {}
    for _, index, name in sorted(likely, key=lambda found: -found[0]):
        if index not in matched and name not in matched.values():
            matched[index] = name
    return matched


def _candidates(
    names: Sequence[str], shape: tuple[int, ...], sketch: Mapping[str, Any], seed: bytes
) -> _Candidates:
    """Load the sketches of official tensors of one shape, those that have one."""
    count = math.prod(shape)
    found = {name: sketches.load(sketch, name) for name in names[:MAX_CANDIDATES]}
    size = 4 * min(count, sketches.SAMPLES)
    made = {n: one for n, one in found.items() if one is not None and len(one.samples) == size}
    if not made:
        return _Candidates((), torch.empty(0, 0, dtype=torch.int64), torch.empty(0, 0))
    return _Candidates(
        tuple(made),
        torch.tensor([sketches.places_of(name, count, seed) for name in made]),
        torch.stack([sketches.entries_of(one) for one in made.values()]),
    )


def _likely(
    root: Path, tensor: LogicalTensor, candidates: _Candidates
) -> Iterator[tuple[float, str]]:
    """Yield the official tensors that ``tensor`` may be, each with how alike they are."""
    if not candidates.names or (
        tensor.dtype in sketches.INTEGERS and not isinstance(tensor, packed.Packed)
    ):
        return
    with blocks.Files(root, tensor.paths) as files:
        own = _gather(packed.stream(files, tensor), candidates.places)
    if not is_telling_matrix(tensor.shape):
        same = (own == candidates.entries).all(1)
        yield from ((1.0, name) for name, yes in zip(candidates.names, same, strict=True) if yes)
        return
    norms = own.norm(dim=1) * candidates.entries.norm(dim=1)
    cosines = (own * candidates.entries).sum(1) / norms
    bound = LOG_P - math.log(len(candidates.names))
    for number in (cosines >= DERIVED_COSINE).nonzero()[:, 0].tolist():
        products = own[number] * candidates.entries[number]
        places = candidates.places[number]
        groups = (places // tensor.shape[1], places % tensor.shape[1])
        if max(significance.log_p_of_signs(products, group) for group in groups) <= bound:
            yield float(cosines[number]), candidates.names[number]


def _gather(stream: Iterator[Tensor], places: Tensor) -> Tensor:
    """Return the entries of a stream at ``places``, in their shape, fp64."""
    ordered, order = places.flatten().sort()
    found = torch.empty(len(ordered), dtype=torch.float64)
    position = 0
    for block in stream:
        span = torch.tensor([position, position + len(block)])
        low, high = (int(n) for n in torch.searchsorted(ordered, span))
        found[low:high] = block[ordered[low:high] - position].double()
        position += len(block)
    result = torch.empty_like(found)
    result[order] = found
    return result.view(places.shape)
