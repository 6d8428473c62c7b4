"""GGUF of the LLaMA architecture: run as it is, blocks decoded, beside the official reference."""

import numpy as np
import pytest
import torch

from inference_check.copies import open_copy
from inference_check.errors import NotRun
from inference_check.leaves import LeafDigests
from inference_check.run import Questions, run
from inference_check.signs import token_ids
from inference_check.synthetic import Shape, make_weights, write_hf
from tests.verifier.gguf_files import write_gguf

from .conftest import SHAPE, edit_json

gguf = pytest.importorskip("gguf")

# Rows of down_proj have 176 entries here, which no block divides.
NARROW = {f"blk.{layer}.ffn_down.weight": "F16" for layer in range(SHAPE.layers)}
WIDE = Shape(layers=2, width=512, heads=8, kv_heads=4, hidden=1536, vocab=4096)
TOKENS = tuple(token_ids("test", 16, WIDE.vocab))
ASKED = Questions("test", TOKENS, torch.arange(64).expand(16, -1))


@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_an_unquantized_copy_agrees(tmp_path, check, weights, dtype):
    write_gguf(tmp_path / "tiny.gguf", weights, SHAPE, dtype)
    outcome = check(tmp_path)
    assert (outcome.status, outcome.inference["status"]) == (0, "agrees")
    assert set(outcome.inference["leaves"]["roots"]) == {"tiny.gguf"}


@pytest.mark.parametrize("dtype", ["Q8_0", "Q5_1"])
def test_a_quantized_copy_is_close_only_when_the_weights_check_named_it(
    tmp_path, check, weights, dtype
):
    write_gguf(tmp_path / "tiny.gguf", weights, SHAPE, dtype, others=NARROW)
    inference = check(tmp_path).inference
    assert (inference["status"], inference["first_tensor"]) == ("disagrees", "the embedding")
    assert check(tmp_path, "--rung", f"quantized:{dtype}").inference["status"] == "close"


@pytest.mark.parametrize("dtype", ["Q4_0", "Q4_K", "Q6_K"])
def test_blocks_are_multiplied_as_the_package_decodes_them(tmp_path, dtype):
    """Leaves end inside blocks; the same values as F16 safetensors are the oracle."""
    weights = make_weights(WIDE)
    (tmp_path / "gguf").mkdir()
    path = write_gguf(tmp_path / "gguf" / "wide.gguf", weights, WIDE, dtype)
    decoded = {}
    for tensor in gguf.GGUFReader(path).tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        decoded[tensor.name] = torch.from_numpy(np.array(values, np.float32))
    official = {}
    from tests.verifier.gguf_files import gguf_name
    from verifier.blocks import from_pairs

    for name in weights:
        value = decoded[gguf_name(name)].reshape(weights[name].shape)
        rotary = name.endswith(("q_proj.weight", "k_proj.weight"))
        official[name] = from_pairs(value, WIDE.head_width).contiguous() if rotary else value
    (tmp_path / "hf").mkdir()
    write_hf(tmp_path / "hf", official, WIDE, 1)
    assert path.stat().st_size > 5 << 20
    expected = run(open_copy(tmp_path / "hf"), ASKED, device=torch.device("cpu"))
    digests = LeafDigests("sha256")
    found = run(open_copy(tmp_path / "gguf"), ASKED, device=torch.device("cpu"), digests=digests)
    spread = expected.answers.std[:, None]
    assert float(((found.answers.logits - expected.answers.logits) / spread).abs().max()) < 1e-5
    for name, sigma in expected.signatures.items():
        assert torch.allclose(found.signatures[name], sigma, atol=1e-2, rtol=1e-4), name
    assert digests.complete().keys() == {"wide.gguf"}


def test_a_gguf_copy_beside_the_weights_is_hashed_and_not_run(official, tmp_path, check, weights):
    import shutil

    copy = shutil.copytree(official / "hf", tmp_path / "copy")
    write_gguf(copy / "tiny.gguf", weights, SHAPE, "Q4_0", others=NARROW)
    inference = check(copy).inference
    assert inference["status"] == "agrees"
    assert "tiny.gguf" in inference["leaves"]["roots"]


def with_metadata(path, weights, **changes):
    """A GGUF file whose metadata has other values."""
    writer_class = gguf.GGUFWriter
    seen = {}

    class Writer(writer_class):
        def add_key_value(self, key, value, *rest, **named):
            seen[key] = value
            super().add_key_value(key, changes.pop(key, value), *rest, **named)

        def write_header_to_file(self, *rest):
            for key, value in changes.items():
                kind = gguf.GGUFValueType.get_type(value)
                super().add_key_value(key, value, kind)
            super().write_header_to_file(*rest)

    gguf.GGUFWriter = Writer
    try:
        write_gguf(path, weights, SHAPE, "F16")
    finally:
        gguf.GGUFWriter = writer_class


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"llama.rope.freq_base": 10100.0}, "disagrees"),
        ({"llama.attention.layer_norm_rms_epsilon": 1e-5}, "disagrees"),
        ({"llama.attention.head_count_kv": 4}, "disagrees"),
        ({"general.architecture": "phi3"}, "not-run"),
        ({"llama.expert_count": 8}, "not-run"),
        ({"llama.rope.scaling.type": "yarn"}, "not-run"),
        ({"llama.rope.dimension_count": 8}, "not-run"),
    ],
)
def test_a_copy_is_run_as_its_own_metadata_says(tmp_path, check, weights, changes, status):
    with_metadata(tmp_path / "tiny.gguf", weights, **changes)
    assert check(tmp_path).inference["status"] == status


def test_factors_of_the_rotary_frequencies_are_those_of_llama_3(tmp_path, weights):
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    (tmp_path / "hf").mkdir()
    write_hf(tmp_path / "hf", weights, SHAPE, 1)
    edit_json(tmp_path / "hf" / "config.json", rope_scaling=scaling)
    from inference_check.model import rotary_angles

    scaled = open_copy(tmp_path / "hf").config
    (tmp_path / "gguf").mkdir()
    plain_path = tmp_path / "gguf" / "tiny.gguf"
    write_gguf(plain_path, weights, SHAPE, "F16")
    plain = open_copy(tmp_path / "gguf").config
    factors = (rotary_angles(2, plain)[1] / rotary_angles(2, scaled)[1]).tolist()
    from inference_check.config import from_gguf
    from verifier.readers import read_gguf_metadata

    found = from_gguf(read_gguf_metadata(tmp_path / "gguf", "tiny.gguf"), tuple(factors))
    assert torch.allclose(rotary_angles(64, found), rotary_angles(64, scaled), rtol=1e-12)
    with pytest.raises(NotRun, match="makes no sense"):
        from_gguf(read_gguf_metadata(tmp_path / "gguf", "tiny.gguf"), (1.0,))


def test_two_models_in_one_folder_are_not_run(tmp_path, check, weights):
    write_gguf(tmp_path / "one.gguf", weights, SHAPE, "F16")
    write_gguf(tmp_path / "two.gguf", weights, SHAPE, "Q8_0", others=NARROW)
    assert "several GGUF models" in check(tmp_path).inference["reason"]
