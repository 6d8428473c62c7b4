"""Each family as transformers makes and computes it, in fp32, from one small config of its own."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from inference_check.copies import open_copy
from inference_check.errors import NotRun
from inference_check.families import FAMILIES
from inference_check.run import Questions, run

from .conftest import edit_json

VOCAB = 320
TOKENS = tuple(range(3, 259, 4))
ALL = torch.arange(VOCAB).expand(64, -1)
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 144,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCAB,
    "initializer_range": 0.125,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CASES = {
    "llama": ("llama", {}),
    "llama3-tied": ("llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "mistral": ("mistral", {"head_dim": 32}),
    "qwen2": ("qwen2", {}),
    "qwen2-tied": ("qwen2", {"tie_word_embeddings": True, "rms_norm_eps": 1e-5}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "gemma": ("gemma", {"head_dim": 32}),
    "gemma2": ("gemma2", {"head_dim": 32, "query_pre_attn_scalar": 48}),
    "gemma2-uncapped": (
        "gemma2",
        {"head_dim": 32, "final_logit_softcapping": None, "attn_logit_softcapping": None},
    ),
}


def make(folder, model_type, changes, **saving):
    """A model of transformers' own making; norms and biases are moved off their first values."""
    torch.manual_seed(5)
    config = AutoConfig.for_model(model_type, **SMALL, **changes)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape))
    model.save_pretrained(folder, **saving)
    with torch.no_grad():
        return model(torch.tensor([TOKENS])).logits[0].double()


def ours(folder, dtype=torch.float32):
    questions = Questions("test", TOKENS, ALL)
    return run(open_copy(folder), questions, device=torch.device("cpu"), dtype=dtype).answers.logits


def distance(found, expected):
    return float(((found - expected).abs().amax(1) / expected.std(1)).max())


@pytest.mark.parametrize(("model_type", "changes"), CASES.values(), ids=CASES)
def test_a_family_computes_what_transformers_computes(tmp_path, model_type, changes):
    expected = make(tmp_path, model_type, changes)
    assert distance(ours(tmp_path), expected) < 1e-5
    assert distance(ours(tmp_path, torch.float64), expected) < 1e-5


def test_every_family_is_compared(tmp_path):
    assert {model_type for model_type, _ in CASES.values()} == FAMILIES.keys()


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_family_keeps_its_answers_in_many_shards(tmp_path, model_type):
    changes = {"head_dim": 32} if FAMILIES[model_type].head_width else {}
    expected = make(tmp_path, model_type, changes, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    assert distance(ours(tmp_path), expected) < 1e-5


@pytest.mark.parametrize("model_type", ["mixtral", "phi", "falcon", "gpt_neox", "deepseek_v3"])
def test_other_architectures_are_refused_by_name(tmp_path, model_type):
    make(tmp_path, "llama", {})
    named = AutoConfig.for_model(model_type)
    architecture = f"{model_type.title()}ForCausalLM"
    edit_json(tmp_path / "config.json", architectures=[architecture], model_type=named.model_type)
    with pytest.raises(NotRun, match=f"unsupported architecture: {architecture}"):
        open_copy(tmp_path)


@pytest.mark.parametrize(
    ("model_type", "change"),
    [
        ("qwen2", {"use_sliding_window": True, "sliding_window": 16}),
        ("qwen2", {"layer_types": ["linear_attention"] * 3}),
        ("gemma", {"hidden_act": "silu"}),
        ("gemma2", {"hidden_activation": "relu"}),
        ("gemma2", {"sliding_window": 8}),
        ("gemma2", {"attn_logit_softcapping": -1}),
        ("qwen3", {"attention_bias": True}),
        ("gemma", {"use_bidirectional_attention": True}),
    ],
)
def test_what_a_family_could_also_be_is_refused(tmp_path, model_type, change):
    make(tmp_path, model_type, {"head_dim": 32} if FAMILIES[model_type].head_width else {})
    edit_json(tmp_path / "config.json", **change)
    with pytest.raises(NotRun):
        open_copy(tmp_path)


def test_a_window_that_a_config_does_not_use_is_no_window(tmp_path):
    make(tmp_path, "qwen2", {})
    edit_json(tmp_path / "config.json", use_sliding_window=False, sliding_window=8)
    assert open_copy(tmp_path).config.model_type == "qwen2"


def test_gemmas_old_name_of_its_activation_is_known(tmp_path):
    expected = make(tmp_path, "gemma", {"head_dim": 32})
    edit_json(tmp_path / "config.json", hidden_act="gelu")
    assert distance(ours(tmp_path), expected) < 1e-5


def test_a_tied_head_is_tied_where_the_config_does_not_say_so(tmp_path):
    expected = make(tmp_path, "gemma", {"head_dim": 32})
    assert json.loads((tmp_path / "config.json").read_text()).get("tie_word_embeddings", True)
    edit_json(tmp_path / "config.json", tie_word_embeddings=None)
    assert distance(ours(tmp_path), expected) < 1e-5
