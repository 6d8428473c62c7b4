"""The LLaMA architecture, from token ids to the last hidden state, as the papers print it.

Shapes: T sequence, D model width, H heads, K key/value heads, d head width, F hidden width,
L layers, V vocabulary. One sequence, no cache; all of it in ``weights.dtype``, angles in fp64.

Touvron et al. 2023, "LLaMA". The matrices come from ``Weights`` and are read while they are used.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from verifier.layouts import EMBEDDING, HEAD

from .config import ModelConfig
from .errors import NotFinite
from .weights import Weights

NORM = "model.norm.weight"

AfterLayer = Callable[[int, Tensor], None]


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return every tensor of the model and its shape; F and V must be known."""
    if config.hidden is None or config.vocab is None:
        raise ValueError("the hidden width and the vocabulary must be known")
    d_model, hidden, vocab = config.width, config.hidden, config.vocab
    queries, keys = config.heads * config.head_width, config.kv_heads * config.head_width
    expected: dict[str, tuple[int, ...]] = {EMBEDDING: (vocab, d_model)}
    for layer in range(config.layers):
        expected |= {
            f"model.layers.{layer}.{name}.weight": shape
            for name, shape in (
                ("input_layernorm", (d_model,)),
                ("self_attn.q_proj", (queries, d_model)),
                ("self_attn.k_proj", (keys, d_model)),
                ("self_attn.v_proj", (keys, d_model)),
                ("self_attn.o_proj", (d_model, queries)),
                ("post_attention_layernorm", (d_model,)),
                ("mlp.gate_proj", (hidden, d_model)),
                ("mlp.up_proj", (hidden, d_model)),
                ("mlp.down_proj", (d_model, hidden)),
            )
        }
    expected |= {NORM: (d_model,)}
    if not config.tied:
        expected |= {HEAD: (vocab, d_model)}
    return expected


@torch.no_grad()
def hidden_states(
    config: ModelConfig, weights: Weights, tokens: Sequence[int], after_layer: AfterLayer
) -> Tensor:
    """Return what the output head is multiplied with, [T, D].

    ``after_layer`` is shown the residual stream after the embedding (−1) and after each layer.

    Raises:
        NotFinite: NaN or Infinity came out of a layer.
    """
    x = weights.rows(EMBEDDING, tokens)
    _check_finite(x, "the embedding")
    after_layer(-1, x)
    angles = rotary_angles(len(tokens), config)
    for layer in range(config.layers):
        name = f"model.layers.{layer}."
        x = x + attention(config, weights, name, _norm(config, weights, name + "input", x), angles)
        x = x + feed_forward(weights, name, _norm(config, weights, name + "post_attention", x))
        _check_finite(x, f"layer {layer}")
        after_layer(layer, x)
    x = rms_norm(x, weights.vector(NORM), config.norm_eps)
    _check_finite(x, "the final norm")
    return x


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """Scale each position to unit root mean square, then by ``gain`` [D].

    Zhang & Sennrich 2019, "Root Mean Square Layer Normalization", equation 4.
    """
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * gain


def attention(
    config: ModelConfig, weights: Weights, name: str, x: Tensor, angles: Tensor
) -> Tensor:
    """Return causal self-attention of x [T, D]; H/K queries share a key and a value.

    Vaswani et al. 2017, equation 1; Ainslie et al. 2023, "GQA", section 2.2.
    """
    seq, width, groups = len(x), config.head_width, config.heads // config.kv_heads
    q = weights.linear(x, name + "self_attn.q_proj.weight").view(seq, config.heads, width)
    k = weights.linear(x, name + "self_attn.k_proj.weight").view(seq, config.kv_heads, width)
    v = weights.linear(x, name + "self_attn.v_proj.weight").view(seq, config.kv_heads, width)
    q, k = rotate(q, angles), rotate(k, angles)
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = torch.einsum("thd,shd->hts", q, k) / math.sqrt(width)
    future = torch.ones(seq, seq, dtype=torch.bool, device=x.device).triu(1)
    shares = scores.masked_fill(future, -math.inf).softmax(-1)
    mixed = torch.einsum("hts,shd->thd", shares, v).reshape(seq, config.heads * width)
    return weights.linear(mixed, name + "self_attn.o_proj.weight")


def feed_forward(weights: Weights, name: str, x: Tensor) -> Tensor:
    """Return W₂(SiLU(W₁x) ⊙ W₃x): Shazeer 2020, "GLU Variants Improve Transformer", equation 6."""
    gate = torch.nn.functional.silu(weights.linear(x, name + "mlp.gate_proj.weight"))
    return weights.linear(
        gate * weights.linear(x, name + "mlp.up_proj.weight"), name + "mlp.down_proj.weight"
    )


def rotary_angles(seq: int, config: ModelConfig) -> Tensor:
    """Return the angle of each position and pair of channels, [T, d/2], radians, fp64.

    Su et al. 2021, "RoFormer", section 3.2.2.
    """
    pairs = torch.arange(0, config.head_width, 2, dtype=torch.float64)
    frequencies = config.rope_base ** -(pairs / config.head_width)
    if config.scaling is not None:
        s = config.scaling
        turns = s.original * frequencies / (2 * math.pi)
        smooth = ((turns - s.low) / (s.high - s.low)).clamp(0, 1)
        frequencies = frequencies * (smooth + (1 - smooth) / s.factor)
    return torch.arange(seq, dtype=torch.float64)[:, None] * frequencies


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate channel i of x [T, heads, d] with channel i + d/2 by ``angles`` [T, d/2].

    Su et al. 2021, equation 34. Meta pairs neighbouring channels instead; its rows were put in
    this order where they were read.
    """
    cos = angles.cos().to(x)[:, None]
    sin = angles.sin().to(x)[:, None]
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def _norm(config: ModelConfig, weights: Weights, prefix: str, x: Tensor) -> Tensor:
    return rms_norm(x, weights.vector(f"{prefix}_layernorm.weight"), config.norm_eps)


def _check_finite(x: Tensor, place: str) -> None:
    if not bool(torch.isfinite(x).all()):
        raise NotFinite(place)
