"""Signatures of matrices: σᵢ = uᵢᵀ W ωᵢ for a few public random ±1 vectors u and ω.

E|uᵀ(W − W′)ω|² = ‖W − W′‖²_F: every entry counts, none is asked for, and no depth of layers
amplifies it, so a signature names the matrix that differs where the activations only say from which
layer on. ω rides along as extra columns of the activations and costs no second product. Of a
vector v it is σᵢ = vᵀωᵢ.
"""

import re
from dataclasses import dataclass

from torch import Tensor

from .signs import signs

PROBES = 4


@dataclass(frozen=True, slots=True)
class Probes:
    """The vectors of one seed: ``left`` [rows, k] and ``right`` [columns, k], ±1 as int8."""

    left: Tensor
    right: Tensor

    def of_rows(self, first: int, products: Tensor) -> Tensor:
        """Return the share of rows from ``first`` in σ [k], of their products Wω [rows, k]."""
        u = self.left[first : first + len(products)].to(products.device)
        return (u * products.double()).sum(0).cpu()

    def of_vector(self, values: Tensor) -> Tensor:
        """Return σ [k] of a vector."""
        return (self.right[: len(values)] * values.double().cpu()[:, None]).sum(0)


def make_probes(seed: str, rows: int, columns: int) -> Probes:
    """Draw the vectors for matrices of up to ``rows`` and ``columns``."""
    return Probes(
        signs("probe rows", seed, rows, PROBES), signs("probe columns", seed, columns, PROBES)
    )


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
