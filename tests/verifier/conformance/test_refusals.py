"""Refusals of the OMS conformance suite, through `oms verify-model`.

github.com/ossf/model-signing-spec, conformance/TEST_CASES.md; the numbers are sections of the
specification 1.0. Names in brackets are cases of our own that the specification asks for.
"""

import base64
import json
from datetime import UTC, datetime

import pytest

from tests.verifier.conformance.conftest import Keys
from tests.verifier.pki import YEAR
from verifier import dsse

NOW = datetime.now(UTC)
PAST = {"starts": NOW - 9 * YEAR, "ends": NOW - 8 * YEAR}
FUTURE = {"starts": NOW + YEAR, "ends": NOW + 2 * YEAR}


def tamper(folder):
    (folder / "signme-1").write_text("TAMPERED CONTENT\n")


def remove(folder):
    (folder / "signme-2").unlink()


def inject(folder):
    (folder / "injected.bin").write_text("injected after signing\n")


@pytest.mark.parametrize(
    ("case", "change", "unsigned", "accepted"),
    [
        ("key-simple-tampered-content_fail", tamper, False, False),
        ("key-simple-missing-file_fail", remove, False, False),
        ("key-simple-extra-file_fail", inject, False, False),
        ("key-simple-ignore-unsigned-files", inject, True, True),
        ("key-ignore-unsigned", inject, True, True),
        ("key-tampered-with-ignore-unsigned_fail", tamper, True, False),
        ("key-missing-file-with-ignore-unsigned_fail", remove, True, False),
    ],
)
def test_what_changed_after_signing(case, change, unsigned, accepted, suite, signer_keys):
    """8.4, 8.5."""
    suite.sign("simple", signer_keys)
    change(suite.folder)
    outcome = suite.verify(signer_keys, unsigned=unsigned)
    assert (outcome.status == 0) is accepted
    assert accepted or outcome.sentence


@pytest.mark.parametrize("method", ["key", "certificate"])
def test_another_key_or_authority_is_refused(method, suite, signer_keys, tmp_path):
    """key-simple-wrong-key_fail, certificate-simple-wrong-ca_fail: 8.2."""
    suite.sign("simple", signer_keys, method)
    (tmp_path / "wrong").mkdir()
    outcome = suite.verify(Keys(tmp_path / "wrong"), method)
    assert outcome.status != 0
    assert "not trusted" in outcome.sentence


CHAINS = {
    "certificate-expired_fail": {"leaf": PAST},
    "certificate-not-yet-valid_fail": {"leaf": FUTURE},
    "certificate-expired-intermediate_fail": {"middle": PAST},
    "certificate-expired-root_fail": {"root": PAST},
    "certificate-all-expired_fail": {"leaf": PAST, "middle": PAST, "root": PAST},
    "certificate-not-yet-valid-intermediate_fail": {"middle": FUTURE},
    "certificate-expired-intermediate-expired-leaf_fail": {"middle": PAST, "leaf": PAST},
    "certificate-no-code-signing-eku_fail": {"leaf": {"extended": ()}},
}


@pytest.mark.parametrize("case", CHAINS)
def test_a_chain_that_does_not_hold_now_is_refused(case, suite, key_folder):
    """4.1, 8.2."""
    made = Keys(key_folder, **CHAINS[case])
    assert suite.sign("simple", made, "certificate").status == 0
    outcome = suite.verify(made, "certificate")
    assert outcome.status != 0
    assert "certificate" in outcome.sentence


@pytest.mark.parametrize(
    ("signed_by", "verified_by"),
    [
        ("key", "certificate"),
        ("key", "sigstore"),
        ("certificate", "key"),
        ("certificate", "sigstore"),
    ],
)
def test_a_bundle_counts_only_by_its_own_method(signed_by, verified_by, suite, signer_keys):
    """key-verify-as-certificate_fail and the like: 4.1."""
    suite.sign("simple", signer_keys, signed_by)
    outcome = suite.verify(signer_keys, verified_by)
    assert outcome.status != 0
    assert f"signed by {signed_by.replace('key', 'a key')}" in outcome.sentence


def put(*path, value):
    """Return what sets the field at ``path``; None removes it."""

    def change(outer):
        inner = outer
        for part in path[:-1]:
            inner = inner[part]
        if value is None:
            del inner[path[-1]]
        else:
            inner[path[-1]] = value

    return change


OUTER = {
    "key-simple-wrong-mediatype_fail": put("mediaType", value="application/json"),
    "(mediaType 0.1)": put(
        "mediaType", value="application/vnd.dev.sigstore.bundle+json;version=0.1"
    ),
    "key-simple-wrong-payload-type_fail": put(
        "dsseEnvelope", "payloadType", value="application/octet-stream"
    ),
    "key-simple-no-signature_fail": put("dsseEnvelope", "signatures", value=[]),
    "malformed-missing-envelope_fail": put("dsseEnvelope", value=None),
    "(no verification material)": put("verificationMaterial", value=None),
    "(a field that the schema forbids)": put("messageSignature", value={}),
    "(two ways to name the signer)": put(
        "verificationMaterial", "certificate", value={"rawBytes": "AAAA"}
    ),
}


@pytest.mark.parametrize("case", OUTER)
def test_a_bundle_of_another_form_is_refused(case, suite, signer_keys):
    """6.7, 8.1."""
    suite.sign("simple", signer_keys)
    bundle = json.loads(suite.bundle.read_text())
    OUTER[case](bundle)
    suite.bundle.write_text(json.dumps(bundle))
    outcome = suite.verify(signer_keys)
    assert outcome.status != 0
    assert outcome.sentence


@pytest.mark.parametrize("count", [2, 3])
def test_several_signatures_are_refused(count, suite, signer_keys):
    """Which of them would count is not said by the specification."""
    suite.sign("simple", signer_keys)
    bundle = json.loads(suite.bundle.read_text())
    bundle["dsseEnvelope"]["signatures"] *= count
    suite.bundle.write_text(json.dumps(bundle))
    assert "exactly one signature" in suite.verify(signer_keys).sentence


@pytest.mark.parametrize(
    "content",
    [b"", b'{"garbage": true}', "truncated", b"null", b"[]", b'{"mediaType": 1, "mediaType": 2}'],
)
def test_a_file_that_is_no_bundle_is_refused(content, suite, signer_keys):
    """malformed-empty-bundle_fail, key-simple-corrupted-bundle_fail, …-truncated-bundle_fail."""
    suite.sign("simple", signer_keys)
    whole = suite.bundle.read_bytes()
    suite.bundle.write_bytes(whole[:100] if content == "truncated" else content)
    outcome = suite.verify(signer_keys)
    assert outcome.status != 0
    assert outcome.sentence


SERIALIZATION = ("predicate", "serialization")
SIGNED = {
    "malformed-wrong-predicate_fail": put("predicateType", value="https://example.com/wrong/v1.0"),
    "key-simple-wrong-statement-type_fail": put("_type", value="https://in-toto.io/Statement/v0.1"),
    "key-simple-empty-resources_fail": put("predicate", "resources", value=[]),
    "key-simple-missing-serialization_fail": put(*SERIALIZATION, value=None),
    "(no allow_symlinks)": put(*SERIALIZATION, "allow_symlinks", value=None),
    "(no hash_type)": put(*SERIALIZATION, "hash_type", value=None),
    "(an unknown hash_type)": put(*SERIALIZATION, "hash_type", value="md5"),
    "(an unknown method)": put(*SERIALIZATION, "method", value="tensors"),
    "(shards of no size)": put(*SERIALIZATION, "method", value="shards"),
    "(a shard_size of files)": put(*SERIALIZATION, "shard_size", value=1000),
    "(an extra field of serialization)": put(*SERIALIZATION, "x", value=1),
    "(an extra field of the predicate)": put("predicate", "x", value=1),
    "(no subject name)": put("subject", 0, "name", value=""),
    "(a wrong root)": put("subject", 0, "digest", "sha256", value="0" * 64),
    "(ignore_paths that is no list)": put(*SERIALIZATION, "ignore_paths", value="x"),
}


@pytest.mark.parametrize("case", SIGNED)
def test_a_signed_statement_of_another_form_is_refused(case, suite, signer_keys):
    """5.1, 5.2, 8.3: the signature over the changed statement holds."""
    suite.sign("simple", signer_keys)
    statement = suite.statement()
    SIGNED[case](statement)
    payload = json.dumps(statement).encode()
    bundle = json.loads(suite.bundle.read_text())
    signature = base64.b64encode(dsse.sign(payload, signer_keys.key)).decode()
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    bundle["dsseEnvelope"]["signatures"] = [{"sig": signature}]
    suite.bundle.write_text(json.dumps(bundle))
    outcome = suite.verify(signer_keys)
    assert outcome.status != 0
    assert outcome.sentence


@pytest.mark.parametrize(
    "given",
    [
        ["sign-model", "--method", "key"],
        ["sign-model", "--method", "certificate", "--private-key", "k"],
        ["sign-model", "--method", "sigstore"],
        ["verify-model", "--method", "key"],
        ["verify-model", "--method", "certificate"],
        ["verify-model", "--method", "sigstore", "--identity", "x"],
        ["verify-model", "--method", "pkcs11"],
        [],
    ],
)
def test_a_method_says_which_option_it_misses(given, oms_command, tmp_path):
    places = {"sign-model": "--output-bundle", "verify-model": "--bundle"}
    more = [places[given[0]], tmp_path / "b", "--model-path", tmp_path] if given else []
    outcome = oms_command(*given, *more)
    assert outcome.status != 0
    assert "--" in outcome.sentence
