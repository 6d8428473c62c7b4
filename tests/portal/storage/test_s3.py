"""Signatures and digests for S3: arithmetic, with made-up keys and no server."""

import hashlib
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import botocore.auth
import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from portal.storage import parts
from portal.storage.errors import StoreError
from portal.storage.remedies import explain
from portal.storage.s3 import S3Store
from portal.storage.stores import Bucket

HERE = Bucket("weights", endpoint="http://127.0.0.1:7480")


@pytest.fixture
def made_up_keys(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up")


def presigned(bucket, **wanted):
    return urlsplit(S3Store(bucket).presign("llama/a.bin", **{"seconds": 60} | wanted))


def test_a_url_is_signed_with_version_4_for_one_version_of_one_object(made_up_keys):
    url = presigned(HERE, version="v7", disposition='attachment; filename="a"')
    query = {name: value for name, (value,) in parse_qs(url.query).items()}
    assert url.path == "/weights/llama/a.bin"
    assert (query["X-Amz-Algorithm"], query["X-Amz-Expires"]) == ("AWS4-HMAC-SHA256", "60")
    assert query["versionId"] == "v7"
    assert query["response-content-disposition"] == 'attachment; filename="a"'


def test_the_signature_is_for_exactly_this(made_up_keys, monkeypatch):
    class Clock(botocore.auth.datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 1, tzinfo=tz)

    monkeypatch.setattr(botocore.auth, "get_current_datetime", Clock.now)
    signed = [
        parse_qs(presigned(HERE, **wanted).query)["X-Amz-Signature"][0]
        for wanted in ({}, {}, {"seconds": 61}, {"version": "v7"}, {"disposition": "attachment"})
    ]
    assert signed[0] == signed[1]
    assert len(set(signed)) == 4


@pytest.mark.parametrize(
    ("bucket", "netloc", "path"),
    [
        (HERE, "127.0.0.1:7480", "/weights/llama/a.bin"),
        (Bucket("weights", "eu-west-3", addressing="virtual"), "weights.s3.eu-west-3.", "/llama"),
        (
            Bucket("weights", endpoint="https://s3.lab.example", addressing="virtual"),
            "weights.s3.lab.example",
            "/llama/a.bin",
        ),
        (
            Bucket("weights", endpoint="http://10.0.0.2", public_endpoint="https://dl.lab.example"),
            "dl.lab.example",
            "/weights/llama/a.bin",
        ),
    ],
    ids=["path", "aws-virtual", "virtual", "public-endpoint"],
)
def test_a_url_is_for_the_address_that_visitors_reach(made_up_keys, bucket, netloc, path):
    url = presigned(bucket)
    assert url.netloc.startswith(netloc) and url.path.startswith(path)


def test_no_url_is_promised_longer_than_the_signature_allows(made_up_keys):
    query = parse_qs(presigned(HERE, seconds=10**9).query)
    assert query["X-Amz-Expires"] == ["604800"]


@pytest.mark.parametrize(("left", "promised"), [(3600, {"60"}), (30, {"28", "29", "30"})])
def test_no_url_is_promised_longer_than_the_credentials_live(
    made_up_keys, monkeypatch, left, promised
):
    ends = datetime.now(UTC) + timedelta(seconds=left)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "made-up")
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", ends.isoformat())
    assert parse_qs(presigned(HERE).query)["X-Amz-Expires"][0] in promised


def test_credentials_that_have_ended_are_told_in_words(made_up_keys, monkeypatch):
    ended = datetime.now(UTC) - timedelta(seconds=5)
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", ended.isoformat())
    with pytest.raises(StoreError, match="renew the credentials"):
        presigned(HERE)


def test_encryption_by_a_key_is_part_of_what_is_signed(made_up_keys):
    asked = {}

    def note(request, **_):
        asked.update(request.headers)
        raise InterruptedError

    store = S3Store(Bucket("weights", endpoint=HERE.endpoint, kms_key="arn:aws:kms:key/1"))
    store._client.meta.events.register("before-send.s3.PutObject", note)
    with pytest.raises(InterruptedError):
        store._put("a", b"abc")
    asked = {name.lower(): value for name, value in asked.items()}
    assert asked["x-amz-server-side-encryption"] in ("aws:kms", b"aws:kms")
    signed = str(asked["authorization"])
    for name in ("", "-aws-kms-key-id"):
        assert f"x-amz-server-side-encryption{name}" in signed
    assert "x-amz-checksum-sha256" in signed


@pytest.mark.parametrize(
    ("size", "count", "length"),
    [
        (0, 0, 0),
        (1, 1, 1),
        (16 << 20, 1, 16 << 20),
        ((16 << 20) + 1, 2, 16 << 20),
        (5 << 40, 9987, 525 << 20),
    ],
)
def test_a_file_is_always_cut_into_the_same_parts(size, count, length):
    planned = parts.plan(size)
    assert len(planned) == count <= parts.MOST_PARTS
    assert sum(part.length for part in planned) == size
    assert [part.number for part in planned] == list(range(1, count + 1))
    assert not planned or planned[0].length == length


def test_what_s3_does_not_keep_is_said_at_once():
    with pytest.raises(StoreError, match="larger than S3 keeps"):
        parts.plan((5 << 40) + 1)


def test_a_part_is_compared_by_sha_256_where_the_store_tells_it_else_by_md5():
    digests = parts.Digests.of(b"abc")
    sha256, md5 = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=", hashlib.md5(b"abc").hexdigest()
    assert digests.agree_with({"ChecksumSHA256": sha256, "ETag": '"encrypted"'})
    assert digests.agree_with({"ETag": f'"{md5}"'})
    assert not digests.agree_with({"ChecksumSHA256": sha256[:-2] + "1=", "ETag": f'"{md5}"'})
    assert not digests.agree_with({"ETag": '"other"'})
    assert not digests.agree_with({}), "a store that says nothing has proven nothing"


def refusal(code, message="", **headers):
    return ClientError(
        {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPHeaders": headers},
        },
        "PutObject",
    )


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            refusal("PermanentRedirect", **{"x-amz-bucket-region": "eu-west-3"}),
            "S3_REGION=eu-west-3",
        ),
        (refusal("AuthorizationHeaderMalformed"), "WEIGHBRIDGE_S3_REGION"),
        (refusal("RequestTimeTooSkewed"), "clock"),
        (refusal("AccessDenied"), "allow s3:ListBucket"),
        (refusal("AccessDenied", "not authorized to perform: kms:GenerateDataKey"), "S3_KMS_KEY"),
        (refusal("NoSuchBucket"), "make the bucket"),
        (refusal("InvalidAccessKeyId"), "AWS_ACCESS_KEY_ID"),
        (refusal("SlowDown"), "try again later"),
        (NoCredentialsError(), "AWS_ACCESS_KEY_ID"),
    ],
)
def test_a_refusal_says_what_to_change(error, says):
    assert says in explain(error)


def test_a_store_that_nobody_answers_for_is_named_with_its_setting(made_up_keys, monkeypatch):
    monkeypatch.setattr("portal.storage.s3.ATTEMPTS", 1)
    store = S3Store(Bucket("weights", endpoint="http://127.0.0.1:9"))
    with pytest.raises(StoreError, match="WEIGHBRIDGE_S3_ENDPOINT"):
        store.put_bytes("a", b"abc")
