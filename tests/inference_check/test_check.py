"""What a check says of copies: true ones, converted ones, and ones spoiled in one place."""

import json
import math
import os
import shutil

import pytest
import torch

from inference_check import __main__ as command
from inference_check.synthetic import make_checkpoint, make_weights, write_hf, write_meta

from .conftest import SHAPE, edit_json


@pytest.fixture
def copy(official, tmp_path):
    return shutil.copytree(official / "hf", tmp_path / "hf")


def rewrite(folder, weights, write=write_hf):
    folder.mkdir(exist_ok=True)
    write(folder, weights, SHAPE, 2)
    return folder


@pytest.mark.parametrize("layout", ["hf", "meta"])
@pytest.mark.parametrize("positions", [4, 32, 64])
def test_both_layouts_agree_with_one_reference(official, check, layout, positions):
    outcome = check(official / layout, "--positions", positions)
    assert (outcome.status, outcome.inference["status"]) == (0, "agrees")
    assert outcome.inference["positions"] == positions
    assert outcome.inference["statistics"]["top1"] == 1.0
    assert outcome.err == ""


@pytest.mark.parametrize("parts", [1, 4])
def test_re_sharded_copies_agree(tmp_path, check, parts):
    make_checkpoint(tmp_path, "hf", parts=parts, shape=SHAPE)
    assert check(tmp_path).inference["status"] == "agrees"


@pytest.mark.parametrize("write", [write_hf, write_meta])
def test_wider_types_agree(tmp_path, check, weights, write):
    wide = {name: tensor.float() for name, tensor in weights.items()}
    assert check(rewrite(tmp_path / "wide", wide, write)).inference["status"] == "agrees"


@pytest.mark.parametrize("layout", ["hf", "meta"])
def test_swapped_layers_disagree_and_the_first_is_named(tmp_path, check, layout):
    make_checkpoint(tmp_path, layout, shape=SHAPE, swap_layers=(1, 3))
    outcome = check(tmp_path)
    assert outcome.status == 1
    assert outcome.inference["status"] == "disagrees"
    assert outcome.inference["first_layer"] == "layer 1"
    assert outcome.inference["first_tensor"] == "layer 1's input_layernorm"
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"rope_theta": 10100.0},
        {"rms_norm_eps": 1e-5},
        {"num_key_value_heads": 4},
        {"num_attention_heads": 8},
        {"num_hidden_layers": 3},
        {"vocab_size": 385},
        {"intermediate_size": 175},
        {"tie_word_embeddings": True},
    ],
)
def test_a_config_that_is_not_the_published_one_disagrees(copy, check, change):
    edit_json(copy / "config.json", **change)
    assert (check(copy).status, check(copy).inference["status"]) == (1, "disagrees")


@pytest.mark.parametrize("change", [{"norm_eps": 1e-5}, {"rope_theta": 10100.0}])
def test_params_that_are_not_the_published_ones_disagree(official, tmp_path, check, change):
    copy = shutil.copytree(official / "meta", tmp_path / "meta")
    edit_json(copy / "params.json", **change)
    assert check(copy).inference["status"] == "disagrees"


@pytest.mark.parametrize(
    ("name", "place", "tensor"),
    [
        ("model.layers.2.mlp.down_proj.weight", "layer 2", "layer 2's down_proj"),
        ("model.layers.1.input_layernorm.weight", "layer 1", "layer 1's input_layernorm"),
        ("model.norm.weight", "the final norm", "the final norm"),
        ("lm_head.weight", "the output head", "the output head"),
    ],
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_numbers_disagree_and_are_named(
    tmp_path, check, weights, name, place, tensor, value
):
    spoiled = weights[name].clone()
    spoiled.view(-1)[3] = value
    outcome = check(rewrite(tmp_path / "nan", weights | {name: spoiled}))
    assert outcome.inference["status"] == "disagrees"
    assert outcome.inference["first_layer"] == place
    assert outcome.inference["first_tensor"] == tensor
    assert tensor in outcome.err


def test_weights_whose_products_overflow_are_named_by_layer(tmp_path, check, weights):
    huge = {name: tensor.float() for name, tensor in weights.items()}
    huge["model.layers.1.mlp.up_proj.weight"] *= 1e38
    outcome = check(rewrite(tmp_path / "huge", huge))
    assert outcome.inference["status"] == "disagrees"
    assert outcome.inference["first_layer"] == "layer 1"


def test_digests_that_cannot_be_written_are_one_sentence(official, check):
    outcome = check(official / "hf", "--leaves-out", "/nowhere/leaves")
    assert (outcome.status, outcome.inference["status"]) == (3, "not-run")
    assert "cannot be written" in outcome.err


@pytest.mark.parametrize("layer", range(4))
def test_a_layer_in_four_bits_is_found_and_named(tmp_path, check, weights, layer):
    rounded = dict(weights)
    for name, tensor in weights.items():
        if f"layers.{layer}." in name and tensor.ndim == 2:
            step = tensor.float().abs().amax(1, keepdim=True) / 7
            rounded[name] = ((tensor / step).round() * step).half()
    outcome = check(rewrite(tmp_path / "four", rounded))
    assert outcome.inference["first_layer"] == f"layer {layer}"
    assert outcome.inference["first_tensor"] == f"layer {layer}'s q_proj"
    assert len(outcome.inference["tensors"]) == 7


MATRICES = [
    "self_attn.q_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.up_proj",
    "mlp.down_proj",
]


@pytest.mark.parametrize("write", [write_hf, write_meta])
@pytest.mark.parametrize("matrix", MATRICES)
def test_one_matrix_in_eight_bits_is_named(tmp_path, check, weights, matrix, write):
    name = f"model.layers.2.{matrix}.weight"
    step = weights[name].float().abs().amax(1, keepdim=True) / 127
    changed = weights | {name: ((weights[name] / step).round() * step).half()}
    outcome = check(rewrite(tmp_path / "eight", changed, write))
    assert outcome.inference["first_layer"] == "layer 2"
    place = f"layer 2's {matrix.partition('.')[2]}"
    assert outcome.inference["first_tensor"] == place
    assert [row["tensor"] for row in outcome.inference["tensors"]] == [name]
    assert place in outcome.err


def test_one_bit_in_an_exponent_disagrees(tmp_path, check, weights):
    name = "model.layers.3.mlp.down_proj.weight"
    bits = weights[name].clone().view(torch.int16)
    bits[5, 5] ^= 1 << 13
    outcome = check(rewrite(tmp_path / "bit", weights | {name: bits.view(torch.float16)}))
    assert outcome.inference["first_layer"] == "layer 3"
    assert outcome.inference["first_tensor"] == "layer 3's down_proj"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.embed_tokens.weight", "the embedding"),
        ("lm_head.weight", "the output head"),
        ("model.norm.weight", "the final norm"),
        ("model.layers.1.post_attention_layernorm.weight", "layer 1's post_attention_layernorm"),
    ],
)
def test_a_tensor_outside_the_products_is_named_too(
    official, tmp_path, check, weights, name, place
):
    changed = weights[name].clone()
    used = set(json.loads((official / "reference.json").read_text())["tokens"])
    row = next(row for row in range(SHAPE.vocab) if row not in used) if changed.ndim == 2 else 3
    changed[row] *= 1.5
    outcome = check(rewrite(tmp_path / "other", weights | {name: changed}))
    assert (outcome.status, outcome.inference["status"]) == (1, "disagrees")
    assert outcome.inference["first_tensor"] == place


def test_a_row_that_no_token_asked_for_is_seen_in_the_signature_alone(
    official, tmp_path, check, weights
):
    used = set(json.loads((official / "reference.json").read_text())["tokens"])
    embedding = weights["model.embed_tokens.weight"].clone()
    embedding[next(row for row in range(SHAPE.vocab) if row not in used)] *= 2
    changed = weights | {"model.embed_tokens.weight": embedding}
    inference = check(rewrite(tmp_path / "row", changed)).inference
    assert inference["statistics"]["logits"] <= inference["thresholds"]["logits"]
    assert inference["first_layer"] is None
    assert "no answer to these tokens shows it" in inference["reason"]


@pytest.mark.parametrize("change", [{"rope_theta": 10100.0}, {"rms_norm_eps": 1e-5}])
def test_where_every_tensor_is_right_the_config_is_blamed(copy, check, change):
    edit_json(copy / "config.json", **change)
    inference = check(copy).inference
    assert (inference["status"], inference["first_tensor"]) == ("disagrees", None)
    assert "its config differs" in inference["reason"]


def test_a_reference_without_signatures_still_serves(official, tmp_path, check, weights):
    content = json.loads((official / "reference.json").read_text())
    del content["probes"]
    old = tmp_path / "old.json"
    old.write_text(json.dumps(content | {"schema": 1}))
    inference = check(official / "meta", reference=old).inference
    assert inference["status"] == "agrees" and "signatures" not in inference["statistics"]
    name = "model.layers.1.mlp.up_proj.weight"
    changed = weights | {name: weights[name].flip(0)}
    inference = check(rewrite(tmp_path / "other", changed), reference=old).inference
    assert (inference["first_layer"], inference["first_tensor"]) == ("layer 1", None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_denormal_weights_agree_with_themselves(tmp_path, check, weights, dtype):
    small = dict(weights)
    for name in ("model.layers.1.mlp.up_proj.weight", "model.layers.0.self_attn.v_proj.weight"):
        small[name] = weights[name].to(dtype, copy=True)
        small[name][::2] = torch.finfo(dtype).smallest_normal / 7
    folder = rewrite(tmp_path / "small", {name: t.to(dtype) for name, t in small.items()})
    made = tmp_path / "r.json"
    assert command.main([str(folder), "--make-reference", str(made)]) == 0
    assert check(folder, reference=made).inference["status"] == "agrees"


def test_a_row_of_the_head_that_nobody_asked_for_is_seen_in_the_sketch(
    official, tmp_path, check, weights
):
    reference = json.loads((official / "reference.json").read_text())
    asked = set(torch.tensor(unpack(reference["ids"])).tolist())
    head = weights["lm_head.weight"].clone()
    unasked = next((row for row in range(SHAPE.vocab) if row not in asked), None)
    if unasked is None:  # 64 of 384 ids at 64 positions leave few out
        unasked = 0
    head[unasked] *= 1.5
    outcome = check(rewrite(tmp_path / "head", weights | {"lm_head.weight": head}))
    assert outcome.inference["status"] == "disagrees"
    assert outcome.inference["statistics"]["sketch"] > outcome.inference["thresholds"]["sketch"]


def unpack(text):
    import base64

    return list(memoryview(base64.b64decode(text)).cast("i"))


def test_a_cast_is_close_only_when_the_weights_check_named_it(tmp_path, check, weights):
    rounded = {name: tensor.bfloat16() for name, tensor in weights.items()}
    folder = rewrite(tmp_path / "cast", rounded)
    assert check(folder).inference["status"] == "disagrees"
    outcome = check(folder, "--rung", "cast:bf16-rne")
    assert (outcome.status, outcome.inference["status"]) == (0, "close")
    assert "not the official values" in outcome.inference["reason"]
    other = rewrite(tmp_path / "other", make_weights(SHAPE, seed=8))
    assert check(other, "--rung", "quantized:Q4_0").inference["status"] == "disagrees"
    assert check(folder, "--rung", "anything").inference["status"] == "disagrees"


def test_missing_and_extra_tensors_disagree(tmp_path, check, weights):
    name = "model.layers.1.mlp.up_proj.weight"
    less = rewrite(tmp_path / "less", {n: t for n, t in weights.items() if n != name})
    assert name in check(less).inference["reason"]
    more = rewrite(tmp_path / "more", weights | {"model.layers.0.q_bias": torch.ones(4).half()})
    assert "q_bias" in check(more).inference["reason"]
    assert check(more).status == check(less).status == 1


def test_an_incomplete_copy_is_not_run(copy, check):
    (copy / "model-00002-of-00002.safetensors").unlink()
    outcome = check(copy)
    assert outcome.status == 3
    assert "incomplete: model-00002-of-00002.safetensors" in outcome.inference["reason"]


def test_copies_of_a_norm_that_differ_between_parts_disagree(official, tmp_path, check):
    copy = shutil.copytree(official / "meta", tmp_path / "meta")
    state = torch.load(copy / "consolidated.01.pth", weights_only=True)
    state["layers.0.ffn_norm.weight"] *= 2
    torch.save(state, copy / "consolidated.01.pth")
    assert "consolidated.01.pth" in check(copy).inference["reason"]
    assert check(copy).status == 1


def test_the_published_config_stands_in_where_the_copy_has_none(official, copy, check):
    (copy / "config.json").unlink()
    assert "neither config.json" in check(copy).inference["reason"]
    for published in ("hf", "meta"):
        outcome = check(copy, "--config-from", official / published)
        assert outcome.inference["status"] == "agrees"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda c: edit_json(c / "config.json", model_type="falcon"), "unsupported architecture"),
        (lambda c: edit_json(c / "config.json", quantization_config={"a": 1}), "quantized"),
        (lambda c: (c / "model-00001-of-00002.safetensors").write_bytes(b"<html>"), "web page"),
        (lambda c: [p.unlink() for p in c.glob("*.safetensors")], "no file with tensors"),
        (lambda c: shutil.copytree(c, c / "again"), "several folders"),
    ],
)
def test_what_cannot_be_run_is_not_run_with_the_reason(copy, check, spoil, reason):
    spoil(copy)
    outcome = check(copy)
    assert (outcome.status, outcome.inference["status"]) == (3, "not-run")
    assert reason in outcome.inference["reason"]


FIRST = "model-00001-of-00002.safetensors"


def replaced_by_a_pipe(copy):
    (copy / FIRST).unlink()
    os.mkfifo(copy / FIRST)


def replaced_by_a_link(copy):
    outside = copy.parent / "outside.safetensors"
    (copy / FIRST).rename(outside)
    (copy / FIRST).symlink_to(outside)


def longer(copy):
    with (copy / FIRST).open("ab") as file:
        file.write(b"tail")


def with_a_header_of_eight_exabytes(copy):
    with (copy / FIRST).open("r+b") as file:
        file.write((1 << 63).to_bytes(8, "little"))


def with_code(copy):
    for shard in copy.glob("*.safetensors"):
        shard.unlink()
    torch.save({"model.norm.weight": print}, copy / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda copy: os.truncate(copy / FIRST, 100_000), "cut off"),
        (longer, "follow the last tensor"),
        (with_a_header_of_eight_exabytes, "claims a header"),
        (replaced_by_a_pipe, "incomplete"),
        (replaced_by_a_link, "incomplete"),
        (with_code, "could run code"),
    ],
)
def test_a_hostile_file_is_one_sentence_and_not_run(copy, check, spoil, reason):
    spoil(copy)
    outcome = check(copy)
    assert (outcome.status, outcome.inference["status"]) == (3, "not-run")
    assert reason in outcome.inference["reason"]
    assert outcome.err.count("\n") == 1


def test_a_single_file_is_not_run(copy, check):
    outcome = check(copy / "model-00001-of-00002.safetensors")
    assert "single file" in outcome.inference["reason"]


def test_a_plan_over_the_memory_is_not_run(official, check):
    outcome = check(official / "hf", "--memory", "100MiB")
    assert outcome.status == 3
    assert "it needs about" in outcome.inference["reason"]
    assert check(official / "hf", "--memory", "350MiB").status == 0


def test_a_device_that_is_not_here_is_not_run(official, check):
    assert check(official / "hf", "--device", "tpu").status == 3
    if not torch.cuda.is_available():
        assert "CUDA" in check(official / "hf", "--device", "cuda").inference["reason"]
