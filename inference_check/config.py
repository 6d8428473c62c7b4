"""What a config says about a model, in Hugging Face's or Meta's words.

Every number is bounded before it is used, and what this check cannot compute faithfully is refused
by name: a wrong answer would be worse than none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verifier.layouts import read_config
from verifier.strict_json import brief

from .errors import NotRun
from .families import FAMILIES, Family

MAX_LAYERS, MAX_WIDTH, MAX_HEADS, MAX_HIDDEN, MAX_VOCAB = 1000, 65_536, 1024, 1 << 20, 1 << 20
LONGEST = 128
"""Positions that are ever run; a sliding window wider than this changes nothing."""

_REFUSED = {
    "quantization_config": "a quantized checkpoint",
    "auto_map": "code of its own (auto_map)",
    "num_local_experts": "a mixture of experts",
    "n_routed_experts": "a mixture of experts",
    "num_experts": "a mixture of experts",
    "moe": "a mixture of experts",
    "moe_args": "a mixture of experts",
    "kv_lora_rank": "multi-head latent attention",
    "quantization_args": "a quantized checkpoint",
    "lora_args": "low-rank adapters",
    "use_scaled_rope": "Meta's scaled rotary embedding",
    "attention_bias": "biases in attention",
    "mlp_bias": "biases in the feed-forward layers",
    "use_bidirectional_attention": "attention to later positions",
}


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Rotary frequencies stretched for long contexts: Llama Team 2024, section 3.4.1."""

    factor: float
    low: float
    high: float
    original: int


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The numbers of one model; ``hidden``, ``vocab``, ``tied`` are None where the tensors tell.

    Scores are divided by √``query_scale``, or by √d where it is None; ``attention_cap`` and
    ``logit_cap`` bound scores and logits softly. ``rope_factors`` divide the rotary frequencies.
    """

    model_type: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int | None
    vocab: int | None
    norm_eps: float
    rope_base: float
    scaling: Llama3Scaling | None = None
    tied: bool | None = None
    query_scale: float | None = None
    attention_cap: float | None = None
    logit_cap: float | None = None
    rope_factors: tuple[float, ...] = ()

    @property
    def family(self) -> Family:
        """What the model does otherwise than LLaMA."""
        return FAMILIES[self.model_type]


def find_config(root: Path, folder: str, stand_in: Path | None) -> ModelConfig:
    """Return the config beside the weights, else the one in ``stand_in``.

    Raises:
        NotRun: there is none, or it describes a model that is not supported.
    """
    for place, prefix in ((root, f"{folder}/" if folder else ""), (stand_in, "")):
        if place is None:
            continue
        config = read_config(place, f"{prefix}config.json")
        if "model_type" in config or "architectures" in config:
            return from_hugging_face(config)
        params = read_config(place, f"{prefix}params.json")
        if "dim" in params:
            return from_meta(params)
    raise NotRun("neither config.json nor params.json can be read beside the weights")


def from_hugging_face(config: Mapping[str, Any]) -> ModelConfig:
    """Understand a config.json.

    Raises:
        NotRun: the architecture is not supported, or a number is missing or out of bounds.
    """
    names = config.get("architectures")
    named = names[0] if isinstance(names, list) and names else config.get("model_type")
    model_type = config.get("model_type", "llama")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise NotRun(f"unsupported architecture: {brief(named, 80)}")
    family = FAMILIES[model_type]
    if named not in (family.architecture, model_type):
        raise NotRun(f"unsupported architecture: {brief(named, 80)}")
    _refuse(config)
    _check_activation(config, family)
    _check_windows(config)
    width = _whole(config, "hidden_size", MAX_WIDTH)
    heads = _whole(config, "num_attention_heads", MAX_HEADS)
    base, scaling = _rope(config)
    tied = config.get("tie_word_embeddings", family.tied)
    if type(tied) is not bool:
        raise NotRun("tie_word_embeddings in its config is neither true nor false")
    caps = family.softcaps
    return _checked(
        ModelConfig(
            model_type=model_type,
            layers=_whole(config, "num_hidden_layers", MAX_LAYERS),
            width=width,
            heads=heads,
            kv_heads=_whole(config, "num_key_value_heads", MAX_HEADS, heads),
            head_width=_whole(config, "head_dim", MAX_WIDTH, family.head_width or width // heads),
            hidden=_whole(config, "intermediate_size", MAX_HIDDEN),
            vocab=_whole(config, "vocab_size", MAX_VOCAB),
            norm_eps=_fraction(config, "rms_norm_eps", 1e-6),
            rope_base=base,
            scaling=scaling,
            tied=tied,
            query_scale=_positive(config, "query_pre_attn_scalar", 256) if caps else None,
            attention_cap=_cap(config, "attn_logit_softcapping", 50.0) if caps else None,
            logit_cap=_cap(config, "final_logit_softcapping", 30.0) if caps else None,
        )
    )


def from_meta(params: Mapping[str, Any]) -> ModelConfig:
    """Understand a params.json; its vocabulary may be −1, and the hidden width is the tensors'.

    Raises:
        NotRun: a number is missing or out of bounds.
    """
    _refuse(params)
    width = _whole(params, "dim", MAX_WIDTH)
    heads = _whole(params, "n_heads", MAX_HEADS)
    vocab = params.get("vocab_size", -1)
    return _checked(
        ModelConfig(
            model_type="llama",
            layers=_whole(params, "n_layers", MAX_LAYERS),
            width=width,
            heads=heads,
            kv_heads=_whole(params, "n_kv_heads", MAX_HEADS, heads),
            head_width=_whole(params, "head_dim", MAX_WIDTH, width // heads),
            hidden=None,
            vocab=None if vocab == -1 else _whole(params, "vocab_size", MAX_VOCAB),
            norm_eps=_fraction(params, "norm_eps", 1e-5),
            rope_base=_base(params.get("rope_theta", 10000.0)),
        )
    )


def from_gguf(metadata: Mapping[str, Any], factors: tuple[float, ...] = ()) -> ModelConfig:
    """Understand the metadata of a GGUF file (llama.cpp, docs/gguf.md); others than LLaMA are not.

    ``factors`` are its tensor `rope_freqs.weight`, if it has one.

    Raises:
        NotRun: the architecture is not supported, or a number is missing or out of bounds.
    """
    kind = metadata.get("general.architecture")
    if kind != "llama":
        raise NotRun(f"unsupported architecture: {brief(kind, 80)} in GGUF")
    own = {k.removeprefix("llama."): v for k, v in metadata.items() if k.startswith("llama.")}
    if own.get("expert_count"):
        raise NotRun("unsupported architecture: a mixture of experts")
    if own.get("rope.scaling.type", "none") != "none":
        raise NotRun(f"unsupported rotary embedding: {brief(own['rope.scaling.type'], 80)}")
    width = _whole(own, "embedding_length", MAX_WIDTH)
    heads = _whole(own, "attention.head_count", MAX_HEADS)
    head_width = _whole(own, "attention.key_length", MAX_WIDTH, width // heads)
    if _whole(own, "attention.value_length", MAX_WIDTH, head_width) != head_width:
        raise NotRun("unsupported architecture: keys and values of different widths")
    if _whole(own, "rope.dimension_count", MAX_WIDTH, head_width) != head_width:
        raise NotRun("unsupported rotary embedding: partial")
    if factors and (len(factors) != head_width // 2 or not all(1e-3 < f < 1e6 for f in factors)):
        raise NotRun("the scaling of the rotary embedding in its tensors makes no sense")
    return _checked(
        ModelConfig(
            model_type="llama",
            layers=_whole(own, "block_count", MAX_LAYERS),
            width=width,
            heads=heads,
            kv_heads=_whole(own, "attention.head_count_kv", MAX_HEADS, heads),
            head_width=head_width,
            hidden=_whole(own, "feed_forward_length", MAX_HIDDEN),
            vocab=None,
            norm_eps=_fraction(own, "attention.layer_norm_rms_epsilon", 1e-5),
            rope_base=_base(own.get("rope.freq_base", 10000.0)),
            rope_factors=factors,
        )
    )


def _refuse(config: Mapping[str, Any]) -> None:
    for key, meaning in _REFUSED.items():
        if config.get(key):
            raise NotRun(f"unsupported architecture: {meaning}")


def _check_activation(config: Mapping[str, Any], family: Family) -> None:
    """Refuse an activation that is not the family's; Gemma's configs have two names for it."""
    for key in ("hidden_act", "hidden_activation"):
        found = config.get(key)
        known = isinstance(found, str) and found in family.activations
        if found is not None and not known:
            raise NotRun(f"unsupported activation: {brief(found, 80)}")


def _check_windows(config: Mapping[str, Any]) -> None:
    """Refuse attention that looks back less far than we ever run, or not only back."""
    window = config.get("sliding_window")
    if config.get("use_sliding_window", True) is False:
        window = None
    if window is not None and not (type(window) is int and window >= LONGEST):
        raise NotRun(f"unsupported sliding window: {brief(window, 80)}")
    kinds = config.get("layer_types") or []
    known = {"full_attention", "sliding_attention"}
    if not isinstance(kinds, list) or not all(isinstance(k, str) and k in known for k in kinds):
        raise NotRun(f"unsupported layer types: {brief(kinds, 80)}")


def _rope(config: Mapping[str, Any]) -> tuple[float, Llama3Scaling | None]:
    """Return base and scaling: ``rope_parameters`` is transformers 5's name for both."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(found, dict):
        raise NotRun("the rotary embedding in its config is not an object")
    base = _base(found.get("rope_theta", config.get("rope_theta", 10000.0)))
    kind = found.get("rope_type", found.get("type", "default"))
    if found.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) != 1.0:
        raise NotRun("unsupported rotary embedding: partial")
    if kind == "default":
        return base, None
    if kind != "llama3":
        raise NotRun(f"unsupported rotary embedding: {brief(kind, 80)}")
    keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    factor, low, high, original = (_positive(found, key) for key in keys)
    if low >= high:
        raise NotRun("the scaling of the rotary embedding in its config makes no sense")
    return base, Llama3Scaling(factor, low, high, int(original))


def _checked(config: ModelConfig) -> ModelConfig:
    if config.heads % config.kv_heads or config.head_width % 2 or config.head_width < 2:
        raise NotRun("the numbers of heads in its config do not fit each other")
    if config.heads * config.head_width > MAX_WIDTH:
        raise NotRun(f"its heads are wider than {MAX_WIDTH:,} together")
    return config


def _whole(config: Mapping[str, Any], key: str, most: int, default: int | None = None) -> int:
    value = config.get(key)
    value = default if value is None else value
    if type(value) is not int or not 1 <= value <= most:
        raise NotRun(f"{key} in its config is {brief(value)}, not between 1 and {most:,}")
    return value


def _fraction(config: Mapping[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise NotRun(f"{key} in its config is {brief(value)}, not between 0 and 1")
    return float(value)


def _cap(config: Mapping[str, Any], key: str, default: float) -> float | None:
    """Return a soft bound; null in the config means none."""
    return None if config.get(key, default) is None else _positive(config, key, default)


def _positive(config: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = config.get(key, default)
    if not isinstance(value, int | float) or not 0 < value < 1e9:
        raise NotRun(f"{key} in its config is {brief(value)}")
    return float(value)


def _base(value: object) -> float:
    if not isinstance(value, int | float) or not 1 <= value <= 1e12:
        raise NotRun(f"the rotary base in its config is {brief(value)}")
    return float(value)
