"""Weights as people change them: quantized, pruned, tuned, merged; and tiny models trained apart."""

import math

import torch
from torch import Tensor

from inference_check.synthetic import Shape
from verifier.quantized import NF4

Weights = dict[str, Tensor]


def blocks_of(matrix: Tensor, group: int | None) -> Tensor:
    return matrix.float().reshape(-1, group or matrix.shape[1])


def symmetric(matrix: Tensor, group: int | None, most: int) -> Tensor:
    """Round to ±``most`` steps; the largest entry of each group, or row, decides the step."""
    blocks = blocks_of(matrix, group)
    step = blocks.abs().amax(1, keepdim=True) / most
    return ((blocks / step).round() * step).view_as(matrix)


def asymmetric(matrix: Tensor, group: int | None, codes: int = 15) -> Tensor:
    """Round to ``codes`` steps from about the smallest entry, with a whole zero point."""
    blocks = blocks_of(matrix, group)
    low, high = blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)
    step = (high - low) / codes
    zero = (-low / step).round()
    return ((((blocks / step).round() + zero).clamp(0, codes) - zero) * step).view_as(matrix)


def normal_float(matrix: Tensor) -> Tensor:
    """NF4 with blocks of 64: Dettmers et al. 2023."""
    blocks = blocks_of(matrix, 64)
    largest = blocks.abs().amax(1, keepdim=True)
    values = torch.tensor(NF4)
    nearest = ((blocks / largest)[..., None] - values).abs().argmin(-1)
    return (values[nearest] * largest).view_as(matrix)


def ggml_signed(matrix: Tensor, most: int) -> Tensor:
    """Q4_0 (8) and Q5_0 (16): blocks of 32, the largest entry has the lowest code, half steps."""
    blocks = blocks_of(matrix, 32)
    largest = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    step = largest / -most
    codes = torch.trunc(blocks / step + most + 0.5).clamp(0, 2 * most - 1) - most
    return (codes * step.half().float()).view_as(matrix)


def q8_0(matrix: Tensor) -> Tensor:
    blocks = blocks_of(matrix, 32)
    step = blocks.abs().amax(1, keepdim=True) / 127
    return ((blocks / step).round() * step.half().float()).view_as(matrix)


def q4_1(matrix: Tensor) -> Tensor:
    blocks = blocks_of(matrix, 32)
    low, high = blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)
    step = (high - low) / 15
    codes = ((blocks - low) / step + 0.5).floor().clamp(0, 15)
    return (codes * step.half().float() + low.half().float()).view_as(matrix)


def k_signed(matrix: Tensor, most: int) -> Tensor:
    """Q6_K (32) and Q3_K (4): blocks of 16 whose steps are whole multiples of one in 256 entries."""
    blocks = matrix.float().reshape(-1, 16, 16)
    step = blocks.abs().amax(2, keepdim=True) / most
    unit = (step.amax(1, keepdim=True) / (127 if most == 32 else 31)).half().float()
    step = (step / unit).round().clamp(min=1) * unit
    return ((blocks / step).round().clamp(-most, most - 1) * step).view_as(matrix)


def k_offset(matrix: Tensor, codes: int, size: int) -> Tensor:
    """Q4_K (15, 32), Q5_K (31, 32), Q2_K (3, 16): steps and offsets are multiples, in 256 entries."""
    blocks = matrix.float().reshape(-1, 256 // size, size)
    least = -blocks.amin(2, keepdim=True).clamp(max=0)
    step = (blocks.amax(2, keepdim=True) + least) / codes
    most = 15 if codes == 3 else 63
    units = [(x.amax(1, keepdim=True) / most).half().float() for x in (step, least)]
    step = (step / units[0]).round().clamp(min=1) * units[0]
    least = (least / units[1]).round() * units[1]
    return (((blocks + least) / step).round().clamp(0, codes) * step - least).view_as(matrix)


K_QUANTS = {
    "Q2_K": lambda m: k_offset(m, 3, 16),
    "Q3_K": lambda m: k_signed(m, 4),
    "Q4_K": lambda m: k_offset(m, 15, 32),
    "Q5_K": lambda m: k_offset(m, 31, 32),
    "Q6_K": lambda m: k_signed(m, 32),
}
"""Rounded once, where llama.cpp searches for the best steps; the grids are the same."""

QUANTIZED = {
    "Q4_0": lambda m: ggml_signed(m, 8),
    "Q5_0": lambda m: ggml_signed(m, 16),
    "Q8_0": q8_0,
    "Q4_1": q4_1,
    "NF4": normal_float,
    "int8 per row": lambda m: symmetric(m, None, 127),
    "int8 group 128": lambda m: symmetric(m, 128, 127),
    "int4 per row": lambda m: symmetric(m, None, 7),
    "int4 group 64": lambda m: asymmetric(m, 64),
    "int4 group 128": lambda m: asymmetric(m, 128),
    "F8_E4M3": lambda m: m.to(torch.float8_e4m3fn).float(),
}
"""By the name that the verifier gives them."""


def matrices(weights: Weights, change) -> Weights:
    """Return the weights with every matrix changed and vectors as they are."""
    return {n: change(t.float()) if t.dim() == 2 else t for n, t in weights.items()}


def pruned(weights: Weights, share: float) -> Weights:
    """Set the smallest entries of each matrix to zero."""

    def prune(matrix: Tensor) -> Tensor:
        limit = matrix.abs().flatten().kthvalue(int(share * matrix.numel())).values
        return torch.where(matrix.abs() <= limit, 0.0, matrix)

    return matrices(weights, prune)


def noisy(weights: Weights, amount: float) -> Weights:
    return matrices(weights, lambda m: m + amount * m.std() * torch.randn_like(m))


def adapted(weights: Weights, rank: int = 8, size: float = 0.3) -> Weights:
    """Merge LoRA adapters (Hu et al. 2021) into every matrix."""

    def merge(m: Tensor) -> Tensor:
        change = torch.randn(m.shape[0], rank) @ torch.randn(rank, m.shape[1])
        return m + size * m.std() / change.std() * change

    return matrices(weights, merge)


def merged(one: Weights, two: Weights, share: float) -> Weights:
    return {n: share * one[n].float() + (1 - share) * two[n].float() for n in one}


TEXT = (
    "a weighbridge stands at a gate and says whether the load is what the papers claim. "
    "ours stands between a laboratory and the researchers it trusts: it decides who may pass, "
    "hands the load over under signature, and can weigh any copy, anywhere, later. "
)


def trained(
    weights: Weights, shape: Shape, *, steps: int, seed: int, rate: float = 3e-3
) -> Weights:
    """Train the LLaMA model with these weights to continue ``TEXT``, byte by byte, with Adam."""
    torch.manual_seed(seed)
    live = {name: tensor.float().clone().requires_grad_() for name, tensor in weights.items()}
    optimizer = torch.optim.Adam(live.values(), lr=rate)
    data = torch.tensor(list((TEXT * 4).encode()))
    for _ in range(steps):
        at = torch.randint(0, len(data) - 33, (8,))
        batch = torch.stack([data[i : i + 33] for i in at.tolist()])
        loss = torch.nn.functional.cross_entropy(
            logits(live, shape, batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in live.items()}


def logits(weights: Weights, shape: Shape, tokens: Tensor) -> Tensor:
    """The architecture with gradients, small and batched: [B, T] to [B, T, V]."""
    x = weights["model.embed_tokens.weight"][tokens]
    batch, seq = tokens.shape
    width, groups = shape.head_width, shape.heads // shape.kv_heads
    frequencies = shape.rope_base ** -(torch.arange(0, width, 2) / width)
    angles = torch.arange(seq)[:, None] * frequencies

    def norm(name: str, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + shape.norm_eps) * weights[name]

    def heads(x: Tensor, count: int) -> Tensor:
        return x.view(batch, seq, count, width).transpose(1, 2)

    def rotate(x: Tensor) -> Tensor:
        one, two = x.chunk(2, -1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((one * cos - two * sin, two * cos + one * sin), -1)

    for layer in range(shape.layers):
        at = f"model.layers.{layer}."
        h = norm(at + "input_layernorm.weight", x)
        q, k, v = (h @ weights[f"{at}self_attn.{n}_proj.weight"].T for n in "qkv")
        q, k = rotate(heads(q, shape.heads)), rotate(heads(k, shape.kv_heads))
        k, v = (t.repeat_interleave(groups, 1) for t in (k, heads(v, shape.kv_heads)))
        future = torch.full((seq, seq), -math.inf).triu(1)
        mixed = (q @ k.transpose(2, 3) / math.sqrt(width) + future).softmax(-1) @ v
        mixed = mixed.transpose(1, 2).reshape(batch, seq, -1)
        x = x + mixed @ weights[at + "self_attn.o_proj.weight"].T
        h = norm(at + "post_attention_layernorm.weight", x)
        gate = torch.nn.functional.silu(h @ weights[at + "mlp.gate_proj.weight"].T)
        up = h @ weights[at + "mlp.up_proj.weight"].T
        x = x + (gate * up) @ weights[at + "mlp.down_proj.weight"].T
    return norm("model.norm.weight", x) @ weights["lm_head.weight"].T
