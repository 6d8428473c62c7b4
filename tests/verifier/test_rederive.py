"""A quantized copy is made again from the official weights, and held to the result."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from inference_check.synthetic import Shape, make_weights, write_hf, write_meta
from tests.verifier.clothes import gguf_of
from tests.verifier.conftest import Published, publish
from tests.verifier.gguf_files import K_QUANTS, LEGACY, gguf_name, scale_blocks, write_gguf
from verifier import recipes, rederive
from verifier.block_tally import MAX_RUNS, Misfits
from verifier.readers import QUANTIZED, read_tensors

SHAPE = Shape(layers=2, width=256, heads=8, kv_heads=4, hidden=512, vocab=128)
UP = "model.layers.1.mlp.up_proj.weight"
Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def weights():
    """Official weights in fp32, so that a file through fp16 or bfloat16 is another one."""
    return make_weights(SHAPE, dtype="float32")


@pytest.fixture(scope="module")
def official(tmp_path_factory, weights, signer) -> Published:
    root = tmp_path_factory.mktemp("llama")
    (root / "hf").mkdir()
    write_hf(root / "hf", weights, SHAPE, 2)
    return publish(root / "hf", root / "work", signer)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "copy").mkdir()
    return tmp_path / "copy"


@pytest.fixture
def outcome(official, verify):
    def run(path, *options, held=None):
        manifest = official.folder / "model.sig"
        held = held or official.folder
        return verify(
            path,
            "--manifest",
            manifest,
            "--official",
            held,
            *options,
            key=official.signer.public,
        )

    return run


@pytest.fixture
def rederived(outcome):
    return lambda path, *options: outcome(path, *options).report["weights"]["rederived"]


def rows_of(found, status):
    return {row["name"]: row for row in found["tensors"] if row["status"] == status}


@pytest.mark.parametrize("dtype", LEGACY)
def test_a_copy_quantized_by_the_package_is_made_again_bit_by_bit(folder, weights, outcome, dtype):
    write_gguf(folder / "tiny.gguf", weights, SHAPE, dtype)
    done = outcome(folder, "--accept", "quantized")
    found = done.report["weights"]["rederived"]
    assert (found["status"], found["scheme"]) == ("rederived", dtype)
    assert len(found["tensors"]) == len(weights)
    assert (done.report["verdict"], done.status) == ("quantized", 0)
    assert done.report["weights"]["scheme"] == dtype
    assert not done.report["findings"] or done.codes == {"unlisted", "missing"}


@pytest.mark.parametrize(("source", "dtype"), [("F16", torch.float16), ("BF16", torch.bfloat16)])
def test_the_type_that_the_weights_went_through_is_named(folder, weights, rederived, source, dtype):
    through = {name: tensor.to(dtype).float() for name, tensor in weights.items()}
    write_gguf(folder / "tiny.gguf", through, SHAPE, "Q4_0")
    found = rederived(folder)
    by_name = {row["name"]: row for row in found["tensors"]}
    assert by_name[UP]["status"] == "rederived"
    assert by_name[UP]["source"] == source
    assert found["status"] == "within-error"  # norms in F32 are not the official ones any more


@pytest.mark.parametrize("dtype", K_QUANTS)
def test_k_quants_lie_within_their_error(folder, weights, outcome, dtype):
    write_gguf(folder / "tiny.gguf", weights, SHAPE, dtype)
    done = outcome(folder, "--accept", "quantized")
    found = done.report["weights"]["rederived"]
    assert found["status"] == "within-error"
    assert set(rows_of(found, "within-error")) == {n for n, t in weights.items() if t.ndim == 2}
    assert (done.report["verdict"], done.status) == ("quantized", 0)


def test_a_recipe_of_several_types_is_one_scheme(folder, weights, rederived):
    write_gguf(folder / "tiny.gguf", weights, SHAPE, "Q4_0", others={"output.weight": "Q6_K"})
    found = rederived(folder)
    assert (found["status"], found["scheme"]) == ("within-error", "Q4_0")
    assert set(rows_of(found, "within-error")) == {"lm_head.weight"}


@pytest.mark.parametrize("factor", [1.5, 2 / 3, -1])
@pytest.mark.parametrize("dtype", [*LEGACY, *K_QUANTS])
def test_64_scaled_blocks_are_found(folder, weights, outcome, dtype, factor):
    path = write_gguf(folder / "tiny.gguf", weights, SHAPE, dtype)
    entry = next(e for e in read_tensors(folder, path.name) if e.name == gguf_name(UP))
    size = QUANTIZED[dtype][1]
    start = entry.start + 100 * size
    scale_blocks(path, start, dtype, 64, factor)
    done = outcome(folder, "--accept", "quantized")
    (row,) = rows_of(done.report["weights"]["rederived"], "differs").values()
    assert (row["name"], row["outside"], row["first_block"]) == (UP, 64, 100)
    assert row["ranges"] == [[start, start + 64 * size]]
    assert (done.report["verdict"], done.status) == ("derived", 1)
    finding = next(f for f in done.report["findings"] if f["code"] == "not-rederived")
    assert finding["path"] == "tiny.gguf"
    assert finding["ranges"] == row["ranges"]
    assert UP in done.sentence


def test_scaled_blocks_of_q_are_found_in_the_order_of_the_file(folder, weights, rederived):
    path = write_gguf(folder / "tiny.gguf", weights, SHAPE, "Q4_K")
    entry = next(e for e in read_tensors(folder, path.name) if e.name == gguf_name(Q))
    scale_blocks(path, entry.start + 7 * 144, "Q4_K", 1, 1.5)
    (row,) = rows_of(rederived(folder), "differs").values()
    assert (row["name"], row["runs"]) == (Q, [[7, 8]])


def test_a_few_blocks_of_another_rounding_are_named_though_they_fit(folder, weights, rederived):
    path = write_gguf(folder / "tiny.gguf", weights, SHAPE, "Q8_0")
    entry = next(e for e in read_tensors(folder, path.name) if e.name == gguf_name(UP))
    scale_blocks(path, entry.start + 34 * 5, "Q8_0", 3, 1 + 2**-10)
    found = rederived(folder)
    (row,) = rows_of(found, "within-error").values()
    assert (row["unequal"], row["outside"], row["runs"]) == (3, 0, [[5, 8]])


def test_levels_searched_with_weights_are_within_error(folder, weights, rederived):
    """What an importance matrix does: other scales everywhere, none far off."""
    path = write_gguf(folder / "tiny.gguf", weights, SHAPE, "Q4_0")
    for entry in read_tensors(folder, path.name):
        if entry.dtype == "Q4_0":
            blocks = (entry.end - entry.start) // 18
            scale_blocks(path, entry.start, "Q4_0", blocks, 1.06)
    assert rederived(folder)["status"] == "within-error"


def test_another_model_differs_and_is_not_called_derived(folder, outcome):
    write_gguf(folder / "tiny.gguf", make_weights(SHAPE, seed=8), SHAPE, "Q8_0")
    report = outcome(folder).report
    found = report["weights"]["rederived"]
    assert found["status"] == "differs"
    assert not rows_of(found, "within-error")
    assert report["verdict"] in ("undetermined", "unrelated")


def test_two_exchanged_tensors_differ(folder, weights, rederived):
    other = UP.replace("up", "gate")
    write_gguf(
        folder / "tiny.gguf", weights | {UP: weights[other], other: weights[UP]}, SHAPE, "Q6_K"
    )
    assert set(rows_of(rederived(folder), "differs")) == {UP, other}


def test_a_tensor_that_lacks_is_missing(folder, weights, rederived):
    without = {name: tensor for name, tensor in weights.items() if name != UP}
    write_gguf(folder / "tiny.gguf", without, SHAPE, "Q8_0")
    found = rederived(folder)
    assert found["status"] == "differs"
    assert set(rows_of(found, "missing")) == {UP}
    assert found["reason"].endswith(f"{UP} is missing")


def test_a_type_that_is_not_decoded_leaves_it_undetermined(folder, weights, rederived, monkeypatch):
    monkeypatch.setattr(recipes, "can_compare", lambda dtype: dtype != "Q8_0")
    write_gguf(folder / "tiny.gguf", weights, SHAPE, "Q8_0")
    found = rederived(folder)
    assert found["status"] == "undetermined"
    assert "Q8_0 is not decoded here" in found["reason"]


def test_without_the_package_the_bound_is_all_that_holds(folder, weights, rederived, monkeypatch):
    monkeypatch.setattr(recipes, "package_available", lambda: False)
    write_gguf(folder / "tiny.gguf", weights, SHAPE, "Q5_1")
    found = rederived(folder)
    assert found["status"] == "within-error"
    assert rows_of(found, "within-error")[UP]["unequal"] is None


def test_rows_are_compared_a_few_at_a_time(folder, weights, rederived, monkeypatch):
    path = write_gguf(folder / "tiny.gguf", weights, SHAPE, "Q4_1")
    entry = next(e for e in read_tensors(folder, path.name) if e.name == gguf_name(UP))
    scale_blocks(path, entry.start + 100 * 20, "Q4_1", 64, 1.5)
    monkeypatch.setattr(rederive, "STEP", 1024)
    seen = []
    compare = recipes.compare
    monkeypatch.setattr(
        recipes, "compare", lambda *given: seen.append(given[2].numel()) or compare(*given)
    )
    (row,) = rows_of(rederived(folder), "differs").values()
    assert row["runs"] == [[100, 164]]
    assert max(seen) <= max(1024, SHAPE.head_width * SHAPE.width)


def test_official_weights_may_lie_in_another_layout(tmp_path, folder, weights, outcome):
    (tmp_path / "held").mkdir()
    write_meta(tmp_path / "held", weights, SHAPE, 4)
    write_gguf(folder / "tiny.gguf", weights, SHAPE, "Q8_0")
    report = outcome(folder, held=tmp_path / "held").report
    assert report["weights"]["rederived"]["status"] == "rederived"


def test_weights_that_are_not_official_are_no_measure(tmp_path, folder, weights, outcome):
    (tmp_path / "held").mkdir()
    write_hf(tmp_path / "held", weights | {UP: weights[UP] + 1e-3}, SHAPE)
    write_gguf(folder / "tiny.gguf", weights, SHAPE, "Q8_0")
    done = outcome(folder, held=tmp_path / "held")
    assert done.status == 2
    assert "does not hold the official weights" in done.sentence
    assert not done.out


def test_an_unquantized_copy_is_not_rederived(folder, weights, rederived):
    gguf_of("F32")(folder, weights, SHAPE)
    assert rederived(folder)["status"] == "not-run"


def test_the_text_has_one_line_of_it(folder, weights, official, capfd):
    from verifier.command_line import main

    write_gguf(folder / "tiny.gguf", weights, SHAPE, "Q8_0")
    given = [folder, "--manifest", official.folder / "model.sig", "--official", official.folder]
    given += ["--trusted-key", official.signer.public, "--checks", "files,weights"]
    main(list(map(str, given)))
    lines = [line for line in capfd.readouterr().out.splitlines() if "rederived " in line]
    assert len(lines) == 1
    assert "quantized as Q8_0, bit by bit" in lines[0]


def int8(folder, weights, *, ending, absmax, spoil=None):
    """Write a safetensors file of int8 rows, each with a scale."""
    tensors = {}
    for name, tensor in weights.items():
        if "_proj" not in name:
            tensors[name] = tensor
            continue
        peak = tensor.abs().amax(1)
        levels = (tensor * (127 / peak[:, None])).round().to(torch.int8)
        if name == UP and spoil is not None:
            levels[spoil] = (levels[spoil].float() / 1.5).to(torch.int8)
        tensors[name] = levels
        scale = peak if absmax else (peak / 127)[:, None]
        tensors[name.removesuffix("weight") + ending] = scale.clone()
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(("ending", "absmax"), [("SCB", True), ("weight_scale", False)])
def test_int8_rows_are_made_again(folder, weights, outcome, ending, absmax):
    int8(folder, weights, ending=ending, absmax=absmax)
    report = outcome(folder).report
    found = report["weights"]["rederived"]
    assert (found["status"], found["scheme"]) == ("rederived", "int8 per row")
    assert len(found["tensors"]) == len(weights)
    assert report["verdict"] == "quantized"


def test_spoiled_int8_rows_are_found(folder, weights, rederived):
    int8(folder, weights, ending="SCB", absmax=True, spoil=slice(9, 12))
    (row,) = rows_of(rederived(folder), "differs").values()
    assert (row["name"], row["runs"]) == (UP, [[9, 12]])


def test_levels_from_another_rounding_are_within_error(folder, weights, rederived):
    int8(folder, weights, ending="weight_scale", absmax=False)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = UP.replace("weight", "weight_scale")
    tensors[name] = tensors[name] * (1 + 2**-12)
    save_file(tensors, path)
    assert set(rows_of(rederived(folder), "within-error")) == {UP}


def test_runs_are_merged_across_pieces_and_bounded():
    misfits = Misfits()
    misfits.add(0, np.array([True, False, False]))
    misfits.add(3, np.array([False, True, False]))
    assert (misfits.count, misfits.runs) == (4, [(1, 4), (5, 6)])
    misfits.add(6, np.arange(1000) % 2 == 0)
    assert misfits.count == 504
    assert len(misfits.runs) == MAX_RUNS


def test_a_scale_of_minus_zero_is_a_zero():
    official = torch.zeros(1, 32)
    made = recipes._quantize("Q4_0", official.numpy())
    other = bytearray(made.tobytes())
    other[1] ^= 0x80
    assert recipes.compare("Q4_0", other, official, "").equals.all()


@pytest.mark.parametrize("dtype", [*LEGACY, *K_QUANTS])
@pytest.mark.parametrize("scale", [0x7C00, 0x7E00])
def test_scales_that_are_no_numbers_never_fit(dtype, scale):
    size = QUANTIZED[dtype]
    raw = np.full((4, size[1]), 0x11, np.uint8)
    for place in (0, 2, 80, 82, 108, 208):
        if place + 2 <= size[1]:
            raw[:, place : place + 2] = (scale & 255, scale >> 8)
    found = recipes.compare(dtype, bytearray(raw.tobytes()), torch.ones(4, size[0]), "")
    assert not found.fits.any()
    assert not found.fits_loosely.any()


def test_shape_of_another_size_differs(folder, weights, rederived):
    small = replace(SHAPE, hidden=256)
    write_gguf(folder / "tiny.gguf", make_weights(small, dtype="float32"), small, "Q8_0")
    row = rows_of(rederived(folder), "differs")[UP]
    assert row["reason"] == "officially it is [512, 256]"
