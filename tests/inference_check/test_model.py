"""The model against what others compute: transformers in fp32, and Meta's formula written out."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from inference_check.copies import open_copy
from inference_check.families import FAMILIES
from inference_check.model import rms_norm, rotary_angles, rotate
from inference_check.run import Questions, run
from inference_check.signs import token_ids
from inference_check.synthetic import make_checkpoint, write_hf

from .conftest import SHAPE, edit_json

CPU = torch.device("cpu")
TOKENS = tuple(token_ids("test", 64, SHAPE.vocab))
ALL = torch.arange(SHAPE.vocab).expand(64, -1)


def logits(folder, dtype=torch.float32, tokens=TOKENS):
    """Return every logit that our run gives, [T, V]."""
    questions = Questions("test", tokens, ALL[: len(tokens)])
    return run(open_copy(folder), questions, device=CPU, dtype=dtype).answers.logits


def by_transformers(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([TOKENS])).logits[0].double()


def distance(found, expected):
    return float(((found - expected).abs().amax(1) / expected.std(1)).max())


LLAMA3 = {
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"rope_theta": 500000.0},
        LLAMA3,
        {"rms_norm_eps": 1e-3},
        {"model_type": "mistral", "architectures": ["MistralForCausalLM"]},
        {"tie_word_embeddings": True},
    ],
    ids=["llama", "base", "llama3", "eps", "mistral", "tied"],
)
def test_hugging_face_layout_computes_what_transformers_does(tmp_path, weights, config):
    if config.get("tie_word_embeddings"):
        weights = {n: t for n, t in weights.items() if n != "lm_head.weight"}
    write_hf(tmp_path, weights, SHAPE)
    edit_json(tmp_path / "config.json", **config)
    assert distance(logits(tmp_path), by_transformers(tmp_path)) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_named_as_transformers_names_it(family):
    from transformers import CONFIG_MAPPING

    architecture = FAMILIES[family].architecture
    assert CONFIG_MAPPING[family].__name__ == architecture.replace("ForCausalLM", "Config")


def by_metas_formula(folder):
    """Return the logits by Meta's published formula, whole and in fp64: complex rotation of pairs.

    Independent of our code: it joins the parts itself, unpickles with torch, and knows nothing of
    Hugging Face's order of rows.
    """
    params = json.loads((folder / "params.json").read_text())
    parts = [torch.load(p, weights_only=True) for p in sorted(folder.glob("*.pth"))]

    def whole(name, dim=None):
        pieces = [part[name].double() for part in parts]
        return pieces[0] if dim is None else torch.cat(pieces, dim)

    heads, width = params["n_heads"], params["dim"] // params["n_heads"]
    kv_heads = params.get("n_kv_heads", heads)

    def norm(x, name):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + params["norm_eps"]) * whole(name)

    base = params.get("rope_theta", 10000.0)
    frequencies = 1.0 / base ** (torch.arange(0, width, 2).double() / width)
    turns = torch.polar(
        torch.ones(64, width // 2).double(), torch.outer(torch.arange(64).double(), frequencies)
    )

    def rotated(x):
        pairs = torch.view_as_complex(x.reshape(64, -1, width // 2, 2))
        return torch.view_as_real(pairs * turns[:, None]).flatten(2)

    x = whole("tok_embeddings.weight", 1)[list(TOKENS)]
    for layer in range(params["n_layers"]):
        name = f"layers.{layer}."
        h = norm(x, name + "attention_norm.weight")
        q = rotated((h @ whole(name + "attention.wq.weight", 0).T).view(64, heads, width))
        k = rotated((h @ whole(name + "attention.wk.weight", 0).T).view(64, kv_heads, width))
        v = (h @ whole(name + "attention.wv.weight", 0).T).view(64, kv_heads, width)
        mixed = []
        for head in range(heads):
            shared = head // (heads // kv_heads)
            scores = q[:, head] @ k[:, shared].T / width**0.5
            scores = scores + torch.full((64, 64), -torch.inf).triu(1)
            mixed.append(scores.softmax(-1) @ v[:, shared])
        x = x + torch.cat(mixed, 1) @ whole(name + "attention.wo.weight", 1).T
        h = norm(x, name + "ffn_norm.weight")
        gate = h @ whole(name + "feed_forward.w1.weight", 0).T
        up = h @ whole(name + "feed_forward.w3.weight", 0).T
        x = x + (gate * gate.sigmoid() * up) @ whole(name + "feed_forward.w2.weight", 1).T
    return norm(x, "norm.weight") @ whole("output.weight", 0).T


@pytest.mark.parametrize("parts", [1, 2])
def test_metas_layout_computes_metas_formula(tmp_path, parts):
    make_checkpoint(tmp_path, "meta", parts=parts, shape=SHAPE)
    expected = by_metas_formula(tmp_path)
    assert distance(logits(tmp_path), expected) < 1e-5
    assert distance(logits(tmp_path, torch.float64), expected) < 1e-12


def test_llama_3_in_metas_layout_cuts_the_embedding_by_rows(tmp_path):
    make_checkpoint(tmp_path, "meta", parts=2, shape=SHAPE)
    expected = by_metas_formula(tmp_path)
    files = sorted(tmp_path.glob("*.pth"))
    states = [torch.load(file, weights_only=True) for file in files]
    whole = torch.cat([state["tok_embeddings.weight"] for state in states], 1)
    for file, state, rows in zip(files, states, whole.chunk(2), strict=True):
        torch.save(state | {"tok_embeddings.weight": rows.clone()}, file)
    assert distance(logits(tmp_path), expected) < 1e-5


def test_both_layouts_agree_to_the_last_bits_of_fp64(official):
    one, two = (logits(official / layout, torch.float64) for layout in ("hf", "meta"))
    assert distance(one, two) < 1e-12


def test_the_future_does_not_change_the_past(official):
    short = logits(official / "hf", tokens=TOKENS[:16])
    assert distance(short, logits(official / "hf")[:16]) < 1e-6
    other = logits(official / "hf", tokens=(*TOKENS[:16], 0, 1, 2, 3))
    assert distance(other[:16], short) < 1e-6


def test_rotation_keeps_length_and_depends_on_distance_alone(official):
    angles = rotary_angles(64, open_copy(official / "hf").config)
    x = torch.randn(1, 1, 16, dtype=torch.float64).expand(64, 1, 16)
    y = torch.randn(1, 1, 16, dtype=torch.float64).expand(64, 1, 16)
    one, two = rotate(x, angles)[:, 0], rotate(y, angles)[:, 0]
    assert torch.allclose(one.norm(dim=1), x[:, 0].norm(dim=1))
    products = one @ two.T
    assert torch.allclose(products[:-5, :-5], products[5:, 5:])


def test_a_norm_does_not_see_scale():
    x, gain = torch.randn(3, 8, dtype=torch.float64), torch.ones(8, dtype=torch.float64)
    assert torch.allclose(rms_norm(x, gain, 0.0), rms_norm(1000 * x, gain, 0.0))
