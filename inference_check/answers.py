"""What a run leaves behind: a few numbers per position, and a few per layer.

The logits [T, V] are never held: each slice of the vocabulary goes into running sums as the output
head streams by. A sketch Σ ±logit tells of errors in entries that nobody asked for: its mean
square is the error over the whole vocabulary.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .signs import ManySigns, signs

SKETCH = 16
LAYER_SKETCH = 4
GROUP = 4
"""Positions whose activations share one sketch after each layer."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Per position, fp64 on the CPU, T positions and k asked or leading ids.

    ``logsumexp``, ``std`` [T] of all logits; ``ids``, ``logits`` [T, k]; ``best`` [T] the likeliest
    id; ``sketch`` [T, 16]. ``layers`` [L + 1, T / 4, 5]: embedding and layers, groups of positions,
    a sketch of four and the norm.
    """

    vocab: int
    logsumexp: Tensor
    std: Tensor
    ids: Tensor
    logits: Tensor
    best: Tensor
    sketch: Tensor
    layers: Tensor


@dataclass(slots=True)
class LayerWatch:
    """Sketches the residual stream after each layer: Σ over four positions and all channels."""

    seed: str
    found: list[Tensor] = field(default_factory=list)
    _channels: Tensor | None = None
    _positions: Tensor | None = None

    def __call__(self, layer: int, x: Tensor) -> None:
        """Add the sketch of x [T, D]; positions beyond the last whole group are left out."""
        groups = len(x) // GROUP
        x = x[: groups * GROUP].double().cpu()
        if self._channels is None or self._positions is None:
            self._channels = signs("channels", self.seed, LAYER_SKETCH, x.shape[1]).double()
            self._positions = signs("positions", self.seed, len(x), 1).double()
        sums = (x @ self._channels.T * self._positions).view(groups, GROUP, -1).sum(1)
        norms = x.view(groups, -1).norm(dim=1, keepdim=True)
        self.found.append(torch.cat((sums, norms), 1))


class Head:
    """Takes logits slice by slice; ``asked`` [T, k] are the ids whose logits to keep, or none."""

    def __init__(self, seed: str, positions: int, vocab: int, asked: Tensor | None) -> None:
        self.vocab, self.asked = vocab, asked
        self._signs = ManySigns("logits", seed, vocab, SKETCH)
        self._most = torch.full((positions,), -math.inf, dtype=torch.float64)
        self._exps = torch.zeros(positions, dtype=torch.float64)
        self._sum = torch.zeros(positions, dtype=torch.float64)
        self._squares = torch.zeros(positions, dtype=torch.float64)
        self._sketch = torch.zeros(positions, SKETCH, dtype=torch.float64)
        self._finite = True
        self._top = torch.empty(positions, 0, dtype=torch.float64)
        self._top_ids = torch.empty(positions, 0, dtype=torch.int64)
        width = asked.shape[1] if asked is not None else 0
        self._asked_logits = torch.full((positions, width), math.nan, dtype=torch.float64)

    def take(self, first: int, part: Tensor, leading: int) -> None:
        """Add the logits of ids from ``first``, [T, r]; keep the ``leading`` greatest of all."""
        logits = part.double().cpu()
        self._finite = self._finite and bool(torch.isfinite(logits).all())
        most = torch.maximum(self._most, logits.amax(1))
        added = (logits - most[:, None]).exp().sum(1)
        self._exps = self._exps * (self._most - most).exp() + added
        self._most = most
        self._sum += logits.sum(1)
        self._squares += logits.square().sum(1)
        self._sketch += logits @ self._signs.rows(first, logits.shape[1]).double()
        ids = torch.arange(first, first + logits.shape[1]).expand(len(logits), -1)
        values = torch.cat((self._top, logits), 1)
        all_ids = torch.cat((self._top_ids, ids), 1)
        self._top, order = values.topk(min(leading, values.shape[1]), dim=1)
        self._top_ids = all_ids.gather(1, order)
        if self.asked is not None:
            here = (self.asked >= first) & (self.asked < first + logits.shape[1])
            found = logits.gather(1, (self.asked - first).clamp(0, logits.shape[1] - 1))
            self._asked_logits = torch.where(here, found, self._asked_logits)

    @property
    def finite(self) -> bool:
        """Whether every logit so far was a number."""
        return self._finite

    def answers(self, layers: Iterable[Tensor]) -> Answers:
        """Return what was gathered, when all of the vocabulary has been taken."""
        mean = self._sum / self.vocab
        return Answers(
            vocab=self.vocab,
            logsumexp=self._most + self._exps.log(),
            std=(self._squares / self.vocab - mean.square()).clamp(min=0).sqrt(),
            ids=self._top_ids if self.asked is None else self.asked,
            logits=self._top if self.asked is None else self._asked_logits,
            best=self._top_ids[:, 0],
            sketch=self._sketch,
            layers=torch.stack(list(layers)),
        )
