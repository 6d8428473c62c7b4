"""One tensor, many names: the tables of the LLaMA family, and what is fused in some layouts.

Names are Hugging Face's (canonical), Meta's (github.com/meta-llama/llama) and llama.cpp's (gguf-py,
tensor_mapping.py). Layers are written N. A prefix such as `model.` may be missing or doubled.
"""

import re
from dataclasses import dataclass

ROWS, COLUMNS, COPIES, EITHER = "rows", "columns", "copies", "either"
"""How model-parallel parts make a whole; EITHER: columns in LLaMA 1 and 2, rows in Llama 3."""


@dataclass(frozen=True, slots=True)
class Name:
    """One line of a family's table; ``rotary`` matrices have rows in the order of their layout."""

    canonical: str
    meta: str
    gguf: str
    join: str
    rotary: bool = False


_LAYER = "model.layers.N."
LLAMA = (
    #    Hugging Face (canonical)              Meta                   llama.cpp           parts
    Name("model.embed_tokens.weight", "tok_embeddings.weight", "token_embd.weight", EITHER),
    Name(
        _LAYER + "input_layernorm.weight",
        "layers.N.attention_norm.weight",
        "blk.N.attn_norm.weight",
        COPIES,
    ),
    *(
        Name(f"{_LAYER}{ours}.{kind}", f"layers.N.{metas}.{kind}", f"blk.N.{theirs}.{kind}", *rest)
        for kind in ("weight", "bias")
        for ours, metas, theirs, *rest in (
            ("self_attn.q_proj", "attention.wq", "attn_q", ROWS, True),
            ("self_attn.k_proj", "attention.wk", "attn_k", ROWS, True),
            ("self_attn.v_proj", "attention.wv", "attn_v", ROWS),
            ("self_attn.o_proj", "attention.wo", "attn_output", COLUMNS),
            ("mlp.gate_proj", "feed_forward.w1", "ffn_gate", ROWS),
            ("mlp.up_proj", "feed_forward.w3", "ffn_up", ROWS),
            ("mlp.down_proj", "feed_forward.w2", "ffn_down", COLUMNS),
        )
    ),
    Name(
        _LAYER + "post_attention_layernorm.weight",
        "layers.N.ffn_norm.weight",
        "blk.N.ffn_norm.weight",
        COPIES,
    ),
    Name("model.norm.weight", "norm.weight", "output_norm.weight", COPIES),
    Name("lm_head.weight", "output.weight", "output.weight", ROWS),
)
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

_BY_META = {name.meta: name for name in LLAMA}
_BY_GGUF = {name.gguf: name for name in LLAMA}
_BY_CANONICAL = {name.canonical.removeprefix("model."): name for name in LLAMA}
_ONLY_META = frozenset(_BY_META) - frozenset(_BY_CANONICAL)

PAIRED_ARCHITECTURES = frozenset(
    {"llama", "arcee", "baichuan", "deci", "granite", "internlm2", "minicpm", "olmo", "smollm3"}
    | {"xverse"}
)
"""Where llama.cpp's converter lays the rows of q and k in Meta's order (`permute`)."""

FUSED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.W_pack": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.wqkv": ("attention.wq", "attention.wk", "attention.wv"),
    "attn_qkv": ("attn_q", "attn_k", "attn_v"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.w13": ("mlp.gate_proj", "mlp.up_proj"),
    "feed_forward.w13": ("feed_forward.w1", "feed_forward.w3"),
}
"""Projections stored as one, and what they are made of, in the order of their rows."""

# Buffers that are computed from the config and hold nothing that was learnt.
_BUFFERS = re.compile(
    r"(^|\.)(rope\.freqs|rotary_emb\.inv_freq|position_ids"
    r"|rope_freqs\.weight|rope_factors_(long|short)\.weight)$"
)
_FUSED_META = re.compile(r"\.(attention\.wqkv|feed_forward\.w13)\.weight$")
_PREFIX = re.compile(r"^(?:(?:module|_orig_mod|model)\.)+")
_NUMBER = re.compile(r"(?:(?<=^layers\.)|(?<=^blk\.))\d{1,6}(?=\.)")
_FUSED = re.compile(
    r"^(?P<layer>(?:(?:module|_orig_mod|model)\.)*(?:layers|blk)\.\d{1,6}\.)"
    r"(?P<module>" + "|".join(map(re.escape, (*FUSED, "ffn_up"))) + r")(?P<kind>\.weight|\.bias)$"
)


@dataclass(frozen=True, slots=True)
class FusedName:
    """A name such as `model.layers.3.self_attn.qkv_proj.weight`, taken apart."""

    layer: str
    module: str
    kind: str

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the projections that it holds, in the dialect that it is written in."""
        members = FUSED.get(self.module, ("ffn_gate", "ffn_up"))
        return tuple(f"{self.layer}{member}{self.kind}" for member in members)


def canonical_name(name: str) -> tuple[str, Name | None]:
    """Return the canonical name and the line of the table that holds it, if one does."""
    bare, pattern, number = _pattern(name)
    line = _BY_META.get(pattern) or _BY_CANONICAL.get(pattern) or _BY_GGUF.get(pattern)
    if line is not None:
        layer = str(int(number)) if number else ""
        return line.canonical.replace(".N.", f".{layer}."), line
    return (f"model.{bare}" if bare != name and number else name), None


def is_metas(name: str) -> bool:
    """Tell whether only Meta's layout has this name."""
    return _pattern(name)[1] in _ONLY_META or _FUSED_META.search(name) is not None


def is_buffer(name: str) -> bool:
    """Tell whether a tensor is a buffer computed from the config, which is not compared."""
    return _BUFFERS.search(name) is not None


def fused_name(name: str) -> FusedName | None:
    """Return the parts of the name of projections that are stored as one, or None."""
    found = _FUSED.match(name)
    return FusedName(found["layer"], found["module"], found["kind"]) if found else None


def _pattern(name: str) -> tuple[str, str, str | None]:
    """Return the name without prefix, with N for its layer, and the layer."""
    bare = _PREFIX.sub("", name)
    number = _NUMBER.search(bare)
    return bare, _NUMBER.sub("N", bare), number.group() if number else None
