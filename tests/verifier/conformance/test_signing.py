"""Sign-then-verify cases of the OMS conformance suite, through `oms sign-model|verify-model`.

github.com/ossf/model-signing-spec, conformance/TEST_CASES.md; the numbers are sections of the
specification 1.0. Each bundle that we write is also held to the specification's JSON Schemas, which
forbid what they do not name. Cases with bundles of old releases are in test_oms_vectors.py, those
of Sigstore in test_oms_sigstore.py.
"""

import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.verifier.conformance.conftest import P384, Keys
from tests.verifier.conformance.models import MODELS

ROUNDTRIPS = {
    "certificate-multi-file": ("certificate", "multi-file"),
    "certificate-simple": ("certificate", "simple"),
    "key-assets-subdir": ("key", "with-assets-subdir"),
    "key-binary-content": ("key", "binary-content"),
    "key-deeply-nested": ("key", "deeply-nested"),
    "key-deeply-nested-with-git": ("key", "deeply-nested-with-git"),
    "key-default-ignores": ("key", "with-git-dir"),
    "key-dotfile-included": ("key", "with-dotfiles"),
    "key-empty-file": ("key", "with-empty-file"),
    "key-files-in-hidden-dir": ("key", "hidden-subdir"),
    "key-git-and-ignore-combined": ("key", "with-git-and-ignore"),
    "key-ignore-paths": ("key", "simple"),
    "key-ignore-paths-exact-match": ("key", "with-nested-ignore"),
    "key-multi-file": ("key", "multi-file"),
    "key-multi-git-dirs": ("key", "multi-git-dirs"),
    "key-multi-gitignore": ("key", "multi-gitignore"),
    "key-nested-git-not-excluded": ("key", "with-nested-gitignore"),
    "key-simple": ("key", "simple"),
    "key-single-file": ("key", "single-file"),
    "key-special-chars-path": ("key", "special-chars"),
    "key-unicode-filename": ("key", "unicode-names"),
}


@pytest.mark.parametrize("case", ROUNDTRIPS)
def test_what_was_signed_verifies_and_lists_just_the_model(case, suite, signer_keys):
    method, name = ROUNDTRIPS[case]
    signed = suite.sign(name, signer_keys, method)
    assert signed.status == 0, signed.err
    assert_conforms(suite, method, MODELS[name].listed)
    verified = suite.verify(signer_keys, method, ignore=MODELS[name].ignored)
    assert verified.status == 0, verified.err
    without_options = suite.verify(signer_keys, method)
    assert without_options.status == 0, "the signed ignore_paths are enough"


@pytest.mark.parametrize("curve", [ec.SECP256R1(), P384, ec.SECP521R1()], ids=lambda c: c.name)
def test_each_curve_signs(curve, suite, key_folder):
    """key-p256, key-p384, key-p521: 4.2."""
    made = Keys(key_folder, curve)
    assert suite.sign("simple", made).status == 0
    assert suite.verify(made).status == 0


def test_a_self_signed_certificate_signs(suite, key_folder):
    """certificate-self-signed: 4.1, 8.2."""
    alone = Keys(key_folder, alone=True)
    assert suite.sign("simple", alone, "certificate").status == 0
    assert_conforms(suite, "certificate", MODELS["simple"].listed)
    assert suite.verify(alone, "certificate").status == 0


def test_a_bundle_in_the_model_is_not_listed(suite, signer_keys, tmp_path):
    """key-sig-inside-model: 6.2, 9."""
    inside = tmp_path / "model" / "bundle.sig"
    assert suite.sign("simple", signer_keys, bundle=inside).status == 0
    assert_conforms(suite, "key", MODELS["simple"].listed)
    assert suite.verify(signer_keys).status == 0


def test_the_same_model_is_listed_the_same_way_each_time(suite, signer_keys):
    """key-simple-deterministic: 6.4, 6.5.1."""
    suite.sign("simple", signer_keys)
    first = suite.statement()
    suite.sign("simple", signer_keys)
    assert suite.statement() == first


@pytest.mark.parametrize(
    ("case", "model", "reason"),
    [
        ("key-empty-model-rejected", "empty", "without a file"),
        ("key-symlink-cycle", "symlink-cycle", "cycle-link"),
        ("key-symlink-default-rejected", "symlink-inside", "link-to-signme is a link"),
        ("key-symlink-outside-root", "symlink-outside", "outside-link"),
        ("(a file out of the root)", "symlink-to-outside-file", "link out of the folder"),
    ],
)
def test_what_must_not_be_signed_is_not(case, model, reason, suite, signer_keys):
    """6.1, 6.1.1."""
    outcome = suite.sign(model, signer_keys)
    assert outcome.status != 0
    assert reason in outcome.sentence
    assert not suite.bundle.exists()


@pytest.mark.parametrize("target", ["signme-1", ".", "/etc/passwd", "/tmp/not-there"])
def test_a_link_that_came_after_signing_is_refused(target, suite, signer_keys):
    """6.1.1: the verifier follows links as little as the signer did."""
    suite.sign("simple", signer_keys)
    (suite.folder / "link").symlink_to(target)
    assert suite.verify(signer_keys).status != 0
    (suite.folder / "link").unlink()
    content = (suite.folder / "signme-1").read_bytes()
    (suite.folder / "signme-1").rename(suite.folder / "ignore-me")
    (suite.folder / "signme-1").symlink_to("ignore-me")
    assert (suite.folder / "signme-1").read_bytes() == content
    assert suite.verify(signer_keys, unsigned=True).status != 0


@pytest.mark.parametrize("keyid", ["absent", "", None])
@pytest.mark.parametrize("entries", ["absent", []])
@pytest.mark.parametrize("name", ["hint", "rawBytes"])
@pytest.mark.parametrize("method", ["key", "certificate"])
def test_what_other_writers_leave_out_is_not_asked_for(
    method, name, entries, keyid, suite, signer_keys
):
    """go-interop-key, go-interop-certificate: 4.1, 11.1."""
    suite.sign("simple", signer_keys, method)
    bundle = json.loads(suite.bundle.read_text())
    material, (signature,) = bundle["verificationMaterial"], bundle["dsseEnvelope"]["signatures"]
    if entries == "absent":
        del material["tlogEntries"]
    if keyid == "absent":
        del signature["keyid"]
    else:
        signature["keyid"] = keyid
    if name == "rawBytes" and method == "key":
        raw = base64.b64encode(signer_keys.public.read_bytes()).decode()
        material["publicKey"] = {"rawBytes": raw, "keyDetails": "PKIX_ECDSA_P384_SHA_384"}
    suite.bundle.write_text(json.dumps(bundle))
    assert suite.verify(signer_keys, method).status == 0


def assert_conforms(suite, method, listed):
    """What the suite asks of each bundle: 4.1, 5.1, 5.2, 6.1.2, 6.3.1, 6.4, 6.5, and the schemas."""
    bundle = json.loads(suite.bundle.read_text())
    assert set(bundle) == {"mediaType", "verificationMaterial", "dsseEnvelope"}
    material = bundle["verificationMaterial"]
    if method == "key":
        assert set(material["publicKey"]) == {"hint"}
        assert "x509CertificateChain" not in material
    else:
        certificates = material["x509CertificateChain"]["certificates"]
        assert certificates and all(base64.b64decode(c["rawBytes"]) for c in certificates)
        assert "publicKey" not in material
    assert bundle["dsseEnvelope"]["payloadType"] == "application/vnd.in-toto+json"
    assert len(bundle["dsseEnvelope"]["signatures"]) == 1

    statement = suite.statement()
    assert set(statement) == {"_type", "subject", "predicateType", "predicate"}
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://model_signing/signature/v1.0"
    (subject,) = statement["subject"]
    assert subject["name"] == suite.path.name
    assert set(statement["predicate"]) == {"resources", "serialization"}
    serialization = statement["predicate"]["serialization"]
    assert set(serialization) == {"method", "hash_type", "allow_symlinks", "ignore_paths"}
    assert serialization["method"] == "files"
    resources = statement["predicate"]["resources"]
    assert [resource["name"] for resource in resources] == listed
    assert {resource["algorithm"] for resource in resources} == {serialization["hash_type"]}
    digests = b"".join(bytes.fromhex(resource["digest"]) for resource in resources)
    assert subject["digest"] == {"sha256": hashlib.sha256(digests).hexdigest()}
    for name in (*listed, *serialization["ignore_paths"]):
        assert not name.startswith("/") and not name.endswith("/")
        assert not {"", ".", ".."} & set(name.split("/"))
