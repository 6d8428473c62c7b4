"""The same weights in other clothes: each function writes one layout of them into a folder."""

import json
from pathlib import Path

import gguf
import torch
from safetensors.torch import save_file

from inference_check.synthetic import Shape, Weights, interleaved, write_hf, write_meta
from tests.verifier.gguf_files import gguf_name, write_gguf

META = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens": "model.tok_embeddings",
    "lm_head": "output",
}


def save(folder: Path, weights: Weights, name: str = "model.safetensors") -> None:
    tensors = {name: tensor.contiguous().clone() for name, tensor in weights.items()}
    save_file(tensors, folder / name, {"format": "pt"})


def config(folder: Path, weights: Weights, shape: Shape, **changes: object) -> None:
    """Write the config.json of the LLaMA model, changed."""
    write_hf(folder, {"lm_head.weight": weights["model.norm.weight"]}, shape, 1)
    (folder / "model-00001-of-00001.safetensors").unlink()
    (folder / "model.safetensors.index.json").unlink()
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def renamed(weights: Weights, names: dict[str, str]) -> Weights:
    def rename(name: str) -> str:
        for old, new in names.items():
            name = name.replace(old, new)
        return name

    return {rename(name): tensor for name, tensor in weights.items()}


def fuse(weights: Weights, qkv: str | None, gate_up: str | None) -> Weights:
    """Join q, k and v, and gate and up, row by row, under the names given."""
    found = dict(weights)
    for name in weights:
        layer, _, module = name.rpartition(".self_attn.")
        if qkv and module == "q_proj.weight":
            members = [f"{layer}.self_attn.{x}_proj.weight" for x in "qkv"]
            found[f"{layer}.{qkv}.weight"] = torch.cat([found.pop(m) for m in members])
        layer, _, module = name.rpartition(".mlp.")
        if gate_up and module == "gate_proj.weight":
            members = [f"{layer}.mlp.{x}_proj.weight" for x in ("gate", "up")]
            found[f"{layer}.{gate_up}.weight"] = torch.cat([found.pop(m) for m in members])
    return found


def in_metas_order(weights: Weights, shape: Shape) -> Weights:
    rotary = ("q_proj.weight", "k_proj.weight")
    return {
        name: interleaved(tensor, shape.head_width) if name.endswith(rotary) else tensor
        for name, tensor in weights.items()
    }


def without_prefix(folder: Path, weights: Weights, shape: Shape) -> None:
    save(folder, {name.removeprefix("model."): tensor for name, tensor in weights.items()})
    config(folder, weights, shape)


def with_two_prefixes(folder: Path, weights: Weights, shape: Shape) -> None:
    save(folder, {f"model.{name}": tensor for name, tensor in weights.items()})


def phi3(folder: Path, weights: Weights, shape: Shape) -> None:
    """As Phi-3 and vLLM store it."""
    save(folder, fuse(weights, "self_attn.qkv_proj", "mlp.gate_up_proj"))
    changes = {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "pad_token_id": 0}
    config(folder, weights, shape, **changes)


def fused_in_shards(folder: Path, weights: Weights, shape: Shape) -> None:
    """The output projections, which tell the rows of q, in another shard than qkv."""
    fused = fuse(weights, "self_attn.qkv_proj", "mlp.w13")
    first = {name: tensor for name, tensor in fused.items() if "o_proj" in name}
    save(folder, first, "model-00001-of-00002.safetensors")
    rest = {name: tensor for name, tensor in fused.items() if name not in first}
    save(folder, rest, "model-00002-of-00002.safetensors")


def baichuan(folder: Path, weights: Weights, shape: Shape) -> None:
    torch.save(fuse(weights, "self_attn.W_pack", None), folder / "pytorch_model.bin")


def gpt_fast(folder: Path, weights: Weights, shape: Shape) -> None:
    """Meta's names and order of rows, q, k and v in one."""
    fused = fuse(in_metas_order(weights, shape), "attention.wqkv", "feed_forward.w13")
    names = {old: new.removeprefix("model.") for old, new in META.items()}
    names |= {"model.layers": "layers", "model.norm": "norm"}
    torch.save(renamed(fused, names), folder / "model.pth")


def internlm2(folder: Path, weights: Weights, shape: Shape) -> None:
    """Meta's names, Hugging Face's order, q, k and v in groups of a key/value head."""
    found = dict(weights)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        q, k, v = (found.pop(f"{prefix}self_attn.{x}_proj.weight") for x in "qkv")
        groups = [tensor.chunk(shape.kv_heads) for tensor in (q, k, v)]
        rows = [piece for group in zip(*groups, strict=True) for piece in group]
        found[f"{prefix}attention.wqkv.weight"] = torch.cat(rows)
    save(folder, renamed(found, META))
    config(folder, weights, shape, model_type="internlm2")


def internlm2_alone(folder: Path, weights: Weights, shape: Shape) -> None:
    internlm2(folder, weights, shape)
    (folder / "config.json").unlink()


def meta(parts: int):
    return lambda folder, weights, shape: write_meta(folder, weights, shape, parts)


def fused_meta(folder: Path, weights: Weights, shape: Shape) -> None:
    """Two model-parallel parts, each with its share of q, k and v in one."""
    write_meta(folder, weights, shape, 2)
    for path in sorted(folder.glob("*.pth")):
        state = torch.load(path, weights_only=True)
        for layer in range(shape.layers):
            prefix = f"layers.{layer}.attention."
            members = [state.pop(f"{prefix}w{x}.weight") for x in "qkv"]
            state[f"{prefix}wqkv.weight"] = torch.cat(members)
        torch.save(state, path)


def gguf_of(dtype: str):
    return lambda folder, weights, shape: write_gguf(
        folder / f"tiny.{dtype}.gguf", weights, shape, dtype
    )


def gguf_in_parts(folder: Path, weights: Weights, shape: Shape) -> None:
    """As gguf-split leaves it: only the first part says whose tensors these are."""
    names = list(weights)
    for number, members in enumerate((names[:5], names[5:]), start=1):
        path = folder / f"tiny-{number:05}-of-00002.gguf"
        part = {name: weights[name] for name in members}
        write_gguf(path, part, shape, "F32", metadata=number == 1)


def gguf_phi3(folder: Path, weights: Weights, shape: Shape) -> None:
    """Fused and not permuted."""
    writer = gguf.GGUFWriter(folder / "phi.gguf", "phi3")
    writer.add_embedding_length(shape.width)
    writer.add_head_count(shape.heads)
    for name, tensor in fuse(weights, "self_attn.qkv_proj", "mlp.gate_up_proj").items():
        layer = f"{name}..".split(".")[2]
        if "qkv_proj" in name:
            theirs = f"blk.{layer}.attn_qkv.weight"
        elif "gate_up" in name:
            theirs = f"blk.{layer}.ffn_up.weight"
        else:
            theirs = gguf_name(name)
        writer.add_tensor(theirs, tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


CLOTHES = {
    "one file": lambda folder, weights, shape: write_hf(folder, weights, shape, 1),
    "three shards": lambda folder, weights, shape: write_hf(folder, weights, shape, 3),
    "without prefix": without_prefix,
    "with two prefixes": with_two_prefixes,
    "phi3": phi3,
    "fused in shards": fused_in_shards,
    "baichuan": baichuan,
    "gpt-fast": gpt_fast,
    "internlm2": internlm2,
    "internlm2 alone": internlm2_alone,
    "meta 1": meta(1),
    "meta 2": meta(2),
    "meta 4": meta(4),
    "meta 8": meta(8),
    "meta fused": fused_meta,
    "gguf F32": gguf_of("F32"),
    "gguf F16": gguf_of("F16"),
    "gguf in parts": gguf_in_parts,
    "gguf phi3": gguf_phi3,
}
