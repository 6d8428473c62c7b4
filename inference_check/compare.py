"""How far a copy's answers are from the published ones, and what that means.

Every statistic is relative to the spread of the position's own logits, so that one threshold serves
all models of one conditioning:

    logits      max |Δlogit| / std, over the published ids
    sketch      ‖Δsketch‖ / (4 std √V): an unbiased estimate of the error over the whole vocabulary
    logsumexp   |Δlogsumexp| / std

The threshold is max(1e-5, 10 eps64), not capped: on an ill-conditioned model two true copies differ
by as much as fp32 does from fp64, while a copy in 16-bit arithmetic sits a thousand times above
eps64 on any model. Where 10 eps64 is beyond 5e-3 the test says nothing.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .answers import GROUP, LAYER_SKETCH, SKETCH, Answers

if TYPE_CHECKING:
    from .reference import Reference

FLOOR = 1e-5
MARGIN = 10.0
TELLING = 5e-3
"""A threshold above this cannot tell a true copy from a rounded one."""

UNIT32 = 2.0**-24
_UNITS = {"cast:fp16-rne": 2.0**-11, "cast:bf16-rne": 2.0**-8, "cast:bf16-trunc": 2.0**-7}
_BITS = re.compile(r"quantized:\D*([2-8])(?!\d)")
WIDEST_BOUND = 1.0
"""Beyond one standard deviation of the logits nothing is close, whatever the rung."""


@dataclass(frozen=True, slots=True)
class Distances:
    """Distances between two runs. ``worst`` by statistic, over positions; ``layers`` [L + 1].

    ``kl`` is the divergence over the published ids and the rest, nats, at the worst position;
    ``top1`` the share of positions with the same likeliest id. NaN wherever an answer is NaN.
    """

    worst: dict[str, float]
    positions: tuple[float, ...]
    layers: list[float]
    kl: float
    top1: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """The status of a check, why, and the first place at which the streams part."""

    status: str
    reason: str
    first_layer: str | None
    threshold: float
    layer_thresholds: tuple[float, ...]


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
    worst = max(found.worst, key=lambda name: _or_infinite(found.worst[name]))
    beyond = telling and any(not value <= threshold for value in found.worst.values())
    first = _place(parted[0]) if parted else "the output head" if beyond else None

    def judgement(status: str, reason: str) -> Judgement:
        return Judgement(status, reason, first, threshold, limits)

    if not parted and not beyond:
        if telling:
            return judgement("agrees", "")
        return judgement(
            "inconclusive",
            f"fp32 itself is {reference.eps64:.1e} from fp64 on this model; its logits cannot tell",
        )
    bound = bound_of(rung, reference.eps64)
    if bound is not None and all(value <= bound for value in found.worst.values()):
        return judgement(
            "close",
            f"computes alike within the error of {rung}, {bound:.1e} of the logits' spread; "
            "these are not the official values",
        )
    apart, limit, what = found.worst[worst], threshold, f"the distance of the {worst}"
    if not beyond:
        place = parted[0]
        apart, limit, what = found.layers[place], limits[place], "the distance of its activations"
    return judgement(
        "disagrees",
        f"its answers part from the published ones at {first}; {what} is {apart:.1e}, "
        f"and {limit:.1e} is allowed",
    )


def bound_of(rung: str | None, eps64: float) -> float | None:
    """Return the error that a cast or quantization may have, relative to the logits' spread.

    A model carries rounding of its weights through the layers as it carries rounding of fp32: by
    the ratio of the unit roundoffs, 2⁻²⁴ to that of the type. None where no rung was named.
    """
    if rung is None:
        return None
    unit = _UNITS.get(rung)
    if unit is None:
        bits = _BITS.match(rung)
        if bits is None:
            return None
        unit = 2.0 ** -int(bits.group(1))
    return min(WIDEST_BOUND, max(eps64, UNIT32) * unit / UNIT32)


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
    return worst | {"kl": finite_or_none(found.kl), "top1": finite_or_none(found.top1)}


def finite_or_none(value: float) -> float | None:
    """Return a number as JSON can hold it, None for NaN and Infinity."""
    return value if math.isfinite(value) else None
