"""The same weights in other clothes are recognized, and run to the same answers elsewhere."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from inference_check.synthetic import Shape, make_weights, write_hf
from tests.verifier.clothes import CLOTHES, gguf_of, phi3, save
from tests.verifier.conftest import Published, publish
from tests.verifier.gguf_files import write_gguf

SHAPE = Shape(layers=2, width=256, heads=16, kv_heads=8, hidden=256, vocab=96)
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def weights():
    """Grouped queries, and everything divisible by eight."""
    return make_weights(SHAPE)


@pytest.fixture(scope="module")
def official(tmp_path_factory, weights, signer) -> Published:
    root = tmp_path_factory.mktemp("llama")
    (root / "hf").mkdir()
    write_hf(root / "hf", weights, SHAPE, 2)
    return publish(root / "hf", root / "work", signer)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "clothes").mkdir()
    return tmp_path / "clothes"


@pytest.fixture
def judge(official, verify):
    """Return the report on a copy beside the official manifest."""

    def run(path, by=official):
        outcome = verify(
            path,
            "--manifest",
            by.folder / "model.sig",
            "--accept",
            "same-weights",
            "--accept",
            "cast",
            key=by.signer.public,
        )
        return outcome.report

    return run


@pytest.mark.parametrize("clothes", CLOTHES)
def test_each_layout_is_the_same_weights(folder, weights, judge, clothes):
    CLOTHES[clothes](folder, weights, SHAPE)
    report = judge(folder)
    assert report["verdict"] == "same-weights", report["findings"]
    assert report["weights"]["counts"]["exact"] == len(weights)
    assert report["accepted"]


@pytest.mark.parametrize("clothes", CLOTHES)
def test_each_layout_shows_one_changed_entry(folder, weights, judge, clothes):
    name = "model.layers.1.self_attn.k_proj.weight"
    changed = weights[name].clone()
    changed[37, 5] += 1
    CLOTHES[clothes](folder, weights | {name: changed}, SHAPE)
    report = judge(folder)
    rows = {row["name"] for row in report["weights"]["tensors"] if row["status"] != "exact"}
    assert rows == {name}


@pytest.mark.parametrize("clothes", ["phi3", "internlm2", "meta fused"])
@pytest.mark.parametrize("copied", ["one file", "meta 2", "gguf F16", "phi3"])
def test_official_weights_may_be_the_fused_ones(
    tmp_path, folder, weights, signer, judge, clothes, copied
):
    (tmp_path / "fused").mkdir()
    CLOTHES[clothes](tmp_path / "fused", weights, SHAPE)
    by = publish(tmp_path / "fused", tmp_path / "work", signer)
    CLOTHES[copied](folder, weights, SHAPE)
    assert judge(folder, by)["verdict"] == ("identical" if clothes == copied else "same-weights")


def test_a_fused_tensor_of_unknown_proportions_stays_as_it_is(folder, weights, judge):
    phi3(folder, weights, SHAPE)
    (folder / "config.json").unlink()
    found = load_file(folder / "model.safetensors")
    save(folder, {name: tensor for name, tensor in found.items() if "o_proj" not in name})
    assert "model.layers.0.self_attn.qkv_proj.weight" in judge(folder)["weights"]["added"]


def test_gguf_in_another_16_bit_type_is_a_cast_that_names_its_rounding(folder, weights, judge):
    gguf_of("BF16")(folder, weights, SHAPE)
    report = judge(folder)
    assert (report["verdict"], report["weights"]["scheme"]) == ("cast", "bf16-rne")
    by_name = {row["name"]: row for row in report["weights"]["tensors"]}
    assert by_name["model.norm.weight"]["status"] == "exact"
    assert by_name[EMBEDDING]["dtype"] == "BF16"


def test_a_quantized_gguf_is_compared_by_what_its_blocks_decode_to(folder, weights, judge):
    write_gguf(folder / "tiny.gguf", weights, SHAPE, "Q8_0", others={"output.weight": "Q6_K"})
    report = judge(folder)
    assert report["verdict"] not in ("same-weights", "cast")
    by_name = {row["name"]: row for row in report["weights"]["tensors"]}
    assert by_name[EMBEDDING]["dtype"] == "Q8_0"
    assert by_name[HEAD]["dtype"] == "Q6_K"
    assert by_name["model.layers.0.input_layernorm.weight"]["status"] == "exact"
    assert not report["weights"]["missing"]


def test_two_quantizations_in_one_folder_are_two_models(folder, weights, judge):
    gguf_of("F16")(folder, weights, SHAPE)
    gguf_of("F32")(folder, weights, SHAPE)
    assert judge(folder)["verdict"] == "same-weights"


def test_metadata_that_lies_about_heads_is_not_the_same_weights(folder, weights, judge):
    write_gguf(folder / "tiny.gguf", weights, SHAPE, "F16", claims=replace(SHAPE, heads=8))
    rows = judge(folder)["weights"]["tensors"]
    changed = {row["name"] for row in rows if row["status"] != "exact"}
    assert changed == {
        f"model.layers.{n}.self_attn.{x}_proj.weight" for n in range(SHAPE.layers) for x in "qk"
    }


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("clothes", ["one file", "meta 2", "gguf F16", "phi3"])
def test_a_tied_head_may_be_there_or_not(
    tmp_path, folder, weights, signer, judge, clothes, written
):
    tied = weights | {HEAD: weights[EMBEDDING].clone()}
    without = {name: tensor for name, tensor in tied.items() if name != HEAD}
    (tmp_path / "tied").mkdir()
    write_hf(tmp_path / "tied", without if written else tied, SHAPE, 2)
    by = publish(tmp_path / "tied", tmp_path / "work", signer)
    CLOTHES[clothes](folder, tied, SHAPE)
    if not written:
        _drop_head(folder)
    assert judge(folder, by)["verdict"] == "same-weights"


def _drop_head(folder):
    for path in folder.iterdir():
        if path.suffix == ".safetensors":
            tensors = load_file(path)
            tensors.pop(HEAD, None)
            save(folder, tensors, path.name)
        elif path.suffix == ".pth":
            state = torch.load(path, weights_only=True)
            state.pop("output.weight", None)
            torch.save(state, path)
        elif path.suffix == ".gguf":
            weights = {n: tensor for n, tensor in make_weights(SHAPE).items() if n != HEAD}
            write_gguf(path, weights, SHAPE, "F16")


def _model(folder, weights, clothes):
    """Load a copy with transformers, in fp32."""
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    auto = transformers.AutoModelForCausalLM
    if not clothes.startswith("gguf"):
        return auto.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    write_hf(folder, weights, SHAPE, 1)
    empty = auto.from_config(transformers.AutoConfig.from_pretrained(folder), dtype=torch.float32)
    (path,) = folder.glob("*.gguf")
    loaded = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=empty)
    empty.load_state_dict(loaded["tensors"])
    return empty.eval()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "clothes", ["one file", "three shards", "without prefix", "phi3", "gguf F32", "gguf F16"]
)
def test_transformers_computes_the_same_logits_from_each_layout(
    tmp_path, folder, official, weights, judge, clothes, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    CLOTHES[clothes](folder, weights, SHAPE)
    assert judge(folder)["verdict"] == "same-weights"
    ids = torch.arange(24).reshape(2, -1) * 5 % SHAPE.vocab
    shutil.copytree(official.folder, tmp_path / "hf", ignore=shutil.ignore_patterns(".*", "*.sig"))
    with torch.no_grad():
        expected = _model(tmp_path / "hf", weights, "hf")(ids).logits
        found = _model(folder, weights, clothes)(ids).logits
    assert torch.equal(found, expected)
