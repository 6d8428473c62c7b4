"""Whose certificate may sign, and which path leads from it to an authority that is trusted."""

import base64
import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.verifier.conftest import flip
from tests.verifier.pki import DAY, SIGNS, authority, issue
from tests.verifier.test_oms import EMPTY, reference_tool
from verifier import certificates, oms
from verifier.errors import InputError, ManifestError, SignatureError, VerifierError
from verifier.keys import load_all, load_certificates
from verifier.trust import Trust

NOW = datetime.now(UTC)
PAST = {"starts": NOW - 9 * DAY, "ends": NOW - 2 * DAY}
FUTURE = {"starts": NOW + 2 * DAY, "ends": NOW + 9 * DAY}
SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"")
NAMES = x509.NameConstraints([x509.DNSName("example.org")], None)
ROOT = authority("Test root")
RSA_1024 = rsa.generate_private_key(public_exponent=65537, key_size=1024)


def chain_of(*holders):
    return [holder.certificate for holder in holders]


def signer_of(*holders, trusted=(ROOT,), at=None):
    return certificates.signer_of(chain_of(*holders), chain_of(*trusted), at or NOW)


def test_a_path_leads_through_authorities_to_a_trusted_one():
    upper = authority("Upper", ROOT)
    lower = authority("Lower", upper, path_length=0)
    leaf = lower.issue("Leaf")
    key, signer = signer_of(leaf, lower, upper)
    assert key == leaf.key.public_key()
    assert signer.signed_by == f"CN=Leaf, certificate {certificates.fingerprint(leaf.certificate)}"
    assert certificates.fingerprint(ROOT.certificate) in signer.anchor
    assert signer_of(leaf, upper, lower, ROOT)[0] == key  # in any order, with the root among them


def test_the_person_may_trust_an_authority_in_the_middle_or_the_signer_alone():
    middle = authority("Middle", ROOT)
    leaf = middle.issue("Leaf")
    assert signer_of(leaf, trusted=[middle])
    assert signer_of(leaf, trusted=[leaf])


def test_a_self_signed_certificate_counts_where_it_is_trusted_itself():
    alone = issue("Alone", ca=True, usage=SIGNS, others=((code_signing(), False),))
    assert signer_of(alone, trusted=[alone])
    with pytest.raises(SignatureError, match="no authority that is trusted here"):
        signer_of(alone)


def code_signing():
    return x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])


def test_a_signer_may_bear_the_name_of_its_authority():
    """As the certificates of the reference tool's own tests do."""
    middle = authority("Same name", ROOT)
    assert signer_of(middle.issue("Same name"), middle)


@pytest.mark.parametrize("key", [RSA_1024, ed25519.Ed25519PrivateKey.generate()])
def test_a_signer_has_a_key_that_every_verifier_takes(key):
    with pytest.raises(SignatureError, match="P-256, P-384 or P-521"):
        signer_of(ROOT.issue("Leaf", key=key))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (PAST, "expired on"),
        (FUTURE, "is not valid before"),
        ({"usage": {"key_agreement"}}, "not for digital signatures"),
        ({"extended": ()}, "not for code signing"),
        ({"extended": SERVER}, "not for code signing"),
        ({"others": ((UNKNOWN, True),)}, "critical extension, 1.2.3.4"),
    ],
)
def test_a_certificate_that_may_not_sign_now_is_refused(options, reason):
    with pytest.raises(SignatureError, match=reason):
        signer_of(ROOT.issue("Leaf", **options))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (PAST, "expired on"),
        (FUTURE, "is not valid before"),
        ({"ca": False}, "not that of an authority"),
        ({"ca": None}, "not that of an authority"),
        ({"usage": SIGNS}, "may not sign certificates"),
        ({"others": ((NAMES, True),)}, "critical extension"),
        ({"others": ((NAMES, False),)}, "constrains names"),
        ({"others": ((x509.ExtendedKeyUsage(SERVER), False),)}, "not for code signing"),
        ({"key": RSA_1024}, "fewer than 2048 bits"),
    ],
)
@pytest.mark.parametrize("place", ["middle", "root"])
def test_an_authority_that_may_not_certify_now_is_refused(options, reason, place):
    root = authority("Root", **(options if place == "root" else {}))
    middle = authority("Middle", root, **(options if place == "middle" else {}))
    with pytest.raises(SignatureError, match=reason):
        signer_of(middle.issue("Leaf"), middle, trusted=[root])


def test_an_authority_stands_only_above_as_many_as_it_may():
    root = authority("Root", path_length=0)
    middle = authority("Middle", root)
    leaf = middle.issue("Leaf")
    with pytest.raises(SignatureError, match="only 0 authorities below"):
        signer_of(leaf, middle, trusted=[root])
    assert signer_of(root.issue("Leaf"), trusted=[root])


def test_a_certificate_of_a_foreign_authority_is_refused():
    stranger = authority("Test root")
    with pytest.raises(SignatureError, match="no authority that is trusted here"):
        signer_of(stranger.issue("Leaf"), stranger)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="only OpenSSL still signs with SHA-1")
@pytest.mark.parametrize(("digest", "holds"), [("sha256", True), ("sha1", False)])
def test_a_digest_that_can_be_forged_makes_no_certificate(tmp_path, digest, holds):
    key, certificate = ROOT.write(tmp_path, "root")
    leaf, _ = ROOT.issue("Leaf").write(tmp_path, "leaf")
    (tmp_path / "extensions").write_text("extendedKeyUsage=codeSigning")
    request = ["openssl", "req", "-new", "-subj", "/CN=Leaf", "-key", leaf]
    made = subprocess.run(request, check=True, capture_output=True)
    sign = ["openssl", "x509", "-req", f"-{digest}", "-CA", certificate, "-CAkey", key]
    sign += ["-extfile", tmp_path / "extensions", "-set_serial", "1"]
    signed = subprocess.run(sign, input=made.stdout, check=True, capture_output=True)
    issued = x509.load_pem_x509_certificate(signed.stdout)
    assert issued.signature_hash_algorithm.name == digest
    at = issued.not_valid_before_utc + DAY
    if holds:
        assert certificates.signer_of([issued], [ROOT.certificate], at)
    else:
        with pytest.raises(SignatureError, match="no authority that is trusted here"):
            certificates.signer_of([issued], [ROOT.certificate], at)


def test_a_time_decides_what_is_valid():
    leaf = ROOT.issue("Leaf", ends=NOW + DAY)
    assert signer_of(leaf, at=NOW + DAY - timedelta(seconds=2))
    with pytest.raises(SignatureError, match="expired"):
        signer_of(leaf, at=NOW + DAY + timedelta(seconds=2))


def test_many_authorities_of_one_name_and_key_end_at_once():
    """A stranger cannot make the search long: each certificate is looked at once."""
    key = ec.generate_private_key(ec.SECP256R1())
    same = [authority("Same", key=key) for _ in range(certificates.MAX_CHAIN - 1)]
    with pytest.raises(SignatureError):
        signer_of(same[0].issue("Leaf"), *same)


def bundle_by(leaf, *above):
    resource = oms.Resource("a", EMPTY)
    return oms.sign([resource], "m", leaf.key, chain=chain_of(leaf, *above))


def test_a_bundle_by_certificate_says_who_signed_it():
    leaf = ROOT.issue("Publisher")
    statement = oms.verify(bundle_by(leaf), Trust(authorities=(ROOT.certificate,)))
    assert statement.signed_by.startswith("CN=Publisher, certificate ")


def test_a_chain_must_be_that_of_the_key():
    with pytest.raises(ManifestError, match="not that of the private key"):
        oms.sign([oms.Resource("a", EMPTY)], "m", ROOT.key, chain=chain_of(ROOT.issue("Other")))


@pytest.mark.parametrize("trust", [Trust(), Trust.in_keys(ROOT.key.public_key())])
def test_a_bundle_by_certificate_needs_a_trusted_authority(trust):
    with pytest.raises(SignatureError, match="no certificate authority is trusted here"):
        oms.verify(bundle_by(ROOT.issue("Publisher")), trust)


def test_a_changed_payload_under_a_good_certificate_is_refused():
    bundle = json.loads(bundle_by(ROOT.issue("Publisher")))
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b'"m"', b'"n"')
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(SignatureError, match="does not hold"):
        oms.verify(json.dumps(bundle).encode(), Trust(authorities=(ROOT.certificate,)))


@pytest.mark.parametrize(
    "listed",
    [
        [],
        [{"rawBytes": "AAAA"}],
        [{"rawBytes": "?"}],
        [{}],
        [7],
        "x",
        [{"rawBytes": ""}] * (certificates.MAX_CHAIN + 1),
        [{"rawBytes": base64.b64encode(bytes(certificates.MAX_CERTIFICATE_BYTES + 1)).decode()}],
    ],
)
def test_a_malformed_chain_is_refused(listed):
    bundle = json.loads(bundle_by(ROOT.issue("Publisher")))
    bundle["verificationMaterial"]["x509CertificateChain"]["certificates"] = listed
    with pytest.raises(ManifestError):
        oms.verify(json.dumps(bundle).encode(), Trust(authorities=(ROOT.certificate,)))


DER = ROOT.issue("Fuzzed").certificate.public_bytes(serialization.Encoding.DER)


@given(st.integers(0, len(DER) - 1), st.binary(min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_any_changed_certificate_is_refused_by_an_error_of_ours(at, change):
    changed = DER[:at] + change + DER[at + len(change) :]
    if changed == DER:
        return
    with pytest.raises(VerifierError):
        certificates.signer_of(certificates.load_chain([changed]), [ROOT.certificate], NOW)


@pytest.fixture
def infrastructure(tmp_path):
    """A signer under two authorities, as files: key, certificate, authority, root."""
    root = authority("Root")
    middle = authority("Middle", root)
    leaf = middle.issue("Publisher", key=ec.generate_private_key(ec.SECP384R1()))
    (key, certificate), (_, above), (_, top) = (
        holder.write(tmp_path, name)
        for holder, name in ((leaf, "leaf"), (middle, "middle"), (root, "root"))
    )
    return key, certificate, above, top


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "weights.bin").write_bytes(bytes(1000))
    return folder


def test_bundles_by_certificate_go_both_ways_with_the_reference_tool(
    folder, infrastructure, tmp_path, oms_command
):
    key, certificate, above, top = infrastructure
    ours, theirs = tmp_path / "ours.sig", tmp_path / "theirs.sig"
    common = ["--method", "certificate", "--model-path", folder]
    signing = ["--private-key", key, "--signing-cert", certificate, "--cert-chain", above]
    assert oms_command("sign-model", *common, *signing, "--output-bundle", ours).status == 0
    command = ["verify", "certificate", folder, "--certificate_chain", top, "--signature", ours]
    done = reference_tool(*command)
    assert done.returncode == 0, done.stderr

    signing = ["--private_key", key, "--signing_certificate", certificate]
    command = ["sign", "certificate", folder, "--certificate_chain", above, "--signature", theirs]
    done = reference_tool(*command, *signing)
    assert done.returncode == 0, done.stderr
    for bundle in (ours, theirs):
        outcome = oms_command("verify-model", *common, "--cert-chain", top, "--bundle", bundle)
        assert outcome.status == 0, outcome.err
    flip(folder / "config.json", 0)
    for bundle in (ours, theirs):
        outcome = oms_command("verify-model", *common, "--cert-chain", top, "--bundle", bundle)
        assert outcome.sentence.startswith("config.json differs")


def test_verify_takes_authorities_and_keys_together_and_says_who_signed(
    folder, infrastructure, oms_command, verify, signer
):
    key, certificate, above, top = infrastructure
    signing = ["--private-key", key, "--signing-cert", certificate, "--cert-chain", above]
    common = ["--method", "certificate", "--model-path", folder]
    bundle = folder / "model.sig"
    assert oms_command("sign-model", *common, *signing, "--output-bundle", bundle).status == 0
    outcome = verify(folder, "--trusted-key", signer.public, "--checks", "files", key=top)
    assert outcome.report["verdict"] == "identical"
    assert outcome.report["manifest"]["signed_by"].startswith("CN=Publisher, certificate ")
    nearer = verify(folder, "--checks", "files", key=above)
    assert nearer.status == 0  # the authority in the middle is trusted as it is
    untrusted = verify(folder, "--checks", "files", key=signer.public)
    assert (untrusted.status, untrusted.report["verdict"]) == (1, "untrusted")
    assert "--trusted-key" in untrusted.sentence


def test_a_file_may_hold_several_authorities(tmp_path):
    others = [authority("One"), authority("Two")]
    path = tmp_path / "authorities.pem"
    path.write_bytes(
        b"".join(o.certificate.public_bytes(serialization.Encoding.PEM) for o in others)
    )
    assert load_certificates(path) == chain_of(*others)
    assert load_all([path]).authorities == tuple(chain_of(*others))
    path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(InputError, match="not a PEM certificate"):
        load_all([path])
