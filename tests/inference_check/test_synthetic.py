"""Checkpoints from a seed: the same bytes each time, the same weights in both layouts."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file

from inference_check.synthetic import Shape, main, make_checkpoint, make_weights


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.mark.parametrize("layout", ["hf", "meta"])
def test_one_seed_makes_the_same_bytes_twice(tmp_path, layout):
    for name in ("one", "two"):
        make_checkpoint(tmp_path / name, layout)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    make_checkpoint(tmp_path / "three", layout, seed=8)
    assert digests(tmp_path / "one") != digests(tmp_path / "three")


def test_the_entries_of_a_seed_never_change():
    weights = make_weights(Shape(layers=1))
    first = weights["model.layers.0.self_attn.q_proj.weight"]
    assert first[0, :3].tolist() == [-0.0014925003051757812, -0.04949951171875, -0.048126220703125]


def test_meta_layout_is_that_of_the_first_llama(tmp_path):
    shape = Shape(kv_heads=4)
    make_checkpoint(tmp_path, "meta", shape=shape)
    assert sorted(digests(tmp_path)) == [
        "checklist.chk",
        "consolidated.00.pth",
        "consolidated.01.pth",
        "params.json",
    ]
    params = json.loads((tmp_path / "params.json").read_text())
    assert params["vocab_size"] == -1
    assert "n_kv_heads" not in params
    state = torch.load(tmp_path / "consolidated.00.pth", weights_only=True)
    assert state["tok_embeddings.weight"].shape == (shape.vocab, shape.width // 2)
    assert state["layers.0.attention.wo.weight"].shape == (shape.width, shape.width // 2)
    for line in (tmp_path / "checklist.chk").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.md5((tmp_path / name).read_bytes()).hexdigest() == digest


def test_swapped_layers_keep_every_name_and_shape(tmp_path):
    make_checkpoint(tmp_path / "one", "hf", parts=1)
    make_checkpoint(tmp_path / "two", "hf", parts=1, swap_layers=(1, 2))
    one, two = (
        load_file(tmp_path / n / "model-00001-of-00001.safetensors") for n in ("one", "two")
    )
    name = "model.layers.{}.mlp.up_proj.weight"
    assert torch.equal(one[name.format(1)], two[name.format(2)])
    assert torch.equal(one[name.format(2)], two[name.format(1)])
    assert torch.equal(one[name.format(0)], two[name.format(0)])
    assert one.keys() == two.keys()


@pytest.mark.parametrize(
    "options",
    [
        ["--parts", "3"],
        ["--heads", "5"],
        ["--kv-heads", "3"],
        ["--layers", "0"],
        ["--swap-layers", "0", "9"],
    ],
)
def test_numbers_that_make_no_model_end_in_one_sentence(tmp_path, capsys, options):
    assert main([str(tmp_path), "--layout", "meta", *options]) == 2
    assert capsys.readouterr().err.count("\n") == 1
