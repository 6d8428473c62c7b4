"""The root: thresholds, steps from version to version, and what is refused."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.verifier.publisher import START, Publisher, ed25519_key, p256_key, sealed
from verifier import keys, latest, manifest, roots
from verifier.dsse import public_pem
from verifier.envelopes import Envelope, key_id
from verifier.errors import InputError, ManifestError, SignatureError, VerifierError
from verifier.findings import Code
from verifier.freshness import Freshness
from verifier.roots import Role

VECTORS = Path(__file__).parents[1] / "vectors" / "root"


def two_of_three() -> Publisher:
    return Publisher(root=[ed25519_key(), p256_key(), ed25519_key()], threshold=2)


@pytest.mark.parametrize("make", [ed25519_key, p256_key], ids=["ed25519", "p256"])
def test_a_root_with_one_key_is_signed_by_it(make):
    publisher = Publisher(root=[make()])
    root = roots.verify(publisher.roots[0])
    assert (root.version, root.first, root.identity) == (1, None, root.digest)
    assert list(root.keys_of("release")) == [key_id(publisher.release.public_key())]


@pytest.mark.parametrize("chosen", [(0, 1), (1, 2), (0, 2), (0, 1, 2)])
def test_any_two_of_three_suffice(chosen):
    publisher = two_of_three()
    data = sealed(publisher.payload(), [publisher.root[i] for i in chosen])
    assert roots.step(publisher.newest, data).version == 2


@pytest.mark.parametrize("chosen", [(), (0,), (2,)])
def test_fewer_than_two_of_three_do_not(chosen):
    publisher = two_of_three()
    data = sealed(publisher.payload(), [publisher.root[i] for i in chosen])
    with pytest.raises(SignatureError, match=f"carries {len(chosen)} of the 2 signatures"):
        roots.step(publisher.newest, data)


def test_two_signatures_of_one_key_count_once():
    publisher = two_of_three()
    key = publisher.root[1]  # P-256: each signature is another one
    once = Envelope(publisher.payload(), roots.PAYLOAD_TYPE, ()).signed_by([key])
    again = Envelope(once.payload, roots.PAYLOAD_TYPE, ()).signed_by([key])
    assert once.signatures != again.signatures
    both = Envelope(once.payload, once.payload_type, once.signatures + again.signatures)
    with pytest.raises(SignatureError, match="carries 1 of the 2"):
        roots.step(publisher.newest, both.as_bytes())


def test_a_key_listed_under_two_ids_is_refused():
    publisher = two_of_three()
    content = json.loads(publisher.payload())
    first, second, _ = content["roles"]["root"]["keyids"]
    content["keys"][second] = content["keys"][first]
    data = sealed(json.dumps(content).encode(), publisher.root)
    with pytest.raises(ManifestError, match="not the one that its id names"):
        roots.step(publisher.newest, data)


@pytest.mark.parametrize("role", ["release", "latest"])
def test_a_key_of_another_role_does_not_sign_the_root(role):
    publisher = Publisher()
    key = publisher.release if role == "release" else publisher.latest_key
    with pytest.raises(SignatureError, match="carries 0 of the 1"):
        roots.verify(sealed(publisher.payload(), [key]))


def test_a_new_root_needs_the_signatures_of_the_old_and_of_its_own_keys():
    publisher = Publisher()
    root, old = publisher.newest, publisher.root
    publisher.root = [ed25519_key()]
    payload = publisher.payload()
    with pytest.raises(SignatureError, match="version 1's"):
        roots.step(root, sealed(payload, publisher.root))
    with pytest.raises(SignatureError, match="its own"):
        roots.step(root, sealed(payload, old))
    assert roots.step(root, sealed(payload, [*old, *publisher.root])).version == 2


def test_a_chain_is_followed_from_the_version_that_is_trusted(tmp_path):
    publisher = Publisher()
    publisher.rotate_root()
    publisher.rotate_release()
    publisher.write(tmp_path)
    for name in ("1.root.json", "2.root.json", "3.root.json", "root.json"):
        assert roots.follow(tmp_path / name) == publisher.newest


def test_a_missing_step_is_named(tmp_path):
    publisher = Publisher()
    publisher.rotate_root()
    publisher.rotate_root()
    publisher.write(tmp_path)
    (tmp_path / "2.root.json").unlink()
    with pytest.raises(InputError, match=r"2\.root\.json, by which it could be trusted"):
        roots.follow(tmp_path / "1.root.json")


def test_a_step_cannot_be_skipped():
    publisher = Publisher()
    first = publisher.newest
    publisher.rotate_release()
    publisher.rotate_release()
    with pytest.raises(SignatureError, match="is not version 2"):
        roots.step(first, publisher.roots[2])


def test_files_of_another_root_are_not_looked_at(tmp_path):
    other, publisher = Publisher(), Publisher()
    other.rotate_root()
    other.write(tmp_path)
    (tmp_path / "lab.json").write_bytes(publisher.roots[0])
    assert roots.follow(tmp_path / "lab.json") == publisher.newest


def test_a_stranger_cannot_continue_a_root(tmp_path):
    publisher, thief = Publisher(), Publisher()
    publisher.write(tmp_path)
    payload = thief.payload(first=publisher.newest.identity, version=2)
    (tmp_path / "2.root.json").write_bytes(sealed(payload, thief.root))
    with pytest.raises(SignatureError, match="version 1's root keys"):
        roots.follow(tmp_path / "1.root.json")


def spoiled(**changed):
    def change(content):
        return content | changed

    return change


def with_role(name, **changed):
    def change(content):
        content["roles"][name] |= changed
        return content

    return change


def revoke_a_listed_key(content):
    keyid = content["roles"]["release"]["keyids"][0]
    entry = {"role": "release", "reason": "lost", "at": START.isoformat()}
    return content | {"revoked": {keyid: entry}}


def p384_release(content):
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    return content | {"keys": content["keys"] | {"0" * 64: {"public": public_pem(key).decode()}}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (spoiled(type="latest"), "of a form"),
        (spoiled(schema=2), "of a form"),
        (spoiled(version=0), "between 1"),
        (spoiled(version=True), "`version` is missing or of the wrong type"),
        (spoiled(version=2), "does not name version 1"),
        (spoiled(first="A" * 64, version=2), "does not name version 1"),
        (spoiled(expires="2030-01-01T00:00:00"), "with its offset"),
        (spoiled(expires="soon"), "ISO 8601"),
        (spoiled(keys={}), "names a key twice, or one that is not there"),
        (spoiled(keys={"0" * 64: {"public": "no key"}}), "not a PEM public key"),
        (spoiled(keys={"0" * 64: {"public": "\ud800"}}), "surrogate"),
        (p384_release, "neither an Ed25519 nor a P-256"),
        (with_role("root", threshold=2), "cannot be reached"),
        (with_role("root", threshold=0), "cannot be reached"),
        (with_role("root", keyids=[["a"]]), "names a key twice, or one that is not there"),
        (with_role("latest", keyids=[]), "cannot be reached"),
        (revoke_a_listed_key, "revoked key is still listed"),
        (spoiled(roles=[]), "`roles` is missing or of the wrong type"),
    ],
)
def test_a_malformed_root_is_refused_in_a_sentence(change, reason):
    content = change(json.loads(Publisher().payload(version=1, first=None)))
    with pytest.raises(ManifestError, match=reason) as error:
        roots.parse(json.dumps(content).encode())
    assert "\n" not in str(error.value)


def test_the_release_role_takes_p256_keys_and_a_threshold_of_one():
    publisher = Publisher()
    keys = [key_id(key.public_key()) for key in (publisher.latest_key, publisher.release)]
    roles = {name: Role((keys[0],), 1) for name in roots.ROLES}
    with pytest.raises(ManifestError, match="not a P-256 key"):
        roots.parse(publisher.payload(roles=roles))
    roles = {name: Role(tuple(keys), 2) for name in roots.ROLES}
    with pytest.raises(ManifestError, match="its threshold is 1"):
        roots.parse(publisher.payload(roles=roles))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"payloadType":"application/vnd.weighbridge.root+json","payload":"!","signatures":[]}',
        b'{"payloadType":"application/vnd.in-toto+json","payload":"","signatures":[]}',
        b'{"payload":1,"payload":2}',
        b"[" * 100_000,
        b"{" + b" " * (2 << 20) + b"}",
        keys.private_pem(ed25519_key()),
    ],
    ids=range(9),
)
def test_what_is_no_root_ends_in_a_sentence(tmp_path, data):
    (tmp_path / "root.json").write_bytes(data)
    with pytest.raises(VerifierError) as error:
        roots.follow(tmp_path / "root.json")
    assert "root.json" in str(error.value)


def test_more_signatures_than_keys_can_be_are_refused():
    publisher = Publisher()
    envelope = Envelope(publisher.payload(), roots.PAYLOAD_TYPE, (("0" * 64, b"x"),) * 65)
    with pytest.raises(ManifestError, match="more than 64 signatures"):
        roots.verify(envelope.as_bytes())


def test_the_kept_root_verifies_for_ever(verify):
    """Frozen at the time when it was fresh, and today: what was signed once stays signed."""
    newest = roots.follow(VECTORS / "1.root.json")
    assert (newest.version, newest.roles["root"].threshold) == (3, 2)
    trusted = latest.load_root(VECTORS / "root.json")
    assert trusted.latest is not None and trusted.latest.newest == {"vectors/root": "2"}
    trust = keys.load_all([VECTORS / "1.root.json"])
    found = manifest.load(VECTORS / "revision-2" / "model.sig", trust)
    judged = Freshness(trust.roots, None, START).judge(found)
    assert (judged.refusal, judged.stale) == (None, False)
    assert {finding.code for finding in judged.findings} == {Code.RECALLED, Code.NEWER_VERSION}
    outcome = verify(VECTORS / "revision-2", key=VECTORS / "1.root.json")
    assert (outcome.status, outcome.report["verdict"]) == (0, "identical")
    assert outcome.codes == {"stale", "recalled", "newer-version"}


def test_what_the_kept_root_revoked_stays_revoked(verify):
    outcome = verify(VECTORS / "revision-1", key=VECTORS / "1.root.json")
    assert (outcome.status, outcome.codes) == (1, {"revoked"})
    first = roots.verify((VECTORS / "1.root.json").read_bytes())
    assert len(first.roles["release"].keyids) == 1
