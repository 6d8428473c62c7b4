"""Descent behind a disguise: channels permuted, rotated or rescaled, norms folded into matrices.

Who has the official weights can compare what no such change touches. E are the embeddings of some
tokens, rows scaled to unit length; g the gain of the norm before a layer; r the rows of all heads:

    attention scores    E · (W_q diag g)ᵀ (W_k diag g) · Eᵀ     (Zeng et al. 2024, "HuRef")
    value and output    E · (W_v diag g)ᵀ W_oᵀ · Eᵀ
    output head         min over orthogonal Q of the distance of W_head diag g and that of the copy

Turning the residual stream by any orthogonal matrix changes E, the matrices that read and those
that write it so that it cancels; so do permuted heads and channels, and scales that go from q to k
or from v to o. RMSNorm, whose gains are folded away, commutes with all of them. The cosine of each
between official weights and copy, means taken away, is a statistic. Its null is *measured*: the
same statistic with the tokens of the copy shuffled. Two of three decide.

Nothing is found where the tokens themselves were renumbered. Imports torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

from .layouts import EMBEDDING, HEAD

THRESHOLD = 0.5
"""Of a statistic less its null, over what a perfect match has above its null."""
NEEDED = 2
TOKENS = 512
SHUFFLES = 16
_FINAL_NORM = "model.norm.weight"
_LAYER = "model.layers.{}."

RANK_SHARE, RANK_ENERGY = 1 / 16, 0.95
"""A change is of low rank when so few of the directions have so much of its energy."""
MATRICES = 24

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Statistic:
    """A cosine, with the mean and the largest of its shuffled versions; None where it has none."""

    name: str
    value: float
    null_mean: float
    null_largest: float

    @property
    def excess(self) -> float:
        """What is left of the value above its null, 1 for a perfect match."""
        return (self.value - self.null_mean) / max(1 - self.null_mean, 1e-6)

    @property
    def holds(self) -> bool:
        """Whether it is past the threshold, and above every shuffled one."""
        return (
            self.value >= THRESHOLD and self.excess >= THRESHOLD and self.value > self.null_largest
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """The statistics that could be computed; ``disguised`` where two of them hold."""

    statistics: tuple[Statistic, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def disguised(self) -> bool:
        """Whether the copy descends from the official weights behind a disguise."""
        return sum(statistic.holds for statistic in self.statistics) >= NEEDED

    def as_json(self) -> dict[str, Any]:
        """Return what a report shows."""
        return {
            "disguised": self.disguised,
            "statistics": {
                s.name: {
                    "value": s.value,
                    "null_mean": s.null_mean,
                    "null_largest": s.null_largest,
                    "excess": s.excess,
                    "holds": s.holds,
                }
                for s in self.statistics
            },
            "thresholds": {"excess": THRESHOLD, "value": THRESHOLD, "needed": NEEDED},
            "how": f"null: the tokens of the copy shuffled, {SHUFFLES} times",
            "sources": [
                "Zeng et al. 2024, HuRef: HUman-REadable Fingerprint for LLMs",
                "Schoenemann 1966, A generalized solution of the orthogonal Procrustes problem",
            ],
            "notes": list(self.notes),
        }


def disguised(official: Tensors, copy: Tensors, head_width: int | None = None) -> Evidence:
    """Compare what permutations, rotations, scales and folded norms leave as it is.

    Tensors come under canonical names; they are asked for one layer at a time, so that a mapping
    may read them then. ``head_width`` is needed where several queries share a key.
    """
    if EMBEDDING not in official or EMBEDDING not in copy:
        return Evidence((), ("There is no embedding to compare by.",))
    generator = torch.Generator().manual_seed(0)
    count = min(len(official[EMBEDDING]), len(copy[EMBEDDING]))
    tokens = torch.linspace(0, count - 1, min(count, TOKENS)).long()
    shuffles = [torch.randperm(len(tokens), generator=generator) for _ in range(SHUFFLES)]
    ours, theirs = (_directions(side[EMBEDDING][tokens]) for side in (official, copy))
    found: dict[str, list[tuple[float, list[float]]]] = {"scores": [], "values": []}
    layer = 0
    while _has_layer(official, layer) and _has_layer(copy, layer):
        one = _of_layer(official, layer, ours, head_width)
        two = _of_layer(copy, layer, theirs, head_width)
        for name in one.keys() & two.keys():
            null = [_cosine(one[name], two[name][order][:, order]) for order in shuffles]
            found[name].append((_cosine(one[name], two[name]), null))
        layer += 1
    statistics = [_over_layers(name, layers) for name, layers in found.items() if layers]
    head = _head(official, copy, count, generator)
    notes = [] if statistics else ["The heads of attention could not be compared."]
    return Evidence((*statistics, *([head] if head else [])), tuple(notes))


def is_low_rank(official: Tensor, copy: Tensor) -> bool | None:
    """Tell whether the change of a matrix is of low rank, as a merged LoRA adapter's is.

    None where there is no change beyond the rounding of the copy's type.
    """
    change = (copy.double() - official.double()).float()
    energy = float(change.square().sum())
    unit = {torch.bfloat16: 2.0**-9, torch.float16: 2.0**-12}.get(copy.dtype, 2.0**-25)
    rounding = float(copy.double().square().sum()) * unit**2 / 3
    if energy <= 4 * rounding:
        return None
    rank = max(1, int(RANK_SHARE * min(change.shape)))
    _, largest, _ = torch.svd_lowrank(change, min(2 * rank, *change.shape), niter=4)
    top = float(largest[:rank].square().sum())
    return top >= RANK_ENERGY * (energy - rounding)


def share_of_low_rank(official: Tensors, copy: Tensors) -> float | None:
    """Return the share of the changed matrices whose change is of low rank; None: none changed.

    At most ``MATRICES`` of them, through the whole model, are looked at.
    """
    shared = [name for name in official if name in copy]
    step = max(1, len(shared) // (2 * MATRICES))
    found: list[bool] = []
    for name in shared[::step]:
        one, two = official[name], copy[name]
        if len(found) < MATRICES and one.dim() == 2 and one.shape == two.shape:
            is_low = is_low_rank(one, two)
            found += [] if is_low is None else [is_low]
    return fmean(found) if found else None


def _has_layer(tensors: Tensors, layer: int) -> bool:
    needed = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    return all(f"{_LAYER.format(layer)}{name}.weight" in tensors for name in needed)


def _directions(rows: Tensor) -> Tensor:
    """Return rows of unit length: what RMSNorm makes of an embedding, but for a constant."""
    wide = rows.float()
    lengths: Tensor = wide.norm(dim=1, keepdim=True)
    return wide / lengths.clamp(min=1e-12)


def _of_layer(
    tensors: Tensors, layer: int, embedded: Tensor, head_width: int | None
) -> dict[str, Tensor]:
    """Return the two invariants of one layer, [tokens, tokens], centred."""
    at = _LAYER.format(layer)
    gain = tensors.get(f"{at}input_layernorm.weight")
    folded = embedded if gain is None else embedded * gain.float()
    q, k, v = (folded @ tensors[f"{at}self_attn.{name}_proj.weight"].float().T for name in "qkv")
    o = embedded @ tensors[f"{at}self_attn.o_proj.weight"].float()
    if q.shape[1] != k.shape[1]:
        if head_width is None or k.shape[1] % head_width or q.shape[1] % k.shape[1]:
            return {}
        k, v = (_shared(side, head_width, q.shape[1]) for side in (k, v))
    return {"scores": _centred(q @ k.T), "values": _centred(v @ o.T)}


def _shared(side: Tensor, head_width: int, width: int) -> Tensor:
    """Repeat each key or value head for the queries that share it (Ainslie et al. 2023)."""
    heads = side.view(len(side), -1, head_width)
    repeated: Tensor = heads.repeat_interleave(width // side.shape[1], 1)
    return repeated.reshape(len(side), width)


def _centred(matrix: Tensor) -> Tensor:
    """Take row and column means away: common tokens are alike in models that are not."""
    rows = matrix - matrix.mean(1, keepdim=True)
    return rows - rows.mean(0, keepdim=True)


def _cosine(one: Tensor, two: Tensor) -> float:
    norms = float(one.norm() * two.norm())
    return float((one * two).sum()) / norms if norms > 0 else 0.0


def _over_layers(name: str, layers: Sequence[tuple[float, list[float]]]) -> Statistic:
    """Return the median over layers, and of each shuffle."""
    null = [median(values) for values in zip(*(null for _, null in layers), strict=True)]
    return Statistic(name, median(value for value, _ in layers), fmean(null), max(null))


def _head(
    official: Tensors, copy: Tensors, count: int, generator: torch.Generator
) -> Statistic | None:
    """Return how alike the output heads are after the best rotation (Schoenemann 1966)."""
    ours, theirs = (_folded_head(side, count) for side in (official, copy))
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return None
    draws = 2 if ours.shape[1] > 1024 else 8  # each costs a decomposition
    orders = [torch.randperm(len(ours), generator=generator) for _ in range(draws)]
    null = [_aligned(ours, theirs[order]) for order in orders]
    return Statistic("head", _aligned(ours, theirs), fmean(null), max(null))


def _folded_head(tensors: Tensors, count: int) -> Tensor | None:
    """Return the output head with the last norm folded in, centred; a tied head is the embedding."""
    head = tensors.get(HEAD, tensors.get(EMBEDDING))
    if head is None or len(head) < count:
        return None
    gain = tensors.get(_FINAL_NORM)
    folded = head[:count].float() if gain is None else head[:count].float() * gain.float()
    return folded - folded.mean(0, keepdim=True)


def _aligned(one: Tensor, two: Tensor) -> float:
    """Return the cosine after the best rotation: the nuclear norm of the product, over the norms."""
    product = (one.T @ two).double()
    squares = torch.linalg.eigvalsh(product.T @ product).clamp(min=0)
    norms = float(one.double().norm() * two.double().norm())
    return float(squares.sqrt().sum()) / norms if norms > 0 else 0.0
