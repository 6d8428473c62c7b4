"""Whom we trust: PEM files, and what is installed with a portal."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tests.verifier.conftest import make_signer
from tests.verifier.publisher import Publisher
from verifier import dsse, keys
from verifier.errors import InputError


def test_installed_keys_are_the_public_ones_of_the_data_folder(tmp_path):
    signer = make_signer(tmp_path / "keys")
    (tmp_path / "keys" / "notes.txt").write_text("not a key")
    (trusted,) = keys.installed_keys(tmp_path).keys
    assert dsse.public_pem(trusted.key) == signer.public.read_bytes()
    assert not keys.installed_keys(tmp_path / "elsewhere")
    assert not keys.installed_keys(None)


def test_where_a_root_is_installed_it_names_the_portals_own_keys(tmp_path):
    """Others, which an operator put beside it, count as before."""
    publisher = Publisher()
    publisher.write(tmp_path / "keys")
    old = make_signer(tmp_path / "keys")
    other = old.public.with_name("partner.pub.pem")
    other.write_bytes(dsse.public_pem(ec.generate_private_key(ec.SECP256R1()).public_key()))
    trust = keys.installed_keys(tmp_path)
    assert [key.path.name for key in trust.keys] == ["root.json", "partner.pub.pem"]
    assert trust.keys[0].hint == dsse.key_hint(publisher.release.public_key())
    assert trust.keys[0].anchor == trust.roots[0].root.identity


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
