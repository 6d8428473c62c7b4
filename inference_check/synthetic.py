"""Make a small checkpoint of the LLaMA architecture from a seed.

The two layouts of one seed hold the same weights:

    hf     model-0000N-of-0000M.safetensors, model.safetensors.index.json, config.json
    meta   consolidated.NN.pth (model-parallel parts), params.json, checklist.chk

Entries are drawn from SHAKE-256 of the seed and the tensor's name, never from a library's random
numbers, so one seed means the same bytes on every machine and with every version of torch that
serializes alike. Matrices are scaled by 1/√(columns): activations keep their size through the
layers, and fp32 stays within a few roundings of fp64.

    python -m inference_check.synthetic DIR --layout hf --parts 2 --seed 7
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

Layout = Literal["hf", "meta"]
Weights = dict[str, Tensor]

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers that fix a LLaMA model: Touvron et al. 2023, table 2."""

    layers: int = 4
    width: int = 128
    heads: int = 4
    kv_heads: int = 2
    hidden: int = 352
    vocab: int = 512
    norm_eps: float = 1e-6
    rope_base: float = 10000.0

    @property
    def head_width(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    def check(self, parts: int) -> None:
        """Raise ValueError where these numbers cannot make a model in ``parts`` parts."""
        if min(self.layers, self.width, self.heads, self.kv_heads, self.hidden, self.vocab) < 1:
            raise ValueError("every size must be at least 1")
        if self.width % self.heads or self.head_width % 2:
            raise ValueError("width must be heads times an even number")
        if self.heads % self.kv_heads:
            raise ValueError("heads must be a multiple of kv-heads")
        if parts < 1:
            raise ValueError("there must be at least one part")


def make_checkpoint(
    folder: Path,
    layout: Layout,
    *,
    parts: int = 2,
    seed: int = 7,
    shape: Shape | None = None,
    dtype: str = "float16",
    swap_layers: tuple[int, int] | None = None,
) -> None:
    """Write the checkpoint of ``seed`` into ``folder``, which is made where missing.

    ``swap_layers`` exchanges two layers: files, names and shapes stay as they were, and only a
    check that looks at values can tell.

    Raises:
        ValueError: the numbers make no model.
    """
    shape = shape or Shape()
    shape.check(parts)
    weights = make_weights(shape, seed, dtype)
    if swap_layers is not None:
        weights = swapped(weights, *swap_layers)
    folder.mkdir(parents=True, exist_ok=True)
    write = write_hf if layout == "hf" else write_meta
    write(folder, weights, shape, parts)


def make_weights(shape: Shape, seed: int = 7, dtype: str = "float16") -> Weights:
    """Return every tensor under its Hugging Face name, in the order of the model."""
    d, f, v = shape.width, shape.hidden, shape.vocab
    kv = shape.kv_heads * shape.head_width
    sizes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (v, d)}
    for layer in range(shape.layers):
        for name, size in {
            "input_layernorm": (d,),
            "self_attn.q_proj": (d, d),
            "self_attn.k_proj": (kv, d),
            "self_attn.v_proj": (kv, d),
            "self_attn.o_proj": (d, d),
            "post_attention_layernorm": (d,),
            "mlp.gate_proj": (f, d),
            "mlp.up_proj": (f, d),
            "mlp.down_proj": (d, f),
        }.items():
            sizes[f"model.layers.{layer}.{name}.weight"] = size
    sizes |= {"model.norm.weight": (d,), "lm_head.weight": (v, d)}
    return {name: draw(name, size, seed).to(DTYPES[dtype]) for name, size in sizes.items()}


def draw(name: str, size: tuple[int, ...], seed: int) -> Tensor:
    """Return fp32 entries, uniform around 0 with deviation 1/√(columns); norms around 1."""
    count = math.prod(size)
    stream = hashlib.shake_256(f"weighbridge synthetic {seed} {name}".encode()).digest(2 * count)
    steps = torch.from_numpy(np.frombuffer(stream, "<u2").astype(np.float32))
    uniform = (steps + 0.5) * (2 / 65536) - 1
    if len(size) == 1:
        return 1 + 0.1 * uniform
    deviation = 1.0 if name == "model.embed_tokens.weight" else 1 / math.sqrt(size[1])
    return (uniform * (math.sqrt(3) * deviation)).reshape(size)


def swapped(weights: Weights, first: int, second: int) -> Weights:
    """Return the weights with two layers exchanged.

    Raises:
        ValueError: there is no such layer.
    """
    one, two = f"model.layers.{first}.", f"model.layers.{second}."
    for prefix in (one, two):
        if not any(name.startswith(prefix) for name in weights):
            raise ValueError(f"there is no layer {prefix.split('.')[2]} to swap")
    source = {name: name for name in weights}
    for name in weights:
        if name.startswith(one):
            other = two + name.removeprefix(one)
            source[name], source[other] = other, name
    return {name: weights[source[name]] for name in weights}


def write_hf(folder: Path, weights: Weights, shape: Shape, parts: int = 2) -> None:
    """Write safetensors shards, their index and config.json."""
    names = sorted(weights)
    shards = [names[len(names) * i // parts : len(names) * (i + 1) // parts] for i in range(parts)]
    placed: dict[str, str] = {}
    for number, members in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{parts:05d}.safetensors"
        save_file({n: weights[n].contiguous() for n in members}, folder / file, {"format": "pt"})
        placed |= dict.fromkeys(members, file)
    size = sum(t.numel() * t.element_size() for t in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": placed}
    write_json(folder / "model.safetensors.index.json", index)
    write_json(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_act": "silu",
            "hidden_size": shape.width,
            "intermediate_size": shape.hidden,
            "max_position_embeddings": 2048,
            "model_type": "llama",
            "num_attention_heads": shape.heads,
            "num_hidden_layers": shape.layers,
            "num_key_value_heads": shape.kv_heads,
            "rms_norm_eps": shape.norm_eps,
            "rope_theta": shape.rope_base,
            "tie_word_embeddings": False,
            "torch_dtype": str(next(iter(weights.values())).dtype).removeprefix("torch."),
            "vocab_size": shape.vocab,
        },
    )


# Hugging Face's name in a layer, Meta's, and the dimension that model parallelism cuts.
META_LAYER = (
    ("self_attn.q_proj", "attention.wq", 0),
    ("self_attn.k_proj", "attention.wk", 0),
    ("self_attn.v_proj", "attention.wv", 0),
    ("self_attn.o_proj", "attention.wo", 1),
    ("mlp.gate_proj", "feed_forward.w1", 0),
    ("mlp.down_proj", "feed_forward.w2", 1),
    ("mlp.up_proj", "feed_forward.w3", 0),
    ("input_layernorm", "attention_norm", None),
    ("post_attention_layernorm", "ffn_norm", None),
)


def write_meta(folder: Path, weights: Weights, shape: Shape, parts: int = 2) -> None:
    """Write Meta's original layout: consolidated parts, params.json and checklist.chk.

    Raises:
        ValueError: the matrices cannot be cut into ``parts``.
    """
    if any(n % parts for n in (shape.width, shape.kv_heads, shape.hidden, shape.vocab)):
        raise ValueError("width, kv-heads, hidden and vocab must be multiples of parts")
    names: dict[str, tuple[str, int | None]] = {
        "tok_embeddings.weight": ("model.embed_tokens.weight", 1),
        "norm.weight": ("model.norm.weight", None),
        "output.weight": ("lm_head.weight", 0),
    }
    for layer in range(shape.layers):
        for ours, theirs, cut in META_LAYER:
            names[f"layers.{layer}.{theirs}.weight"] = (f"model.layers.{layer}.{ours}.weight", cut)

    for part in range(parts):
        state: Weights = {}
        for name, (source, cut) in names.items():
            tensor = weights[source]
            if name.endswith(("wq.weight", "wk.weight")):
                tensor = interleaved(tensor, shape.head_width)
            piece = tensor if cut is None else tensor.chunk(parts, cut)[part]
            state[name] = piece.clone()
        pairs = torch.arange(0, shape.head_width, 2, dtype=torch.float32)
        state["rope.freqs"] = (shape.rope_base ** -(pairs / shape.head_width)).to(piece.dtype)
        torch.save(state, folder / f"consolidated.{part:02d}.pth")

    params = {
        "dim": shape.width,
        "multiple_of": multiple_of(shape),
        "n_heads": shape.heads,
        "n_kv_heads": shape.kv_heads,
        "n_layers": shape.layers,
        "norm_eps": shape.norm_eps,
        "vocab_size": -1,
    }
    if shape.kv_heads == shape.heads:  # as LLaMA 1, which did not know grouped queries
        del params["n_kv_heads"]
    if shape.rope_base != 10000.0:
        params["rope_theta"] = shape.rope_base
    write_json(folder / "params.json", params)
    listed = [*(f"consolidated.{part:02d}.pth" for part in range(parts)), "params.json"]
    lines = [f"{md5(folder / name)}  {name}\n" for name in listed]
    (folder / "checklist.chk").write_text("".join(lines), encoding="utf-8")


def interleaved(matrix: Tensor, head_width: int) -> Tensor:
    """Reorder the rows of each head from halves to pairs: [heads, 2, d/2] to [heads, d/2, 2].

    Hugging Face rotates channel i with i + d/2, Meta with its neighbour (Su et al. 2021).
    """
    rows, columns = matrix.shape
    return matrix.view(-1, 2, head_width // 2, columns).transpose(1, 2).reshape(rows, columns)


def multiple_of(shape: Shape) -> int:
    """Return the rounding by which Meta's code arrives at this hidden width, largest power of 2."""
    wanted = 2 * (4 * shape.width) // 3
    rounds = [2**k for k in range(12) if -(-wanted // 2**k) * 2**k == shape.hidden]
    return max(rounds, default=shape.hidden)


def md5(path: Path) -> str:
    """Return the MD5 of a small file, in hex: what Meta's checklist.chk holds."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write JSON as Hugging Face does: indented, keys sorted, a newline at the end."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    shape = Shape()
    parser = argparse.ArgumentParser(
        prog="python -m inference_check.synthetic",
        description="Make a small LLaMA-architecture checkpoint from a seed.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--layout", choices=("hf", "meta"), required=True)
    parser.add_argument("--parts", type=int, default=2, help="shards, or model-parallel parts")
    parser.add_argument("--seed", type=int, default=7)
    for name in ("layers", "width", "heads", "kv_heads", "hidden", "vocab"):
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=int, default=getattr(shape, name))
    parser.add_argument("--norm-eps", type=float, default=shape.norm_eps)
    parser.add_argument("--rope-base", type=float, default=shape.rope_base)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float16")
    parser.add_argument("--swap-layers", type=int, nargs=2, metavar=("I", "J"))
    given = parser.parse_args(arguments)
    try:
        make_checkpoint(
            given.folder,
            given.layout,
            parts=given.parts,
            seed=given.seed,
            shape=Shape(**{name: getattr(given, name) for name in Shape.__slots__}),
            dtype=given.dtype,
            swap_layers=tuple(given.swap_layers) if given.swap_layers else None,
        )
    except (ValueError, OSError) as error:
        print(f"synthetic: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
