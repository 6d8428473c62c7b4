"""CloudFront's signed URLs, checked with the public key by rebuilding the policy."""

import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from portal.storage.cloudfront import CloudFrontStore, read_key
from portal.storage.errors import StoreError
from portal.storage.stores import Bucket, Distribution
from tests.servers.edge import refusal

ID, SITE = "K2JCJMDEHXQW5F", "https://d111111abcdef8.cloudfront.net"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ECDSA = ec.generate_private_key(ec.SECP256R1())


def key_file(folder, key, mode=0o600, encryption=None):
    path = folder / "key.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    )
    path.chmod(mode)
    return path


@pytest.fixture(autouse=True)
def made_up_keys(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up")


@pytest.fixture
def store(tmp_path):
    return CloudFrontStore(Bucket("weights"), Distribution(SITE, ID, key_file(tmp_path, RSA)))


def why_not(url, key=RSA, at=None):
    return refusal(url, key.public_key(), ID, at=at or time.time())


@pytest.mark.parametrize(
    "wanted", [{}, {"version": "v.7_x"}, {"disposition": 'attachment; a="b c"'}]
)
def test_a_url_holds_for_its_object_until_its_time_is_over(store, wanted):
    url = store.presign("llama/7b@1/a.bin", seconds=60, **wanted)
    assert url.startswith(f"{SITE}/llama/7b%401/a.bin?")
    assert why_not(url) == ""
    assert why_not(url, at=time.time() + 61) == "expired"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("a.bin", "b.bin"), ("Expires=1", "Expires=2"), ("versionId=v7", "versionId=v8")],
)
def test_what_is_changed_does_not_hold(store, ours, theirs):
    url = store.presign("llama/a.bin", seconds=60, version="v7")
    assert why_not(url.replace(ours, theirs)) == "bad signature"


def test_another_key_does_not_hold(store):
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert why_not(store.presign("a", seconds=60), other) == "bad signature"


def test_no_url_is_for_more_than_one_object(store):
    assert "%2A" in store.presign("llama/*", seconds=60)
    with pytest.raises(StoreError, match="without wildcards"):
        store.sign(f"{SITE}/llama/*?a=b", 2_000_000_000)


def test_the_sdk_signs_the_same(store):
    from datetime import UTC, datetime

    from botocore.signers import CloudFrontSigner
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    peer = CloudFrontSigner(ID, lambda text: RSA.sign(text, padding.PKCS1v15(), hashes.SHA1()))
    ends = 2_000_000_000
    url = f"{SITE}/a.bin?versionId=v7"
    assert store.sign(url, ends) == peer.generate_presigned_url(
        url, date_less_than=datetime.fromtimestamp(ends, UTC)
    )


def test_an_ecdsa_key_is_used_only_by_who_says_so(tmp_path):
    path = key_file(tmp_path, ECDSA)
    with pytest.raises(StoreError, match="UNVERIFIED_ECDSA=1"):
        read_key(path)
    store = CloudFrontStore(Bucket("weights"), Distribution(SITE, ID, path, allow_ecdsa=True))
    assert why_not(store.presign("a", seconds=60), ECDSA) == ""


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "none.pem", "cannot be read"),
        (lambda folder: key_file(folder, RSA, 0o640), "chmod 600"),
        (
            lambda folder: key_file(folder, RSA, encryption=BestAvailableEncryption(b"x")),
            "without a password",
        ),
        (
            lambda folder: key_file(folder, rsa.generate_private_key(65537, 1024)),
            "2048 bits",
        ),
        (
            lambda folder: key_file(folder, ec.generate_private_key(ec.SECP384R1())),
            "not an RSA key",
        ),
    ],
    ids=["missing", "readable", "encrypted", "short", "curve"],
)
def test_a_key_that_cannot_be_used_is_named_with_its_setting(tmp_path, make, says):
    with pytest.raises(StoreError, match="WEIGHBRIDGE_CLOUDFRONT_KEY_FILE") as error:
        read_key(make(tmp_path))
    assert says in str(error.value)
