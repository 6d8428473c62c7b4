"""The LLaMA architecture and its relatives, from token ids to logits, as the papers print it.

Shapes: T sequence, D model width, H heads, K key/value heads, d head width, F hidden width,
L layers, V vocabulary. One sequence, no cache; all of it in fp32 or fp64, angles in fp64.

Touvron et al. 2023, "LLaMA". What other families do otherwise is in families.py. The matrices are
asked for in the order of ``groups`` and are read from their files while they are multiplied.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from verifier.layouts import EMBEDDING, HEAD

from .config import ModelConfig
from .errors import NotFinite

NORM = "model.norm.weight"
QUERY, KEY, VALUE, OUT = (f"self_attn.{name}_proj" for name in "qkvo")
GATE, UP, DOWN = (f"mlp.{name}_proj" for name in ("gate", "up", "down"))

AfterLayer = Callable[[int, Tensor], None]


class Weights(Protocol):
    """What the model needs to know of its weights: products with them, layer after layer."""

    def embedding(self) -> Tensor:
        """Return the rows of the embedding that belong to the tokens, [T, D]."""

    def vector(self, name: str) -> Tensor:
        """Return a norm or a bias."""

    def products(self, x: Tensor, *names: str) -> list[Tensor]:
        """Return x Wᵀ, [T, rows], of every matrix of the next group."""


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return every tensor of the model and its shape; F and V must be known."""
    if config.hidden is None or config.vocab is None:
        raise ValueError("the hidden width and the vocabulary must be known")
    family, d_model, hidden = config.family, config.width, config.hidden
    queries, keys = config.heads * config.head_width, config.kv_heads * config.head_width
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (d_model,),
        f"{QUERY}.weight": (queries, d_model),
        f"{KEY}.weight": (keys, d_model),
        f"{VALUE}.weight": (keys, d_model),
        f"{OUT}.weight": (d_model, queries),
        "post_attention_layernorm.weight": (d_model,),
        f"{GATE}.weight": (hidden, d_model),
        f"{UP}.weight": (hidden, d_model),
        f"{DOWN}.weight": (d_model, hidden),
    }
    if family.qkv_bias:
        layer |= {f"{QUERY}.bias": (queries,), f"{KEY}.bias": (keys,), f"{VALUE}.bias": (keys,)}
    if family.qk_norm:
        layer |= {f"self_attn.{name}_norm.weight": (config.head_width,) for name in "qk"}
    if family.sandwich:
        layer |= {f"{name}_feedforward_layernorm.weight": (d_model,) for name in ("pre", "post")}
    expected: dict[str, tuple[int, ...]] = {EMBEDDING: (config.vocab, d_model)}
    for number in range(config.layers):
        expected |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    expected |= {NORM: (d_model,)}
    if not config.tied:
        expected |= {HEAD: (config.vocab, d_model)}
    return expected


def groups(config: ModelConfig) -> list[tuple[str, ...]]:
    """Return the matrices that are multiplied with the same activations, in the model's order."""
    found = []
    for number in range(config.layers):
        for names in ((QUERY, KEY, VALUE), (OUT,), (GATE, UP), (DOWN,)):
            found.append(tuple(f"model.layers.{number}.{name}.weight" for name in names))
    return [*found, (EMBEDDING if config.tied else HEAD,)]


@torch.no_grad()
def hidden_states(config: ModelConfig, weights: Weights, after_layer: AfterLayer) -> Tensor:
    """Return what the output head is multiplied with, [T, D].

    ``after_layer`` is shown the residual stream after the embedding (−1) and after each layer.

    Raises:
        NotFinite: NaN or Infinity came out of a layer.
    """
    x = weights.embedding()
    if config.family.scaled_embedding:
        x = x * math.sqrt(config.width)
    _check_finite(x, "the embedding")
    after_layer(-1, x)
    angles = rotary_angles(len(x), config)
    for number in range(config.layers):
        x = Layer(config, weights, f"model.layers.{number}.")(x, angles)
        _check_finite(x, f"layer {number}")
        after_layer(number, x)
    x = norm(config, x, weights.vector(NORM))
    _check_finite(x, "the final norm")
    return x


class Layer:
    """One layer: x + attention(norm x), then that plus feed_forward(norm of it)."""

    def __init__(self, config: ModelConfig, weights: Weights, prefix: str) -> None:
        self.config, self.weights, self.prefix = config, weights, prefix

    def __call__(self, x: Tensor, angles: Tensor) -> Tensor:
        """Return the residual stream after the layer, [T, D]."""
        if not self.config.family.sandwich:
            x = x + self.attention(self.norm("input", x), angles)
            return x + self.feed_forward(self.norm("post_attention", x))
        # Gemma Team 2024, "Gemma 2", section 2: norms before and after each half.
        attended = self.attention(self.norm("input", x), angles)
        x = x + self.norm("post_attention", attended)
        fed = self.feed_forward(self.norm("pre_feedforward", x))
        return x + self.norm("post_feedforward", fed)

    def attention(self, x: Tensor, angles: Tensor) -> Tensor:
        """Return causal self-attention of x [T, D]; H/K queries share a key and a value.

        Vaswani et al. 2017, equation 1; Ainslie et al. 2023, "GQA", section 2.2.
        """
        c, seq = self.config, len(x)
        q, k, v = self.linear(x, QUERY, KEY, VALUE)
        if c.family.qkv_bias:
            q, k, v = q + self.bias(QUERY), k + self.bias(KEY), v + self.bias(VALUE)
        q = q.view(seq, c.heads, c.head_width)
        k, v = (tensor.view(seq, c.kv_heads, c.head_width) for tensor in (k, v))
        if c.family.qk_norm:
            q, k = (
                norm(c, tensor, self.weights.vector(f"{self.prefix}self_attn.{name}_norm.weight"))
                for tensor, name in ((q, "q"), (k, "k"))
            )
        q, k = rotate(q, angles), rotate(k, angles)
        shared = c.heads // c.kv_heads
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        scores = torch.einsum("thd,shd->hts", q, k) / math.sqrt(c.query_scale or c.head_width)
        scores = softcap(scores, c.attention_cap)
        future = torch.ones(seq, seq, dtype=torch.bool, device=x.device).triu(1)
        shares = scores.masked_fill(future, -math.inf).softmax(-1)
        mixed = torch.einsum("hts,shd->thd", shares, v).reshape(seq, c.heads * c.head_width)
        return self.linear(mixed, OUT)[0]

    def feed_forward(self, x: Tensor) -> Tensor:
        """Return W₂(σ(W₁x) ⊙ W₃x): Shazeer 2020, "GLU Variants", equation 6; σ SiLU or GELU."""
        gate, up = self.linear(x, GATE, UP)
        if self.config.family.gelu:
            gate = torch.nn.functional.gelu(gate, approximate="tanh")
        else:
            gate = torch.nn.functional.silu(gate)
        return self.linear(gate * up, DOWN)[0]

    def linear(self, x: Tensor, *names: str) -> list[Tensor]:
        """Return the products of x with matrices of this layer."""
        return self.weights.products(x, *(f"{self.prefix}{name}.weight" for name in names))

    def bias(self, name: str) -> Tensor:
        """Return the bias of a matrix of this layer."""
        return self.weights.vector(f"{self.prefix}{name}.bias")

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Return x, normed by a norm of this layer."""
        return norm(self.config, x, self.weights.vector(f"{self.prefix}{name}_layernorm.weight"))


def norm(config: ModelConfig, x: Tensor, weight: Tensor) -> Tensor:
    """Return the RMS norm of x with this family's gain."""
    gain = 1 + weight if config.family.gain_from_one else weight
    return rms_norm(x, gain, config.norm_eps)


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """Scale each position to unit root mean square, then by ``gain`` [D].

    Zhang & Sennrich 2019, "Root Mean Square Layer Normalization", equation 4.
    """
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * gain


def softcap(x: Tensor, cap: float | None) -> Tensor:
    """Bound x smoothly to ±cap: Bello et al. 2016, section 5; Gemma Team 2024, section 2."""
    return x if cap is None else cap * torch.tanh(x / cap)


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
    if config.rope_factors:
        frequencies = frequencies / torch.tensor(config.rope_factors, dtype=torch.float64)
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


def _check_finite(x: Tensor, place: str) -> None:
    if not bool(torch.isfinite(x).all()):
        raise NotFinite(place)
