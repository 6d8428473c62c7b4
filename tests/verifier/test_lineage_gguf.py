"""GGUF copies, told by the sketch alone: what their types say, within what those explain."""

import pytest
import torch

from inference_check.synthetic import Shape, make_weights
from tests.verifier.copies import noisy
from tests.verifier.gguf_files import K_QUANTS, LEGACY, write_gguf
from tests.verifier.test_lineage import publish, silent
from verifier import values

SHAPE = Shape(layers=1, width=256, heads=4, kv_heads=2, hidden=512, vocab=128)


@pytest.fixture(scope="module")
def weights():
    return make_weights(SHAPE, 3, "float32")


@pytest.fixture(scope="module")
def official(tmp_path_factory, weights):
    return publish(tmp_path_factory.mktemp("official"), weights)


@pytest.fixture
def judge(official, tmp_path):
    def run(copy, dtype, others=None):
        write_gguf(tmp_path / "m.gguf", copy, SHAPE, dtype, others=others)
        return values.compare(tmp_path, ["m.gguf"], *official, silent)

    return run


@pytest.mark.parametrize("dtype", [*LEGACY, *K_QUANTS])
def test_a_gguf_copy_is_quantized_as_its_type_says(judge, weights, dtype):
    result = judge(weights, dtype)
    assert (result.verdict, result.scheme) == ("quantized", dtype)
    assert result.evidence["p_value"] < 1e-9


@pytest.mark.parametrize("dtype", ["Q4_0", "Q8_0", "Q4_K", "Q6_K"])
def test_a_gguf_copy_of_a_tuned_model_is_derived(judge, weights, dtype):
    torch.manual_seed(0)
    assert judge(noisy(weights, 0.6), dtype).verdict == "derived"


@pytest.mark.parametrize("dtype", ["Q4_0", "Q6_K"])
def test_a_gguf_copy_of_another_model_is_unrelated(judge, dtype):
    assert judge(make_weights(SHAPE, 8, "float32"), dtype).verdict == "unrelated"


def test_types_are_all_named(judge, weights):
    result = judge(weights, "Q4_K", {"output.weight": "Q6_K", "token_embd.weight": "Q8_0"})
    assert (result.verdict, result.scheme) == ("quantized", "Q4_K+Q6_K+Q8_0")
