"""One set of weights under two names: Meta's and Hugging Face's."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference_check.synthetic import Shape, make_checkpoint, make_weights, write_meta
from verifier import blocks, layouts
from verifier.readers import ReadError, is_weight_file, read_tensors


def arrange(folder, **options):
    files = sorted(p.name for p in folder.iterdir() if is_weight_file(p.name))
    entries = [entry for file in files for entry in read_tensors(folder, file)]
    return layouts.arrange(folder, entries, **options)


def values(folder, arranged):
    with blocks.Files(folder, arranged.files) as files:
        return {
            tensor.name: torch.cat(list(blocks.stream(files, tensor))).view(tensor.shape)
            for tensor in arranged.tensors
        }


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("layout", ["hf", "meta"])
def test_both_layouts_in_any_number_of_parts_hold_the_same_values(tmp_path, layout, parts):
    shape = Shape(layers=2, kv_heads=4)
    make_checkpoint(tmp_path, layout, parts=parts, shape=shape)
    (arranged,), problems = arrange(tmp_path)
    assert (arranged.layout, problems) == (layout, [])
    found = values(tmp_path, arranged)
    expected = make_weights(shape)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_values_do_not_depend_on_how_many_rows_are_read_at_once(tmp_path, monkeypatch):
    make_checkpoint(tmp_path, "meta", shape=Shape(layers=1))
    monkeypatch.setattr(blocks, "BLOCK", 4096)
    (arranged,), _ = arrange(tmp_path)
    found, expected = values(tmp_path, arranged), make_weights(Shape(layers=1))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_llama_3_cuts_its_embedding_by_rows(tmp_path):
    shape, weights = Shape(layers=1), make_weights(Shape(layers=1))
    write_meta(tmp_path, weights, shape, 2)
    for part in range(2):
        path = tmp_path / f"consolidated.{part:02d}.pth"
        state = torch.load(path, weights_only=True)
        whole = weights["model.embed_tokens.weight"]
        state["tok_embeddings.weight"] = whole.chunk(2, 0)[part].clone()
        torch.save(state, path)
    (arranged,), _ = arrange(tmp_path)
    found = values(tmp_path, arranged)["model.embed_tokens.weight"]
    assert torch.equal(found, weights["model.embed_tokens.weight"])


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
        ("layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
        ("model.model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
        ("layers.3.feed_forward.w3.weight", "model.layers.3.mlp.up_proj.weight"),
        ("layers.03.feed_forward.w3.weight", "model.layers.3.mlp.up_proj.weight"),
        ("norm.weight", "model.norm.weight"),
        ("output.weight", "lm_head.weight"),
        ("tok_embeddings.weight", "model.embed_tokens.weight"),
        ("transformer.h.0.attn.weight", "transformer.h.0.attn.weight"),
    ],
)
def test_each_name_has_one_canonical_name(name, canonical):
    assert layouts.canonical_name(name)[0] == canonical


@pytest.mark.parametrize(
    "name", ["rope.freqs", "model.layers.0.self_attn.rotary_emb.inv_freq", "rope.freqs"]
)
def test_buffers_computed_from_the_config_are_not_compared(name):
    assert layouts.is_buffer(name)


def test_the_width_of_a_head_comes_from_params_or_from_the_frequencies(tmp_path):
    make_checkpoint(tmp_path, "meta", shape=Shape(layers=1))
    assert layouts.head_width_of(tmp_path, "") == 32
    (tmp_path / "params.json").unlink()
    (arranged,), problems = arrange(tmp_path)
    assert not problems
    found = values(tmp_path, arranged)["model.layers.0.self_attn.q_proj.weight"]
    expected = make_weights(Shape(layers=1))["model.layers.0.self_attn.q_proj.weight"]
    assert torch.equal(found, expected)


def test_one_name_in_two_shards_is_a_problem(tmp_path):
    for shard in ("a.safetensors", "b.safetensors"):
        save_file({"x.weight": torch.ones(2, 2)}, tmp_path / shard)
    sets, (problem,) = arrange(tmp_path)
    assert not sets
    assert "another shard too" in problem.message


def test_parts_that_do_not_fit_each_other_are_a_problem(tmp_path):
    make_checkpoint(tmp_path, "meta", shape=Shape(layers=1))
    path = tmp_path / "consolidated.01.pth"
    state = torch.load(path, weights_only=True)
    state["output.weight"] = torch.ones(3, 7).half()
    torch.save(state, path)
    sets, (problem,) = arrange(tmp_path)
    assert not sets
    assert "does not fit" in problem.message


def test_copies_of_a_norm_that_differ_between_parts_are_refused(tmp_path):
    make_checkpoint(tmp_path, "meta", shape=Shape(layers=1))
    path = tmp_path / "consolidated.01.pth"
    state = torch.load(path, weights_only=True)
    state["norm.weight"] += 1
    torch.save(state, path)
    (arranged,), _ = arrange(tmp_path)
    with pytest.raises(ReadError, match="not that of the rest"):
        values(tmp_path, arranged)


def test_two_containers_in_one_folder_are_two_sets(tmp_path):
    make_checkpoint(tmp_path, "hf", parts=1, shape=Shape(layers=1))
    shards = tmp_path / "model-00001-of-00001.safetensors"
    torch.save(load_file(shards), tmp_path / "pytorch_model.bin")
    sets, problems = arrange(tmp_path)
    assert (len(sets), problems) == (2, [])
