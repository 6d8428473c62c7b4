"""Every form of bundle that was ever released must verify for ever (tests/vectors/make_oms.py)."""

import shutil
from pathlib import Path

import pytest

from tests.verifier.conftest import flip

VECTORS = Path(__file__).parent.parent / "vectors" / "oms"
BUNDLES = sorted(VECTORS.glob("*/*.sig"))
WEIGHTS = "weights.bin"


def name_of(bundle):
    return bundle.stem


def trust_of(bundle):
    """Return the options that trust the signer: by key or by certificate, as its name says."""
    if "-certificate" in bundle.stem:
        return "certificate", "--cert-chain", bundle.parent / "authority.pem"
    return "key", "--public-key", bundle.parent / "key.pub.pem"


def model_of(bundle, folder):
    """Return a copy of the model: the folder, or its one file that was signed."""
    copy = shutil.copytree(bundle.parent / "model", folder / "model")
    return copy / WEIGHTS if bundle.stem[-5:] == "-file" else copy


def test_the_forms_are_there():
    assert {name_of(bundle) for bundle in BUNDLES} >= {
        "0.2.0-key",
        "0.2.0-certificate",
        "0.3.1-key",
        "0.3.1-key-file",
        "1.0.0-certificate",
        "1.0.1-key",
        "1.1.1-certificate",
        "1.1.1-key-shards-sha256",
        "weighbridge-certificate",
    }


@pytest.mark.parametrize("bundle", BUNDLES, ids=name_of)
def test_a_form_once_released_still_verifies(bundle, oms_command, tmp_path):
    model = model_of(bundle, tmp_path)
    method, *trusted = trust_of(bundle)
    given = ["verify-model", "--method", method, *trusted, "--model-path", model]
    outcome = oms_command(*given, "--bundle", bundle)
    assert outcome.status == 0, outcome.err

    flip(model if model.is_file() else model / WEIGHTS, 1234)
    refused = oms_command(*given, "--bundle", bundle)
    assert refused.status != 0
    assert refused.sentence.startswith("weights.bin differs in bytes [")


@pytest.mark.parametrize("bundle", BUNDLES, ids=name_of)
def test_verify_gives_a_verdict_on_any_form(bundle, verify, tmp_path):
    model = model_of(bundle, tmp_path)
    key = trust_of(bundle)[2]
    outcome = verify(model, "--manifest", bundle, "--checks", "files", key=key)
    assert (outcome.status, outcome.report["verdict"]) == (0, "identical"), outcome.err

    flip(model if model.is_file() else model / WEIGHTS, 1234)
    damaged = verify(model, "--manifest", bundle, "--checks", "files", key=key)
    assert (damaged.status, damaged.report["verdict"]) == (1, "damaged")
    (finding,) = [f for f in damaged.report["findings"] if f["code"] == "damaged"]
    assert finding["ranges"] == [[1000, 2000] if "-shards" in bundle.stem else [0, 2560]]
    if model.is_dir():
        (model / WEIGHTS).unlink()
        incomplete = verify(model, "--manifest", bundle, "--checks", "files", key=key)
        assert (incomplete.status, incomplete.report["verdict"]) == (1, "incomplete")


@pytest.mark.parametrize("bundle", BUNDLES, ids=name_of)
def test_no_form_counts_under_another_key(bundle, oms_command, tmp_path, signer):
    model = model_of(bundle, tmp_path)
    given = ["--method", "key", "--public-key", signer.public, "--model-path", model]
    assert oms_command("verify-model", *given, "--bundle", bundle).status != 0
