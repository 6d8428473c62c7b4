"""Configs: what is understood, what is refused by name, what is out of bounds."""

import json

import pytest

from inference_check.config import Llama3Scaling, find_config, from_hugging_face, from_meta
from inference_check.errors import NotRun

HF = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "vocab_size": 384,
}
META = {"dim": 64, "n_heads": 4, "n_kv_heads": 2, "n_layers": 2, "norm_eps": 1e-6}
SCALING = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def test_both_layouts_describe_one_model():
    one, two = from_hugging_face(HF), from_meta(META | {"vocab_size": -1})
    for field in ("layers", "width", "heads", "kv_heads", "head_width", "norm_eps", "rope_base"):
        assert getattr(one, field) == getattr(two, field)
    assert (two.vocab, two.hidden) == (None, None)


def test_the_first_llama_has_as_many_keys_as_queries():
    assert from_meta({k: v for k, v in META.items() if k != "n_kv_heads"}).kv_heads == 4


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 5e5, "rope_scaling": SCALING | {"rope_type": "llama3"}},
        {"rope_theta": 5e5, "rope_scaling": SCALING | {"type": "llama3"}},
        {"rope_parameters": SCALING | {"rope_type": "llama3", "rope_theta": 5e5}},
    ],
)
def test_the_scaling_of_llama_3_is_known_in_each_spelling(rope):
    config = from_hugging_face(HF | rope)
    assert (config.rope_base, config.scaling) == (5e5, Llama3Scaling(8.0, 1.0, 4.0, 8192))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architectures": ["FalconForCausalLM"], "model_type": "falcon"}, "FalconForCausalLM"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"model_type": ["llama"]}, "Llama"),
        ({"num_local_experts": 8}, "experts"),
        ({"n_routed_experts": 8}, "experts"),
        ({"kv_lora_rank": 8}, "latent"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"auto_map": {"AutoModel": "x"}}, "auto_map"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "yarn"),
        ({"rope_scaling": 5}, "rotary"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "factor"),
        ({"rope_scaling": SCALING | {"type": "llama3", "high_freq_factor": 1.0}}, "scaling"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial"),
        ({"rope_theta": "1e4"}, "base"),
        ({"attention_bias": True}, "biases"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"sliding_window": 16}, "window"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings"),
        ({"num_hidden_layers": 1001}, "num_hidden_layers"),
        ({"num_hidden_layers": 2**63}, "num_hidden_layers"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"hidden_size": 1 << 17}, "hidden_size"),
        ({"vocab_size": 1 << 21}, "vocab_size"),
        ({"vocab_size": -1}, "vocab_size"),
        ({"intermediate_size": None}, "intermediate_size"),
        ({"num_key_value_heads": 3}, "heads"),
        ({"num_attention_heads": 64, "num_key_value_heads": 64}, "heads"),
        ({"num_attention_heads": 128, "num_key_value_heads": 128}, "head_dim"),
        ({"head_dim": 60_000}, "heads"),
        ({"rms_norm_eps": 1}, "rms_norm_eps"),
    ],
)
def test_what_cannot_be_computed_faithfully_is_refused_by_name(change, named):
    with pytest.raises(NotRun, match=named):
        from_hugging_face(HF | change)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"dim": 0}, "dim"),
        ({"n_layers": "2"}, "n_layers"),
        ({"moe_args": {"num_experts": 8}}, "experts"),
        ({"use_scaled_rope": True}, "rotary"),
        ({"norm_eps": -1}, "norm_eps"),
    ],
)
def test_params_are_bounded_too(change, named):
    with pytest.raises(NotRun, match=named):
        from_meta(META | change)


def test_a_published_config_serves_only_where_the_copy_has_none(tmp_path):
    copy, published = tmp_path / "copy", tmp_path / "published"
    for folder, layers in ((copy, 3), (published, 2)):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(HF | {"num_hidden_layers": layers}))
    assert find_config(copy, "", published).layers == 3
    (copy / "config.json").unlink()
    assert find_config(copy, "", published).layers == 2
    with pytest.raises(NotRun, match=r"neither config\.json nor params\.json"):
        find_config(copy, "", None)


def test_a_config_nested_too_deeply_is_no_config(tmp_path):
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(NotRun):
        find_config(tmp_path, "", None)
