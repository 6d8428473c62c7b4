"""The portal's keys: made once, changed by versions of the root, whole after any interruption."""

import contextlib
import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from portal.audit.models import Event
from portal.catalog import keyring, rotation
from portal.catalog.keyring import KeyringError
from verifier import roots
from verifier.envelopes import Envelope, key_id, public_pem
from verifier.keys import private_pem

BY = "command:keys"


@pytest.fixture(autouse=True)
def own_keys(settings, tmp_path, db):
    """A portal of the test's own."""
    settings.DATA = tmp_path / "data"
    return settings.DATA / "keys"


def newest(at):
    return keyring.current(by=BY, at=at)


def in_use(role, at):
    return key_id(keyring.private_key(role, newest(at)).public_key())


def offline_key():
    return ed25519.Ed25519PrivateKey.generate()


def test_the_first_root_is_made_once_with_keys_for_their_owner_alone(own_keys, at):
    root = newest(at)
    assert root == newest(at)
    assert (root.version, root.roles["root"].threshold) == (1, 1)
    for role in roots.ROLES:
        assert root.roles[role].keyids == (in_use(role, at),)
        assert stat.S_IMODE((own_keys / f"{role}.pem").stat().st_mode) == 0o600
    assert list(Event.objects.values_list("action", flat=True)) == ["root.made"]


def test_a_release_key_from_before_there_was_a_root_stays(own_keys, at):
    key = ec.generate_private_key(ec.SECP256R1())
    own_keys.mkdir(parents=True)
    (own_keys / "release.pem").write_bytes(private_pem(key))
    assert in_use("release", at) == key_id(key.public_key())


def test_copies_that_are_lost_are_written_again(own_keys, at):
    newest(at)
    for name in ("release.pub.pem", "root.json"):
        before = (own_keys / name).read_bytes()
        (own_keys / name).unlink()
        newest(at)
        assert (own_keys / name).read_bytes() == before


@pytest.mark.parametrize("role", roots.ROLES)
def test_a_rotated_key_is_followed_by_whoever_trusts_the_first_root(own_keys, at, role):
    old = in_use(role, at)
    change = rotation.rotate(role, by=BY, at=at)
    assert change.in_force and in_use(role, at) != old
    assert roots.follow(own_keys / "1.root.json") == newest(at)
    assert (old in newest(at).roles[role].keyids) == (role == "release")
    assert Event.objects.filter(action="key.rotated", subject="root:2").count() == 1


@pytest.mark.parametrize("role", roots.ROLES)
@pytest.mark.parametrize("ends_at", range(1, 12))
def test_a_rotation_that_is_cut_short_leaves_a_working_root(
    own_keys, at, monkeypatch, role, ends_at
):
    """It ends at the n-th file that it would write, move or remove, as a kill would."""
    first = newest(at)
    old = in_use("release", at)
    left = ends_at

    class Killed(BaseException):
        pass

    def dying(do):
        def run(*arguments, **named):
            nonlocal left
            left -= 1
            if left <= 0:  # the dead do nothing more
                raise Killed
            return do(*arguments, **named)

        return run

    with monkeypatch.context() as patch:
        for name in ("link", "replace", "unlink"):
            patch.setattr(f"os.{name}", dying(getattr(os, name)))
        with contextlib.suppress(Killed):
            rotation.rotate(role, by=BY, at=at)
    after = newest(at)
    assert after.version in (1, 2)
    assert roots.follow(own_keys / "1.root.json") == after
    assert roots.follow(own_keys / "root.json") == after
    assert old in after.roles["release"].keyids
    for one in roots.ROLES:
        assert in_use(one, at) in after.roles[one].keyids
        assert in_use(one, at) == after.roles[one].keyids[-1]
    exported = (own_keys / "release.pub.pem").read_bytes()
    assert exported == public_pem(keyring.release_key(by=BY, at=at).public_key())
    again = rotation.rotate(role, by=BY, at=at)
    assert again.in_force and again.root.version == after.version + 1
    assert roots.follow(own_keys / "1.root.json").first == first.identity
    assert not list(own_keys.glob("*.next.pem"))


def cosign(at, *private):
    """Sign the draft elsewhere and bring the signatures."""
    signed = keyring.draft().signed_by(private)
    only_theirs = Envelope(signed.payload, signed.payload_type, signed.signatures[-len(private) :])
    return keyring.bring_signatures(only_theirs.as_bytes(), "FILE", by=BY, at=at)


def with_an_offline_key(at):
    """Make a portal whose root two must sign: the portal itself, and whoever has this key."""
    key = offline_key()
    rotation.add("root", key.public_key(), threshold=2, by=BY, at=at)
    assert cosign(at, key).in_force
    return key


def test_who_is_to_sign_from_now_on_signs_that_already(at):
    key = offline_key()
    change = rotation.add("root", key.public_key(), threshold=2, by=BY, at=at)
    assert change.missing == "1 of version 2's root keys"
    assert newest(at).version == 1
    assert cosign(at, key).in_force and newest(at).version == 2


def test_two_of_three_root_keys_must_sign_once_that_was_said(own_keys, at):
    offline = [offline_key(), offline_key()]
    rotation.add("root", offline[0].public_key(), by=BY, at=at)
    rotation.add("root", offline[1].public_key(), threshold=2, by=BY, at=at)
    assert cosign(at, offline[0]).in_force and newest(at).version == 3
    change = rotation.rotate("release", by=BY, at=at)
    assert not change.in_force
    assert change.missing == "1 of version 3's root keys and 1 of version 4's root keys"
    assert newest(at).version == 3
    with pytest.raises(KeyringError, match="waits for signatures"):
        rotation.rotate("latest", by=BY, at=at)
    assert cosign(at, offline[1]).in_force and newest(at).version == 4
    assert keyring.draft() is None
    assert in_use("release", at) == newest(at).roles["release"].keyids[-1]
    assert roots.follow(own_keys / "1.root.json") == newest(at)


def test_signatures_that_do_not_count_are_not_taken(at):
    offline = with_an_offline_key(at)
    rotation.rotate("latest", by=BY, at=at)
    waiting = keyring.draft()
    forged = Envelope(
        waiting.payload, waiting.payload_type, ((key_id(offline.public_key()), b"x"),)
    )
    strange = Envelope(waiting.payload, waiting.payload_type, ()).signed_by([offline_key()])
    for brought in (forged, strange):
        assert not keyring.bring_signatures(brought.as_bytes(), "FILE", by=BY, at=at).in_force
    assert len(keyring.draft().signatures) == 1
    other = Envelope(b"{}", waiting.payload_type, ()).signed_by([offline])
    with pytest.raises(KeyringError, match="not the version that waits"):
        keyring.bring_signatures(other.as_bytes(), "FILE", by=BY, at=at)


def test_a_draft_can_be_dropped(at):
    with_an_offline_key(at)
    rotation.rotate("release", by=BY, at=at)
    keyring.discard(by=BY, at=at)
    assert keyring.draft() is None and newest(at).version == 2
    with pytest.raises(KeyringError, match="No version"):
        keyring.discard(by=BY, at=at)


def test_a_threshold_that_could_never_be_reached_is_refused(at):
    with pytest.raises(KeyringError, match="could never be reached"):
        rotation.add("root", offline_key().public_key(), threshold=3, by=BY, at=at)
    offline = with_an_offline_key(at)
    with pytest.raises(KeyringError, match="could never be reached"):
        rotation.revoke(key_id(offline.public_key()), reason="Lost.", by=BY, at=at)


def test_one_key_has_one_role_and_a_release_key_is_p256(at):
    latest = keyring.private_key("latest", newest(at)).public_key()
    with pytest.raises(KeyringError, match="has a role already"):
        rotation.add("root", latest, by=BY, at=at)
    with pytest.raises(KeyringError, match="P-256"):
        rotation.add("release", offline_key().public_key(), by=BY, at=at)
    with pytest.raises(KeyringError, match="Only the root role"):
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        rotation.add("release", key, threshold=2, by=BY, at=at)


@pytest.mark.parametrize("role", roots.ROLES)
def test_a_revoked_key_is_replaced_at_once_and_never_comes_back(at, role):
    old = in_use(role, at)
    public = newest(at).keys[old]
    change = rotation.revoke(old[:8], reason="The laptop was stolen.", by=BY, at=at)
    assert change.in_force and newest(at).revoked[old].reason == "The laptop was stolen."
    assert old not in newest(at).keys and in_use(role, at) != old
    assert rotation.revoke(old, reason="Again.", by=BY, at=at) is None
    with pytest.raises(KeyringError, match="was revoked"):
        rotation.add(role, public, by=BY, at=at)


def test_a_key_is_revoked_only_by_a_name_that_means_it_and_with_a_reason(at):
    keyid = in_use("release", at)
    for wrong in (keyid[:7], "0" * 64, ""):
        with pytest.raises(KeyringError, match="names no key"):
            rotation.revoke(wrong, reason="Lost.", by=BY, at=at)
    with pytest.raises(KeyringError, match="Say why"):
        rotation.revoke(keyid, reason=" ", by=BY, at=at)


def test_a_root_that_is_not_in_the_audit_never_comes_into_force(at, monkeypatch):
    newest(at)

    def refuse(*_, **__):
        raise keyring.KeyringError("the database is gone")

    monkeypatch.setattr(keyring, "record", refuse)
    with pytest.raises(KeyringError, match="is gone"):
        rotation.rotate("release", by=BY, at=at)
    assert newest(at).version == 1


def test_a_private_key_that_is_lost_or_strange_is_named(own_keys, at):
    root = newest(at)
    (own_keys / "release.pem").write_bytes((own_keys / "latest.pem").read_bytes())
    with pytest.raises(KeyringError, match="not a key that the root names"):
        keyring.private_key("release", root)
    (own_keys / "release.pem").unlink()
    with pytest.raises(KeyringError, match="keys rotate release"):
        keyring.private_key("release", root)
    assert rotation.rotate("release", by=BY, at=at).in_force
    assert in_use("release", at)
