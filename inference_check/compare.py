"""How far a copy's answers are from the published ones, and what that means.

Every statistic is relative to the spread of the position's own logits, so that one threshold serves
all models of one conditioning:

    logits      max |Δlogit| / std, over the published ids
    sketch      ‖Δsketch‖ / (4 std √V): an unbiased estimate of the error over the whole vocabulary
    logsumexp   |Δlogsumexp| / std

Signatures of the tensors (probes.py) are relative to each tensor's norm, independent of the model,
and must agree within 1e-5; they name the tensor that differs.

The threshold is max(1e-5, 10 eps64), not capped: on an ill-conditioned model two true copies differ
by as much as fp32 does from fp64, while a copy in 16-bit arithmetic sits a thousand times above
eps64 on any model. Where 10 eps64 is beyond 5e-3 the test says nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from verifier.rungs import bound_of, close_reason

from .answers import GROUP, LAYER_SKETCH, SKETCH, Answers
from .probes import in_model_order, place_of

if TYPE_CHECKING:
    from .reference import Reference

FLOOR = 1e-5
MARGIN = 10.0
SIGNED = 1e-5
TELLING = 5e-3
"""A threshold above this cannot tell a true copy from a rounded one."""


@dataclass(frozen=True, slots=True)
class Distances:
    """Distances between two runs. ``worst`` by statistic, over positions; ``layers`` [L + 1].

    ``kl`` is the divergence over the published ids and the rest, nats, at the worst position;
    ``top1`` the share of positions with the same likeliest id. ``signatures`` by tensor, in the
    order of the model. NaN wherever an answer is NaN.
    """

    worst: dict[str, float]
    positions: tuple[float, ...]
    layers: list[float]
    kl: float
    top1: float
    signatures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The status of a check, why, and the first place at which the streams part.

    ``first_tensor`` is the first that has not its published signature.
    """

    status: str
    reason: str
    first_layer: str | None
    threshold: float
    layer_thresholds: tuple[float, ...]
    first_tensor: str | None = None


def first_positions(answers: Answers, count: int) -> Answers:
    """Return the answers to the first ``count`` positions: causal, so they are the same."""
    return replace(
        answers,
        logsumexp=answers.logsumexp[:count],
        std=answers.std[:count],
        ids=answers.ids[:count],
        logits=answers.logits[:count],
        best=answers.best[:count],
        sketch=answers.sketch[:count],
        layers=answers.layers[:, : count // GROUP],
    )


def distances(published: Answers, found: Answers) -> Distances:
    """Return how far ``found`` is from ``published``; both answer the same questions."""
    spread = published.std
    logits = (found.logits - published.logits).abs().amax(1) / spread
    sketch = (found.sketch - published.sketch).norm(dim=1) / (
        math.sqrt(SKETCH * published.vocab) * spread
    )
    logsumexp = (found.logsumexp - published.logsumexp).abs() / spread
    apart = (found.layers - published.layers)[..., :LAYER_SKETCH].norm(dim=-1)
    layers = apart / (math.sqrt(LAYER_SKETCH) * published.layers[..., LAYER_SKETCH])
    return Distances(
        worst={
            "logits": float(logits.max()),
            "sketch": float(sketch.max()),
            "logsumexp": float(logsumexp.max()),
        },
        positions=tuple(torch.stack((logits, sketch, logsumexp)).amax(0).tolist()),
        layers=layers.amax(1).tolist() if layers.shape[1] else [0.0] * len(layers),
        kl=float(_divergence(published, found).max()),
        top1=float((published.best == found.best).double().mean()),
    )


def signature_distances(
    published: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> dict[str, float]:
    """Return how far each tensor's signature is from the published one, relative to its norm.

    A tensor that was not signed is infinitely far.
    """
    distances = {}
    for name in sorted(published, key=in_model_order):
        *sigma, norm = published[name]
        if name not in found:
            distances[name] = math.inf
            continue
        apart = float((found[name] - torch.stack(sigma)).norm()) / math.sqrt(len(sigma))
        distances[name] = apart / float(norm) if norm else (0.0 if apart == 0 else math.inf)
    return distances


def first_not_finite(found: Mapping[str, Tensor]) -> str | None:
    """Say which tensor holds NaN or Infinity, from the signatures made so far; None for none."""
    names = (name for name, sigma in found.items() if not bool(torch.isfinite(sigma).all()))
    first = min(names, key=in_model_order, default=None)
    return None if first is None else place_of(first)


def judge(reference: "Reference", found: Distances, rung: str | None = None) -> Judgement:
    """Say what distances mean; ``rung`` is what the weights check named, ``cast:bf16-rne`` say.

    NaN is never within a threshold.
    """
    threshold = max(FLOOR, MARGIN * reference.eps64)
    limits = tuple(max(FLOOR, MARGIN * eps) for eps in reference.layers_eps64)
    telling = MARGIN * reference.eps64 <= TELLING
    parted = [
        place
        for place, (apart, limit) in enumerate(zip(found.layers, limits, strict=True))
        if not apart <= limit and limit <= TELLING
    ]
    beyond = telling and any(not value <= threshold for value in found.worst.values())
    others = [name for name, apart in found.signatures.items() if not apart <= SIGNED]
    first = _place(parted[0]) if parted else "the output head" if beyond else None
    tensor = place_of(others[0]) if others else None

    def judgement(status: str, reason: str) -> Judgement:
        return Judgement(status, reason, first, threshold, limits, tensor)

    if not parted and not beyond and not others:
        if telling:
            return judgement("agrees", "")
        return judgement(
            "inconclusive",
            f"fp32 itself is {reference.eps64:.1e} from fp64 on this model; its logits cannot tell",
        )
    bound = bound_of(rung, reference.eps64)
    if bound is not None and all(value <= bound for value in found.worst.values()):
        return judgement("close", close_reason(str(rung), bound))
    return judgement("disagrees", _disagreement(found, parted, beyond, others, limits))


def _disagreement(
    found: Distances,
    parted: Sequence[int],
    beyond: bool,
    others: Sequence[str],
    limits: Sequence[float],
) -> str:
    """Say where the answers part, how far, and whose fault it is."""
    if not parted and not beyond:
        many = f", and {len(others) - 1} others" if len(others) > 1 else ""
        return (
            f"{place_of(others[0])}{many} has other values than the published one, though no "
            "answer to these tokens shows it"
        )
    worst = max(found.worst, key=lambda name: _or_infinite(found.worst[name]))
    apart, what = found.worst[worst], f"the distance of the {worst}"
    where = "the output head"
    if parted:
        where = _place(parted[0])
    if parted and not beyond:
        apart, what = found.layers[parted[0]], "the distance of its activations"
    said = f"its answers part from the published ones at {where}; {what} is {apart:.1e}"
    if others:
        named = place_of(others[0])
        return f"{said}; the first tensor with other values is {named}"
    if found.signatures:
        return (
            f"{said}, though every tensor has the published values: its config differs, in the "
            "rotary base or the norms' epsilon perhaps"
        )
    return f"{said}, and {limits[parted[0]] if parted else FLOOR:.1e} is allowed"


def _place(index: int) -> str:
    return "the embedding" if index == 0 else f"layer {index - 1}"


def _or_infinite(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _divergence(published: Answers, found: Answers) -> Tensor:
    """Return KL(published ‖ found) per position, over the published ids and all others as one."""
    p = (published.logits - published.logsumexp[:, None]).exp()
    q = (found.logits - found.logsumexp[:, None]).exp()
    rest_p, rest_q = ((1 - x.sum(1, keepdim=True)).clamp(min=1e-12) for x in (p, q))
    p, q = torch.cat((p, rest_p), 1), torch.cat((q, rest_q), 1)
    return (p * (p.log() - q.log())).sum(1).clamp(min=0)


def layer_rows(found: Distances, limits: Sequence[float]) -> list[dict[str, object]]:
    """Return the layers' part of the report: name, distance, threshold."""
    return [
        {"layer": _place(place), "distance": finite_or_none(apart), "threshold": limit}
        for place, (apart, limit) in enumerate(zip(found.layers, limits, strict=True))
    ]


def statistics(found: Distances) -> dict[str, float | None]:
    """Return the statistics of the report; None stands for NaN, which JSON does not have."""
    worst = {name: finite_or_none(value) for name, value in found.worst.items()}
    if found.signatures:
        values = map(_or_infinite, found.signatures.values())
        worst["signatures"] = finite_or_none(max(values))
    return worst | {"kl": finite_or_none(found.kl), "top1": finite_or_none(found.top1)}


def signature_rows(found: Distances, most: int = 20) -> list[dict[str, object]]:
    """Return the tensors' part of the report: those that differ, the first ``most`` of them."""
    rows: list[dict[str, object]] = [
        {"tensor": name, "distance": finite_or_none(apart), "threshold": SIGNED}
        for name, apart in found.signatures.items()
        if not apart <= SIGNED
    ]
    return rows[:most]


def finite_or_none(value: float) -> float | None:
    """Return a number as JSON can hold it, None for NaN and Infinity."""
    return value if math.isfinite(value) else None
