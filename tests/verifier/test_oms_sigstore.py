"""Bundles signed by an identity: the `sigstore` library judges them, under a root of our own."""

import base64
import hashlib
import json
import sys
import time
from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sigstore.models import TrustedRoot

from tests.verifier.conftest import flip
from tests.verifier.sigstore_instance import Instance, encoded
from verifier import oms, sigstore_bundles, statement
from verifier.errors import InputError, VerifierError
from verifier.trust import SigstoreIdentity, Trust

WHO = "release@example.org"
PROVIDER = "https://accounts.example.org"
BY = ["--identity", WHO, "--identity-provider", PROVIDER]
PRODUCTION = "https://tuf-repo-cdn.sigstore.dev"
STAGING = "https://tuf-repo-cdn.sigstage.dev"


@pytest.fixture(scope="module")
def instance():
    return Instance()


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch, instance):
    """No network; what the library keeps of Sigstore's trusted root is that of our instance."""
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    kept = tmp_path / "cache" / "sigstore-python" / "tuf" / quote(PRODUCTION, safe="")
    kept.mkdir(parents=True)
    (kept / "trusted_root.json").write_text(instance.trusted_root())


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(bytes(1000))
    return folder


@pytest.fixture
def payload(model):
    digest = oms.Resource("weights.bin", sha256(model / "weights.bin"))
    return statement.write([digest], "model", oms.GIT_PATHS)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def bundle(tmp_path, instance, payload):
    path = tmp_path / "model.sig"
    path.write_bytes(instance.sign(payload, WHO, PROVIDER))
    return path


@pytest.fixture
def root(tmp_path, instance):
    (tmp_path / "root.json").write_text(instance.trusted_root())
    return TrustedRoot.from_file(str(tmp_path / "root.json"))


def options(model, bundle, by=BY):
    return ["verify-model", "--method", "sigstore", "--model-path", model, "--bundle", bundle, *by]


def test_a_bundle_by_the_right_identity_holds(model, bundle, oms_command):
    outcome = oms_command(*options(model, bundle))
    assert (outcome.status, outcome.err) == (0, "")
    flip(model / "weights.bin", 7)
    assert oms_command(*options(model, bundle)).sentence.startswith("weights.bin differs")


def test_the_statement_of_0_2_0_is_read(model, bundle, oms_command, instance):
    subject = {"name": "weights.bin", "digest": {"sha256": sha256(model / "weights.bin")}}
    content = {
        "_type": oms.STATEMENT_TYPE,
        "subject": [subject | {"annotations": {"actual_hash_algorithm": "file-sha256"}}],
        "predicateType": oms.PREDICATE_TYPE_0_2_0,
        "predicate": {"unused": "Unused, just passed due to API requirements"},
    }
    bundle.write_bytes(instance.sign(json.dumps(content, indent=2).encode(), WHO, PROVIDER))
    assert oms_command(*options(model, bundle)).status == 0
    flip(model / "weights.bin", 7)
    assert oms_command(*options(model, bundle)).status != 0


def test_verify_says_which_identity_signed(model, bundle, verify):
    outcome = verify(model, "--manifest", bundle, "--checks", "files", *BY, key=None)
    assert outcome.report["verdict"] == "identical"
    assert outcome.report["manifest"]["signed_by"] == f"{WHO} ({PROVIDER})"


@pytest.mark.parametrize(
    "by",
    [
        ["--identity", "other@example.org", "--identity-provider", PROVIDER],
        ["--identity", WHO, "--identity-provider", "https://wrong.example.org"],
    ],
    ids=["identity", "provider"],
)
def test_another_identity_or_provider_is_untrusted(by, model, bundle, oms_command, verify):
    """sigstore-wrong-identity_fail, sigstore-wrong-issuer_fail."""
    assert oms_command(*options(model, bundle, by)).status != 0
    outcome = verify(model, "--manifest", bundle, "--checks", "files", *by, key=None)
    assert (outcome.status, outcome.report["verdict"]) == (1, "untrusted")
    assert by[1] in outcome.sentence


def test_the_signer_of_a_bundle_is_not_the_key_of_another(model, bundle, oms_command, signer):
    """sigstore-verify-as-key_fail."""
    other = ["verify-model", "--method", "key", "--model-path", model, "--bundle", bundle]
    outcome = oms_command(*other, "--public-key", signer.public)
    assert outcome.status != 0
    assert "--identity" in outcome.sentence


def change_payload(bundle):
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    bundle["dsseEnvelope"]["payload"] = encoded(payload.replace(b'"model"', b'"m0del"'))


def change_log_time(bundle):
    bundle["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = str(int(time.time()))


def change_proof(bundle):
    proof = bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]
    proof["hashes"] = [encoded(bytes(32))]


def change_checkpoint(bundle):
    proof = bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]
    proof["checkpoint"]["envelope"] = proof["checkpoint"]["envelope"].replace("\n2\n", "\n3\n")


def drop_log_entry(bundle):
    bundle["verificationMaterial"]["tlogEntries"] = []


def drop_promise(bundle):
    del bundle["verificationMaterial"]["tlogEntries"][0]["inclusionPromise"]


def drop_certificate(bundle):
    bundle["verificationMaterial"]["certificate"] = {"rawBytes": "AAAA"}


@pytest.mark.parametrize(
    "change",
    [
        change_payload,
        change_log_time,
        change_proof,
        change_checkpoint,
        drop_log_entry,
        drop_promise,
        drop_certificate,
    ],
)
def test_a_changed_bundle_is_refused(change, model, bundle, oms_command):
    content = json.loads(bundle.read_text())
    change(content)
    bundle.write_text(json.dumps(content))
    outcome = oms_command(*options(model, bundle))
    assert outcome.status != 0
    assert "Sigstore" in outcome.sentence


def test_a_signature_after_the_certificate_ended_is_refused(
    model, bundle, oms_command, instance, payload
):
    bundle.write_bytes(instance.sign(payload, WHO, PROVIDER, late=True))
    assert oms_command(*options(model, bundle)).status != 0


@pytest.mark.parametrize("part", ["root", "certificate_log", "signature_log"])
def test_each_part_of_the_instance_must_be_the_trusted_one(
    part, model, bundle, oms_command, payload, instance
):
    """Its authority, its log of certificates, its log of signatures."""
    other = replace(instance, **{part: getattr(Instance(), part)})
    bundle.write_bytes(other.sign(payload, WHO, PROVIDER))
    outcome = oms_command(*options(model, bundle))
    assert outcome.status != 0
    assert "does not hold" in outcome.sentence


def test_staging_trusts_others_than_production(model, bundle, oms_command):
    outcome = oms_command(*options(model, bundle), "--use-staging")
    assert outcome.status != 0
    assert "does not hold" in outcome.sentence


def test_an_identity_needs_its_provider(model, bundle, verify):
    outcome = verify(model, "--manifest", bundle, "--identity", WHO, key=None)
    assert outcome.status == 2
    assert "--identity-provider" in outcome.sentence


def test_a_bundle_by_identity_is_untrusted_where_only_keys_are(model, bundle, verify):
    outcome = verify(model, "--manifest", bundle, "--checks", "files")
    assert (outcome.status, outcome.report["verdict"]) == (1, "untrusted")
    assert "--identity" in outcome.sentence


def test_a_library_that_is_not_installed_is_named(model, bundle, oms_command, monkeypatch):
    monkeypatch.setitem(sys.modules, "sigstore", None)
    outcome = oms_command(*options(model, bundle))
    assert outcome.status != 0
    assert "pip install 'sigstore" in outcome.sentence


def token(**claims):
    """Return an OpenID token that nobody signed; only its services would notice."""
    now = int(time.time())
    body = {"iss": PROVIDER, "aud": "sigstore", "sub": "x", "email": WHO, "email_verified": True}
    body |= {"iat": now - 5, "nbf": now - 5, "exp": now + 600} | claims
    parts = [json.dumps({"alg": "RS256", "typ": "JWT"}), json.dumps(body), "signature"]
    return ".".join(base64.urlsafe_b64encode(p.encode()).decode().rstrip("=") for p in parts)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nonsense", "identity token is not valid"),
        ("x" * 100_000, "too long"),
        (token(exp=1), "identity token is not valid"),
        (token(aud="other"), "identity token is not valid"),
        # made while tests are collected, and still good when a long run comes to it
        (token(exp=int(time.time()) + 86_400), "Sigstore did not sign"),
    ],
    ids=["text", "long", "expired", "audience", "unreachable"],
)
def test_what_keeps_an_identity_from_signing_is_said(text, reason, model, tmp_path, oms_command):
    out = tmp_path / "out.sig"
    signing = ["--method", "sigstore", "--model-path", model, "--output-bundle", out]
    outcome = oms_command("sign-model", *signing, "--identity-token", text)
    assert outcome.status != 0
    assert reason in outcome.sentence
    assert not out.exists()


STRINGS = ("", "x", "AAAA", "-5", "9" * 5000, "\n\n")


def changed(value, data):
    """Return ``value`` with one thing in it replaced, left out, cut or turned."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 5)):
        key = data.draw(st.sampled_from(sorted(value)))
        return value | {key: changed(value[key], data)}
    if isinstance(value, list) and value and data.draw(st.integers(0, 5)):
        return [changed(value[0], data), *value[1:]]
    if isinstance(value, str) and value and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(value) - 1))
        return value[:at] + data.draw(st.sampled_from(["", "A", "=", "\n"])) + value[at + 1 :]
    return data.draw(st.sampled_from([None, 1, -1, 2**70, [], {}, [1], {"a": 1}, *STRINGS]))


@given(st.data())
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_changed_bundle_signs_the_same_or_is_an_error_of_ours(bundle, payload, root, data):
    content = json.dumps(changed(json.loads(bundle.read_text()), data)).encode()
    try:
        signer = sigstore_bundles.signer_of(content, payload, SigstoreIdentity(WHO, PROVIDER), root)
    except VerifierError as error:
        assert str(error).endswith(".")
        return
    assert signer.signed_by == f"{WHO} ({PROVIDER})"
    assert base64.b64decode(json.loads(content)["dsseEnvelope"]["payload"]) == payload


def test_a_root_may_be_given_by_whoever_calls(bundle, payload, root):
    wanted = SigstoreIdentity(WHO, PROVIDER)
    signer = sigstore_bundles.signer_of(bundle.read_bytes(), payload, wanted, root)
    assert WHO in signer.signed_by


def test_a_missing_library_does_not_matter_to_keys(model, monkeypatch, signer):
    monkeypatch.setitem(sys.modules, "sigstore", None)
    signed = oms.sign([oms.Resource("a", "0" * 64)], "m", signer.key)
    assert oms.verify(signed, Trust.in_keys(signer.key.public_key()))
    with pytest.raises(InputError):
        sigstore_bundles.sign(b"", "t", staging=False)
