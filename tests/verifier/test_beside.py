"""Who has the official weights can tell more: adapters, and disguises."""

import pytest
import torch

from inference_check.synthetic import make_weights, write_hf, write_meta
from tests.verifier.conftest import publish
from tests.verifier.copies import adapted, noisy
from tests.verifier.test_invariants import SHAPE, rescaled, rotated
from verifier import report_evidence
from verifier.beside import StoredTensors, compare


def stored(folder, weights, write=write_hf):
    folder.mkdir()
    write(folder, {n: t.contiguous() for n, t in weights.items()}, SHAPE, 2)
    return StoredTensors(folder, sorted(p.name for p in folder.iterdir()))


@pytest.fixture(scope="module")
def weights():
    return make_weights(SHAPE, 1, "float32")


@pytest.fixture
def official(tmp_path, weights):
    return stored(tmp_path / "official", weights)


@pytest.mark.parametrize("write", [write_hf, write_meta])
def test_tensors_are_read_when_they_are_asked_for_in_any_layout(tmp_path, weights, write):
    found = stored(tmp_path / "copy", weights, write)
    assert (set(found), len(found)) == (set(weights), len(weights))
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    assert found.head_width == SHAPE.head_width


def test_a_merged_adapter_is_named_and_a_fine_tuned_copy_is_not(tmp_path, official, weights):
    torch.manual_seed(0)
    merged = stored(tmp_path / "merged", adapted(weights, rank=2))
    tuned = stored(tmp_path / "tuned", noisy(weights, 0.2))
    assert compare(official, merged, "derived")["low_rank"] is True
    assert compare(official, tuned, "derived")["low_rank"] is False


def test_a_disguised_copy_is_derived_and_another_model_is_not(tmp_path, official, weights):
    torch.manual_seed(0)
    hidden = stored(tmp_path / "hidden", rescaled(rotated(weights)))
    other = stored(tmp_path / "other", make_weights(SHAPE, 2, "float32"))
    assert compare(official, hidden, "unrelated")["verdict"] == "derived"
    found = compare(official, other, "unrelated")
    assert found["verdict"] == "unrelated"
    assert len(found["disguise"]["statistics"]) == 3


@pytest.mark.parametrize("verdict", ["same-weights", "cast", "quantized"])
def test_rungs_above_need_nothing_more(official, verdict):
    assert compare(official, official, verdict) == {"verdict": verdict}


def test_a_file_that_cannot_be_read_holds_no_tensors(tmp_path, weights):
    found = stored(tmp_path / "copy", weights)
    (tmp_path / "copy" / "extra.safetensors").write_bytes(b"\xff" * 20)
    names = sorted(p.name for p in (tmp_path / "copy").iterdir())
    assert set(StoredTensors(tmp_path / "copy", names)) == set(found)
    assert len(StoredTensors(tmp_path / "copy", ["extra.safetensors"])) == 0


@pytest.fixture
def outcome(tmp_path, weights, signer, verify):
    """Verify changed weights with the official ones at hand, and no sketch."""
    root = tmp_path / "hf"
    root.mkdir()
    write_hf(root, weights, SHAPE, 2)
    publish(root, tmp_path / "work", signer)

    def run(copy):
        folder = tmp_path / "copy"
        folder.mkdir()
        write_hf(folder, {n: t.contiguous() for n, t in copy.items()}, SHAPE, 1)
        options = ("--manifest", root / "model.sig", "--official", root)
        return verify(folder, *options, key=signer.public)

    return run


def test_the_command_finds_a_disguise_with_the_official_weights(outcome, weights):
    torch.manual_seed(0)
    report = outcome(rescaled(rotated(weights))).report
    assert report["verdict"] == "derived"
    assert report["weights"]["evidence"]["beside"]["disguise"]["disguised"]
    (line,) = report_evidence.lines(report["weights"])
    assert "disguised by other channels: scores 1.00" in line


def test_the_command_does_not_accuse_another_model(outcome):
    report = outcome(make_weights(SHAPE, 2, "float32")).report
    assert report["verdict"] == "undetermined"
    assert not report["weights"]["evidence"]["beside"]["disguise"]["disguised"]


def test_the_command_names_merged_adapters(outcome, weights):
    torch.manual_seed(0)
    kept = {n: t for n, t in weights.items() if "layers.0.mlp" in n}
    report = outcome(adapted(weights, rank=2) | kept).report
    assert report["verdict"] == "derived"
    assert report["weights"]["evidence"]["beside"]["low_rank"] is True
    assert "merged adapters" in report_evidence.lines(report["weights"])[-1]
