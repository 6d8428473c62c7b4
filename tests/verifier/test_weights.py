"""The weights rung on a LLaMA-architecture checkpoint: the same values in other clothes, or not."""

import json
import os
import shutil

import pytest
from safetensors.torch import load_file, save_file

from inference_check.synthetic import make_checkpoint
from tests.verifier.conftest import flip, publish
from tests.verifier.copies import QUANTIZED, matrices, pruned
from verifier import sketch
from verifier.findings import Verdict
from verifier.weights_check import WeightsCheck

FIRST = "model-00001-of-00002.safetensors"


@pytest.fixture(scope="module")
def official(tmp_path_factory, signer):
    """A signed checkpoint in Hugging Face layout, with value digests."""
    root = tmp_path_factory.mktemp("llama")
    make_checkpoint(root / "hf", "hf", parts=2, seed=7)
    publish(root / "hf", root / "work", signer, name="llama/tiny@1")
    return root / "hf"


@pytest.fixture
def check(official, verify):
    return lambda copy, *options: verify(copy, "--manifest", official / "model.sig", *options)


@pytest.fixture
def copy(official, tmp_path):
    return shutil.copytree(official, tmp_path / "copy")


@pytest.fixture(scope="module")
def secret_sketch(official, tmp_path_factory):
    """The portal's sketch of it, as a file."""
    path = tmp_path_factory.mktemp("secret") / "sketch.json"
    files = sorted(p.name for p in official.glob("*.safetensors"))
    path.write_text(json.dumps(sketch.make(official, files, b"secret")))
    return path


def change(folder, how):
    for path in folder.glob("*.safetensors"):
        save_file({n: t.contiguous() for n, t in how(load_file(path)).items()}, path)


@pytest.mark.parametrize("parts", [1, 2])
def test_the_meta_layout_of_the_same_weights_is_the_same(tmp_path, check, parts):
    make_checkpoint(tmp_path / "meta", "meta", parts=parts, seed=7)
    outcome = check(tmp_path / "meta", "--accept", "same-weights")
    assert outcome.report["verdict"] == "same-weights"
    assert outcome.report["bytes_read"] > 0
    assert outcome.status == 0


def test_other_shards_of_the_same_weights_are_the_same(tmp_path, check):
    make_checkpoint(tmp_path / "one", "hf", parts=1, seed=7)
    outcome = check(tmp_path / "one")
    assert outcome.report["verdict"] == "same-weights"
    assert outcome.status == 1
    assert "--accept same-weights" in outcome.sentence


def test_a_rounded_copy_is_a_cast(copy, check):
    for path in copy.glob("*.safetensors"):
        save_file({k: v.bfloat16() for k, v in load_file(path).items()}, path)
    outcome = check(copy, "--accept", "cast")
    assert (outcome.status, outcome.report["verdict"]) == (0, "cast")
    assert outcome.report["weights"]["scheme"] == "bf16-rne"


def test_a_flipped_bit_is_damage_of_one_tensor(copy, check):
    flip(copy / FIRST, (copy / FIRST).stat().st_size - 1)
    outcome = check(copy)
    (finding,) = [f for f in outcome.report["findings"] if f["code"] == "damaged"]
    assert outcome.report["verdict"] == "damaged"
    assert outcome.report["weights"]["counts"]["changed"] == 1
    assert len(finding["tensors"]) == 1
    assert outcome.status == 1


def test_a_damaged_copy_is_not_called_derived_in_the_text_or_on_the_page(copy, check):
    flip(copy / FIRST, (copy / FIRST).stat().st_size - 1)
    outcome = check(copy, "--report", copy.parent / "report.html")
    assert outcome.report["sentence"].startswith("This copy of llama/tiny@1 is damaged")
    page = (copy.parent / "report.html").read_text()
    assert "<span>38 unchanged, 1 changed<" in page
    assert "derived:" not in page.partition("<h2>")[0]


def test_where_the_damage_is_comes_before_its_cause(copy, check):
    (copy / FIRST).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (finding,) = [f for f in check(copy).report["findings"] if f["code"] == "damaged"]
    assert finding["message"].endswith(": it is a Git LFS pointer; run `git lfs pull`.")
    assert f"in {finding['tensors'][0]} and " in finding["message"]


def test_what_is_said_of_tensors_names_only_what_there_is(tmp_path, check):
    make_checkpoint(tmp_path / "other", "hf", parts=2, seed=8)
    (finding,) = [
        f for f in check(tmp_path / "other").report["findings"] if f["code"] == "weights-differ"
    ]
    assert finding["message"] == "None of 39 official tensors has the official values: 39 changed."


def test_a_destroyed_header_is_damage_and_its_tensors_are_known_from_the_manifest(copy, check):
    flip(copy / FIRST, 7)
    outcome = check(copy)
    (finding,) = [f for f in outcome.report["findings"] if f["code"] == "damaged"]
    assert outcome.report["verdict"] == "damaged"
    assert "weights-refused" in outcome.codes
    assert finding["tensors"]


def test_a_changed_header_around_the_same_values_is_the_same_weights(copy, check):
    tensors = load_file(copy / FIRST)
    save_file(tensors, copy / FIRST, metadata={"format": "pt", "note": "saved again"})
    assert check(copy).report["verdict"] == "same-weights"


def test_other_weights_under_the_official_names_are_not_damage(tmp_path, check):
    make_checkpoint(tmp_path / "other", "hf", parts=2, seed=8)
    outcome = check(tmp_path / "other")
    assert outcome.report["verdict"] == "undetermined"
    assert "weights-differ" in outcome.codes
    assert outcome.status == 1


def test_without_weights_asked_every_differing_file_is_damaged(tmp_path, check):
    make_checkpoint(tmp_path / "other", "hf", parts=2, seed=8)
    assert check(tmp_path / "other", "--checks", "files").report["verdict"] == "damaged"


def test_half_of_the_same_weights_in_another_layout_is_not_the_same(tmp_path, check):
    make_checkpoint(tmp_path / "meta", "meta", parts=2, seed=7)
    (tmp_path / "meta" / "consolidated.01.pth").unlink()
    outcome = check(tmp_path / "meta", "--accept", "same-weights")
    assert outcome.report["verdict"] != "same-weights"
    assert outcome.status == 1


def test_a_refused_pickle_beside_the_same_weights_is_a_finding_only(tmp_path, check):
    make_checkpoint(tmp_path / "meta", "meta", parts=2, seed=7)
    (tmp_path / "meta" / "training_args.bin").write_bytes(b"\x80\x02cposix\nsystem\nq\x00.")
    outcome = check(tmp_path / "meta", "--accept", "same-weights")
    assert outcome.report["verdict"] == "same-weights"
    assert "weights-refused" in outcome.codes
    assert outcome.status == 0


def test_the_best_of_several_layouts_is_named_by_its_weights(official, tmp_path, verify, signer):
    make_checkpoint(tmp_path / "other", "hf", parts=2, seed=8)
    publish(tmp_path / "other", tmp_path / "work", signer, name="llama/other@1")
    make_checkpoint(tmp_path / "meta", "meta", parts=2, seed=8)
    manifests = ["--manifest", official / "model.sig"]
    manifests += ["--manifest", tmp_path / "other" / "model.sig"]
    report = verify(tmp_path / "meta", *manifests).report
    assert (report["checkpoint"], report["verdict"]) == ("llama/other@1", "same-weights")


def test_one_part_of_another_layout_is_undetermined(tmp_path, check):
    make_checkpoint(tmp_path / "meta", "meta", parts=2, seed=7)
    outcome = check(tmp_path / "meta" / "consolidated.00.pth")
    assert outcome.status == 1
    assert outcome.report["verdict"] in ("undetermined", "derived")
    assert "missing" not in outcome.codes


def test_a_billion_claimed_bytes_cost_nothing(copy, check):
    os.truncate(copy / FIRST, 1 << 40)
    outcome = check(copy)
    (finding,) = [f for f in outcome.report["findings"] if f["code"] == "damaged"]
    assert finding["cause"] == "extended"
    assert outcome.report["bytes_read"] < 100 << 20
    assert json.dumps(finding)


def test_a_quantized_copy_is_named_and_can_be_accepted(copy, check, secret_sketch):
    change(copy, lambda tensors: matrices(tensors, QUANTIZED["Q4_0"]))
    outcome = check(copy, "--sketch", secret_sketch, "--accept", "quantized")
    assert (outcome.status, outcome.report["verdict"]) == (0, "quantized")
    assert outcome.report["weights"]["scheme"] == "Q4_0"
    assert outcome.report["weights"]["evidence"]["rung"] == "quantized"


@pytest.mark.parametrize(
    "verdict, scheme, rung",
    [
        (Verdict.QUANTIZED, "Q4_0", "quantized:Q4_0"),
        (Verdict.CAST, "bf16-rne", "cast:bf16-rne"),
        (Verdict.CAST, "mixed", None),
        (Verdict.DERIVED, None, None),
    ],
)
def test_the_rung_tells_the_inference_check_what_to_allow(verdict, scheme, rung):
    assert WeightsCheck({"scheme": scheme}, verdict).rung == rung


def test_a_pruned_copy_is_derived_with_its_evidence(copy, check, secret_sketch):
    change(copy, lambda tensors: pruned(tensors, 0.3))
    report = check(copy, "--sketch", secret_sketch).report
    evidence = report["weights"]["evidence"]
    assert report["verdict"] == evidence["rung"] == "derived"
    assert evidence["changes"]["pruned"]
    assert evidence["p_value"] < 1e-6


def test_a_few_changed_entries_are_damage_with_a_sketch_too(copy, check, secret_sketch):
    flip(copy / FIRST, (copy / FIRST).stat().st_size - 1)
    outcome = check(copy, "--sketch", secret_sketch)
    assert outcome.report["verdict"] == "damaged"
    assert outcome.report["weights"]["changed_fraction"] < 0.01


def test_other_weights_are_unrelated_with_a_sketch(tmp_path, check, secret_sketch):
    make_checkpoint(tmp_path / "other", "hf", parts=2, seed=8)
    assert check(tmp_path / "other", "--sketch", secret_sketch).report["verdict"] == "unrelated"
