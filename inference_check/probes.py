"""Signatures of matrices: σᵢ = uᵢᵀ W ωᵢ for a few public random ±1 vectors u and ω.

E|uᵀ(W − W′)ω|² = ‖W − W′‖²_F: every entry counts, none is asked for, and no depth of layers
amplifies it, so a signature names the matrix that differs where the activations only say from which
layer on. uᵀW is added up beside the activations' products, from blocks that are in the cache
anyhow. Where rows lie in Meta's order, it is u that is put in that order. Of a vector v, σᵢ = vᵀωᵢ.
"""

import re
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .signs import signs

PROBES = 4


@dataclass(frozen=True, slots=True)
class Probes:
    """The vectors of one seed: ``left`` [rows, k] and ``right`` [columns, k], ±1 as int8."""

    left: Tensor
    right: Tensor
    dtype: torch.dtype
    device: torch.device
    _ready: dict[tuple[int, int | None], Tensor] = field(default_factory=dict)

    def left_of(self, rows: int, pair_width: int | None) -> Tensor:
        """Return uᵀ [k, rows], in Meta's order where a head has ``pair_width`` rows."""
        key = rows, pair_width
        if key not in self._ready:
            u = self.left[:rows]
            if pair_width is not None:
                u = u.view(-1, 2, pair_width // 2, PROBES).transpose(1, 2).reshape(rows, PROBES)
            self._ready[key] = u.T.to(self.device, self.dtype).contiguous()
        return self._ready[key]

    def signature(self, left_product: Tensor) -> Tensor:
        """Return σ [k] from uᵀW [k, columns]."""
        return (left_product.double().cpu() * self.right[: left_product.shape[1]].T).sum(1)

    def of_vector(self, values: Tensor) -> Tensor:
        """Return σ [k] of a vector."""
        return self.signature(values.expand(PROBES, -1))


def make_probes(
    seed: str, rows: int, columns: int, dtype: torch.dtype, device: torch.device
) -> Probes:
    """Draw the vectors for matrices of up to ``rows`` and ``columns``."""
    left = signs("probe rows", seed, rows, PROBES)
    return Probes(left, signs("probe columns", seed, columns, PROBES), dtype, device)


_LAYER = re.compile(r"^model\.layers\.(\d{1,6})\.(?:self_attn|mlp)?\.?(.+)$")
_IN_LAYER = (
    *("input_layernorm", "q_proj", "k_proj", "v_proj", "q_norm", "k_norm", "o_proj"),
    *("post_attention_layernorm", "pre_feedforward_layernorm", "gate_proj", "up_proj"),
    *("down_proj", "post_feedforward_layernorm"),
)


def in_model_order(name: str) -> tuple[int, int, str]:
    """Sort tensors as activations pass through them: embedding, layers, final norm, head."""
    found = _LAYER.match(name)
    if found is None:
        return (-1, 0, name) if "embed" in name else (1 << 20, "norm" not in name, name)
    short = found.group(2).rpartition(".")[0]
    place = _IN_LAYER.index(short) if short in _IN_LAYER else len(_IN_LAYER)
    return int(found.group(1)), place, name


def place_of(name: str) -> str:
    """Say where a tensor is: ``layer 17's down_proj``."""
    found = _LAYER.match(name)
    if found is None:
        other = {
            "model.embed_tokens.weight": "the embedding",
            "model.norm.weight": "the final norm",
        }
        return other.get(name, "the output head")
    return f"layer {int(found.group(1))}'s {found.group(2).removesuffix('.weight')}"
