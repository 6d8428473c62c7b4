"""The whole ladder on a LLaMA-architecture checkpoint: files, weights, inference, as one run."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from inference_check.synthetic import make_checkpoint
from tests.verifier.conftest import make_signer, run_command, sign_described
from tests.verifier.copies import QUANTIZED, matrices
from verifier import sketch

FIRST = "model-00001-of-00002.safetensors"


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A signed checkpoint in Hugging Face layout, with value digests and a reference."""
    root = tmp_path_factory.mktemp("llama")
    folder, work, reference = root / "hf", root / "work", root / "reference.json"
    make_checkpoint(folder, "hf", parts=2, seed=7)
    make_reference(folder, reference)
    outcome = run_command(
        *("describe", folder, "--name", "llama/tiny@1", "--revision", "1"),
        *("--issued", "2026-01-02T03:04:05+00:00", "--out", work, "--reference", reference),
    )
    assert outcome.status == 0, outcome.err
    signer = make_signer(root / "keys")
    sign_described(folder, work, signer, "llama/tiny@1")
    (root / "key").write_bytes(signer.public.read_bytes())
    return folder


def make_reference(folder, reference):
    import subprocess
    import sys

    command = [sys.executable, "-m", "inference_check", folder, "--make-reference", reference]
    done = subprocess.run([*map(str, command), "--positions", "8"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def check(official, tmp_path):
    """Verify a copy by the official manifest, as a recipient would."""

    def run(copy, *options):
        return run_command(
            *(copy, "--json", "--manifest", official / "model.sig", *options),
            *("--trusted-key", official.parent / "key"),
        )

    return run


@pytest.fixture
def copy(official, tmp_path):
    return shutil.copytree(official, tmp_path / "copy")


def test_an_identical_copy_agrees(copy, check):
    outcome = check(copy, "--positions", "8")
    assert outcome.status == 0, outcome.err
    assert outcome.report["verdict"] == "identical"
    assert outcome.report["inference"]["status"] == "agrees"


def test_the_meta_layout_of_the_same_weights_is_the_same_and_agrees(tmp_path, check):
    make_checkpoint(tmp_path / "meta", "meta", parts=2, seed=7)
    outcome = check(tmp_path / "meta", "--accept", "same-weights", "--positions", "8")
    assert outcome.report["verdict"] == "same-weights"
    assert outcome.report["inference"]["status"] == "agrees"
    assert outcome.status == 0, outcome.err


def test_two_swapped_layers_disagree(tmp_path, check):
    make_checkpoint(tmp_path / "swapped", "hf", parts=2, seed=7, swap_layers=(0, 1))
    outcome = check(tmp_path / "swapped", "--positions", "8", "--accept", "undetermined")
    assert outcome.report["inference"]["status"] == "disagrees"
    assert "inference-disagrees" in outcome.codes
    assert outcome.status == 1


def test_inference_that_disagrees_is_never_accepted(copy, check):
    """One layer of noise under its own names: whatever verdict is accepted, the answers differ."""
    tensors = load_file(copy / FIRST)
    name = max(tensors, key=lambda key: tensors[key].numel())
    tensors[name] = tensors[name].flip(0)
    save_file(tensors, copy / FIRST)
    accept = ["--accept", "damaged", "--accept", "undetermined", "--accept", "derived"]
    outcome = check(copy, "--positions", "8", *accept)
    assert outcome.report["inference"]["status"] == "disagrees"
    assert outcome.status == 1


def test_an_incomplete_copy_and_one_file_are_not_run(copy, check):
    outcome = check(copy / FIRST)
    assert outcome.report["inference"]["status"] == "not-run"
    (copy / FIRST).unlink()
    outcome = check(copy)
    assert (outcome.report["verdict"], outcome.report["inference"]["status"]) == (
        "incomplete",
        "not-run",
    )


def test_a_rounded_copy_is_cast_and_computes_close(official, tmp_path, check):
    rounded = shutil.copytree(official, tmp_path / "rounded")
    for shard in rounded.glob("*.safetensors"):
        tensors = {name: tensor.bfloat16() for name, tensor in load_file(shard).items()}
        save_file(tensors, shard)
    outcome = check(rounded, "--positions", "8", "--accept", "cast")
    assert outcome.report["verdict"] == "cast"
    assert outcome.report["inference"]["status"] == "close"
    assert outcome.status == 0, outcome.err


def test_a_quantized_copy_computes_close_within_the_bound_of_its_scheme(official, tmp_path, check):
    path = tmp_path / "sketch.json"
    files = sorted(shard.name for shard in official.glob("*.safetensors"))
    path.write_text(json.dumps(sketch.make(official, files, b"secret")))
    rounded = shutil.copytree(official, tmp_path / "rounded")
    for shard in rounded.glob("*.safetensors"):
        save_file(matrices(load_file(shard), QUANTIZED["int8 per row"]), shard)
    outcome = check(rounded, "--positions", "8", "--accept", "quantized", "--sketch", path)
    assert outcome.report["verdict"] == "quantized"
    assert outcome.report["inference"]["status"] == "close"
    assert "int8 per row" in outcome.report["inference"]["reason"]
    assert outcome.status == 0, outcome.err
