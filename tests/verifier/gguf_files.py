"""GGUF files made by the ``gguf`` package, as llama.cpp's converter makes them."""

from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type

from inference_check.synthetic import Shape, Weights, interleaved
from verifier.readers import QUANTIZED

LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
K_QUANTS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
LEGACY = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")


def gguf_name(name: str) -> str:
    """Return llama.cpp's name of a tensor of the LLaMA architecture."""
    outside = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in outside:
        return outside[name]
    _, _, layer, rest = name.split(".", 3)
    module, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{LAYER[module]}.{kind}"


def write_gguf(
    path: Path,
    weights: Weights,
    shape: Shape,
    dtype: str = "F16",
    *,
    others: dict[str, str] | None = None,
    metadata: bool = True,
    claims: Shape | None = None,
) -> Path:
    """Write weights, matrices as ``dtype`` and vectors as F32; ``others`` name further types.

    ``claims`` is the shape that the metadata tells, where it is not the true one.
    """
    writer = gguf.GGUFWriter(path, "llama")
    if metadata:
        claims = claims or shape
        writer.add_name("tiny")
        writer.add_context_length(2048)
        writer.add_embedding_length(claims.width)
        writer.add_block_count(claims.layers)
        writer.add_feed_forward_length(claims.hidden)
        writer.add_head_count(claims.heads)
        writer.add_head_count_kv(claims.kv_heads)
        writer.add_layer_norm_rms_eps(claims.norm_eps)
        writer.add_rope_dimension_count(claims.head_width)
        writer.add_rope_freq_base(claims.rope_base)
        writer.add_vocab_size(claims.vocab)
        writer.add_file_type(getattr(gguf.LlamaFileType, f"MOSTLY_{dtype}", 0))
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for name, tensor in weights.items():
        theirs = gguf_name(name)
        wanted = (others or {}).get(theirs, dtype if tensor.ndim == 2 else "F32")
        if "q_proj" in name or "k_proj" in name:
            tensor = interleaved(tensor, shape.head_width) if tensor.ndim == 2 else tensor
        kind = Type[wanted]
        data = quantized(tensor.float().numpy(), wanted)
        writer.add_tensor(theirs, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def quantized(values: np.ndarray, dtype: str) -> np.ndarray:
    """Quantize a matrix: by the package where it can, K-quants by plain rounding."""
    if dtype in K_QUANTS:
        return k_quantized(values, dtype)
    return gguf.quants.quantize(values, Type[dtype])


def k_quantized(values: np.ndarray, dtype: str) -> np.ndarray:
    """Quantize rows into super-blocks: one scale for all groups, levels by nearest rounding.

    Cruder than llama.cpp's search for scales, and within the same bound.
    """
    rows = np.ascontiguousarray(values, np.float32)
    blocks = rows.reshape(-1, 256)
    build = {"Q2_K": _q2_k, "Q3_K": _q3_k, "Q4_K": _q45_k, "Q5_K": _q45_k, "Q6_K": _q6_k}[dtype]
    packed = build(blocks, dtype)
    return packed.reshape(*rows.shape[:-1], -1)


def _half(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.float16).reshape(-1, 1).view(np.uint8)


def _widened(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.float16).astype(np.float32).reshape(-1, 1)


def _crumbs(levels: np.ndarray) -> np.ndarray:
    """Pack [N, 256] two-bit levels as ``qs`` of Q2_K and Q3_K."""
    four = levels.reshape(-1, 2, 4, 32).astype(np.uint8)
    packed = four[:, :, 0] | four[:, :, 1] << 2 | four[:, :, 2] << 4 | four[:, :, 3] << 6
    return packed.reshape(-1, 64)


def _q2_k(blocks: np.ndarray, _: str) -> np.ndarray:
    low = -blocks.min(1).clip(max=0)
    step = (blocks.max(1) + low) / 3
    d, dmin = _widened(step / 15), _widened(low / 15)
    levels = np.rint((blocks + dmin * 15) / (d * 15 + 1e-30)).clip(0, 3)
    scales = np.full((len(blocks), 16), 15 | 15 << 4, np.uint8)
    return np.concatenate([scales, _crumbs(levels), _half(step / 15), _half(low / 15)], 1)


def _q3_k(blocks: np.ndarray, _: str) -> np.ndarray:
    step = np.abs(blocks).max(1) / 3.5
    d = _widened(step / 31)
    levels = (np.rint(blocks / (d * 31 + 1e-30)).clip(-4, 3) + 4).astype(np.uint8)
    high = (levels >> 2).reshape(-1, 8, 32)
    mask = sum(high[:, bit] << bit for bit in range(8)).astype(np.uint8)
    scales = np.full((len(blocks), 12), 0xFF, np.uint8)  # 63 − 32 = 31 in every group
    return np.concatenate([mask, _crumbs(levels & 3), scales, _half(step / 31)], 1)


def _q45_k(blocks: np.ndarray, dtype: str) -> np.ndarray:
    top = 15 if dtype == "Q4_K" else 31
    low = -blocks.min(1).clip(max=0)
    step = (blocks.max(1) + low) / top
    d, dmin = _widened(step / 63), _widened(low / 63)
    levels = np.rint((blocks + dmin * 63) / (d * 63 + 1e-30)).clip(0, top).astype(np.uint8)
    eight = levels.reshape(-1, 8, 32)
    nibbles = (eight[:, ::2] & 15 | (eight[:, 1::2] & 15) << 4).reshape(-1, 128)
    fifth = sum((eight[:, bit] >> 4) << bit for bit in range(8)).astype(np.uint8)
    scales = np.full((len(blocks), 12), 0xFF, np.uint8)
    planes = [fifth] if dtype == "Q5_K" else []
    return np.concatenate([_half(step / 63), _half(low / 63), scales, *planes, nibbles], 1)


def _q6_k(blocks: np.ndarray, _: str) -> np.ndarray:
    step = np.abs(blocks).max(1) / 31
    d = _widened(step / 127)
    levels = (np.rint(blocks / (d * 127 + 1e-30)).clip(-32, 31) + 32).astype(np.uint8)
    low = (levels & 15).reshape(-1, 2, 2, 64)
    nibbles = (low[:, :, 0] | low[:, :, 1] << 4).reshape(-1, 128)
    scales = np.full((len(blocks), 16), 127, np.uint8)
    return np.concatenate([nibbles, _crumbs(levels >> 4), scales, _half(step / 127)], 1)


def scale_blocks(path: Path, start: int, dtype: str, count: int, factor: float) -> None:
    """Multiply the fp16 scales of ``count`` blocks from byte ``start`` of a file by ``factor``."""
    size = QUANTIZED[dtype][1]
    places = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
    places |= {"Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,)}
    data = bytearray(path.read_bytes())
    for block in range(count):
        for place in places[dtype]:
            at = start + block * size + place
            scale = torch.frombuffer(data, dtype=torch.float16, offset=at, count=1)
            scale *= factor
    path.write_bytes(data)
