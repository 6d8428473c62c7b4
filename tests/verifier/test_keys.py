"""Whom we trust, and the release key that is made on first use."""

import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from verifier import dsse, keys
from verifier.errors import InputError


def test_the_release_key_is_made_once_for_its_owner_alone(tmp_path):
    folder = tmp_path / "keys"
    first = keys.read_or_make_release_key(folder)
    again = keys.read_or_make_release_key(folder)
    assert keys.private_pem(first) == keys.private_pem(again)
    assert first.curve.name == "secp256r1"
    assert stat.S_IMODE((folder / "release.pem").stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["release.pem", "release.pub.pem"]


def test_a_lost_public_key_is_written_again(tmp_path):
    keys.read_or_make_release_key(tmp_path)
    (tmp_path / "release.pub.pem").unlink()
    key = keys.read_or_make_release_key(tmp_path)
    assert (tmp_path / "release.pub.pem").read_bytes() == dsse.public_pem(key.public_key())


def test_installed_keys_are_the_public_ones_of_the_data_folder(tmp_path):
    key = keys.read_or_make_release_key(tmp_path / "keys")
    (tmp_path / "keys" / "notes.txt").write_text("not a key")
    (trusted,) = keys.installed_keys(tmp_path).keys
    assert dsse.public_pem(trusted.key) == dsse.public_pem(key.public_key())
    assert not keys.installed_keys(tmp_path / "elsewhere")
    assert not keys.installed_keys(None)


def ed25519_public():
    return (
        ed25519.Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (keys.private_pem(ec.generate_private_key(ec.SECP256R1())), "is a private key"),
        (b"hello", "not a PEM public key"),
        (b"", "not a PEM public key"),
        (b"-----BEGIN CERTIFICATE-----\n", "not a PEM certificate"),
        (bytes((1 << 20) + 1), "larger than 1 MiB"),
        (ed25519_public(), "not a P-256"),
        (dsse.public_pem(ec.generate_private_key(ec.SECP256K1()).public_key()), "not a P-256"),
    ],
    ids=["private", "text", "empty", "certificate", "large", "ed25519", "secp256k1"],
)
def test_a_file_that_is_no_trusted_key_is_named(tmp_path, content, reason):
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as error:
        keys.load_trusted(path)
    assert str(path) in str(error.value)


def test_a_missing_key_file_is_named(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        keys.load_trusted(tmp_path / "none.pem")


def test_an_encrypted_private_key_is_refused(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "key.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(InputError, match="encrypted"):
        keys.load_private(path)
