"""The verdict as a signed statement that policy engines read."""

import base64
import hashlib
import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.json_format import ParseDict
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement

from tests.verifier.conftest import SHARD
from verifier import dsse, keys


@pytest.fixture
def attester(tmp_path):
    """A key of whoever verifies, and where its public half is not needed."""
    path = tmp_path / "attester.pem"
    path.write_bytes(keys.private_pem(ec.generate_private_key(ec.SECP256R1())))
    return path


@pytest.fixture
def attested(tmp_path, attester, verify, copy):
    """Verify the copy, attest, check the signature, and return the statement."""
    out = tmp_path / "verdict.intoto.json"

    def attested(*arguments):
        verify(
            copy, "--checks", "files,weights", "--attest", attester, "--attest-out", out, *arguments
        )
        envelope = json.loads(out.read_text())
        payload = base64.b64decode(envelope["payload"])
        public = keys.load_private(attester).public_key()
        assert envelope["payloadType"] == "application/vnd.in-toto+json"
        assert dsse.holds(base64.b64decode(envelope["signatures"][0]["sig"]), payload, public)
        return json.loads(payload)

    return attested


def test_an_identical_copy_is_attested_with_the_digests_of_its_files(attested, copy):
    statement = attested()
    predicate = statement["predicate"]
    subjects = {s["name"]: s["digest"]["sha256"] for s in statement["subject"]}
    assert statement["predicateType"] == "https://in-toto.io/attestation/svr/v0.1"
    assert subjects[SHARD] == hashlib.sha256((copy / SHARD).read_bytes()).hexdigest()
    assert predicate["properties"] == [
        "WEIGHBRIDGE_VERDICT_IDENTICAL",
        "WEIGHBRIDGE_MANIFEST_SIGNED",
        "WEIGHBRIDGE_ACCEPTED",
    ]
    at = datetime.fromisoformat(predicate["timeCreated"])
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60
    assert predicate["verifier"]["policy"]["name"] == "test/tiny@1"


def test_the_reference_library_accepts_the_statement(attested):
    parsed = ParseDict(attested(), statement_pb2.Statement())
    Statement.copy_from_pb(parsed).validate()
    for subject in parsed.subject:
        ResourceDescriptor.copy_from_pb(subject).validate()


def test_a_damaged_copy_is_attested_as_that_with_the_bytes_it_has(attested, copy):
    with (copy / SHARD).open("r+b") as file:
        file.seek(5 << 20)
        file.write(b"changed!")
    statement = attested()
    subjects = {s["name"]: s["digest"]["sha256"] for s in statement["subject"]}
    assert subjects[SHARD] == hashlib.sha256((copy / SHARD).read_bytes()).hexdigest()
    assert "WEIGHBRIDGE_VERDICT_DAMAGED" in statement["predicate"]["properties"]
    assert "WEIGHBRIDGE_ACCEPTED" not in statement["predicate"]["properties"]


def test_nothing_is_attested_of_an_untrusted_manifest_and_the_old_verdict_is_gone(
    verify, copy, attester, tmp_path, attested
):
    attested()
    signed = (copy / "model.sig").read_text()
    (copy / "model.sig").write_text(signed.replace('"sig":"M', '"sig":"N'))
    out = tmp_path / "verdict.intoto.json"
    done = verify(copy, "--attest", attester, "--attest-out", out)
    assert done.status == 2
    assert done.sentence.startswith("Nothing is attested")
    assert not out.exists()


def test_a_key_that_cannot_sign_is_refused_before_anything_is_read(verify, copy, tmp_path):
    (tmp_path / "no.pem").write_text("no key")
    done = verify(copy, "--attest", tmp_path / "no.pem")
    assert done.status == 2
    assert "is not a PEM private key" in done.sentence
