"""The S3 store against a real one: Ceph's gateway."""

import io
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest

from portal.storage.errors import ExistsError, StoreError
from portal.storage.s3 import S3Store
from portal.storage.stores import Bucket
from tests.servers.proxy import Proxy
from tests.servers.rgw import KMS_KEY

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
PART = 5 << 20  # the smallest that S3 allows


@pytest.fixture
def store(bucket):
    made = S3Store(bucket)
    made.part_bytes = PART
    yield made
    made._client.close()


@pytest.fixture
def large(tmp_path):
    """A file of eight parts and a bit."""
    path = tmp_path / "large.bin"
    path.write_bytes(random.Random(1).randbytes(8 * PART + 3))
    return path


def read(store, key, version=""):
    with store.open(key, version) as body:
        return body.read()


def fetched(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return answer.status, answer.read()


def refused(url):
    with pytest.raises(HTTPError) as error:
        fetched(url)
    with error.value:
        return error.value.code


def test_what_is_put_can_be_read_looked_up_and_deleted(store):
    stored = store.put_bytes("a/b c%2f+?.bin", b"abc")
    assert stored.size == 3 and stored.version
    assert store.head("a/b c%2f+?.bin") == stored
    assert read(store, "a/b c%2f+?.bin") == b"abc"
    store.delete("a/b c%2f+?.bin", stored.version)
    assert store.head("a/b c%2f+?.bin") is None
    with pytest.raises(StoreError, match="restore it"):
        store.open("a/b c%2f+?.bin")


def test_nothing_is_overwritten_and_the_same_again_is_no_error(store, tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    first = store.put_file("a", file)
    assert store.put_file("a", file) == first
    file.write_bytes(b"abd")
    for put, what in ((store.put_bytes, b"abd"), (store.put_file, file)):
        with pytest.raises(ExistsError, match="nothing is overwritten"):
            put("a", what)
    assert read(store, "a") == b"abc"


def test_a_version_that_was_published_stays_readable_when_the_object_is_replaced(store, s3):
    first = store.put_bytes("a", b"published")
    s3.put_object(Bucket=store.bucket.name, Key="a", Body=b"replaced by hand")
    assert read(store, "a") == b"replaced by hand"
    assert read(store, "a", first.version) == b"published"
    assert fetched(store.presign("a", seconds=60, version=first.version)) == (200, b"published")


def test_a_bucket_without_versions_works_too(store, s3, gateway):
    s3.create_bucket(Bucket="plain")
    plain = S3Store(Bucket("plain", endpoint=gateway.url))
    assert plain.put_bytes("a", b"abc").version == ""
    assert fetched(plain.presign("a", seconds=60)) == (200, b"abc")
    plain._client.close()


def test_a_large_file_arrives_whole_in_parts_with_progress(store, large):
    told = []
    stored = store.put_file("large", large, told.append)
    assert sum(told) == stored.size == 8 * PART + 3 and len(told) == 9
    assert read(store, "large", stored.version) == large.read_bytes()
    assert store.put_file("large", large) == stored, "compared by its digest, not sent again"
    with large.open("r+b") as file:
        file.seek(7 * PART)
        file.write(b"!")
    with pytest.raises(ExistsError):
        store.put_file("large", large)


@pytest.mark.parametrize(("operation", "size"), [("UploadPart", 8 * PART), ("PutObject", 100)])
def test_bytes_that_change_on_their_way_are_refused(store, tmp_path, operation, size):
    file = tmp_path / "a"
    file.write_bytes(bytes(size))

    def flip(request, **_):
        content = request.body.read()
        request.body = io.BytesIO(bytes([content[0] ^ 1]) + content[1:])

    store._client.meta.events.register(f"before-send.s3.{operation}", flip)
    with pytest.raises(StoreError, match="XAmzContentSHA256Mismatch"):
        store.put_file("a", file)
    assert store.head("a") is None


UPLOAD = """
import os, sys
from pathlib import Path
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
from portal.storage import s3
from portal.storage.stores import Bucket
s3.AT_ONCE = 1
store = s3.S3Store(Bucket(sys.argv[1], endpoint=sys.argv[2]))
store.part_bytes = 5 << 20
store.put_file("large", Path(sys.argv[3]), lambda count: print(count, flush=True))
"""


def test_an_upload_that_was_killed_goes_on_and_sends_no_part_again(store, large, s3, gateway):
    process = subprocess.Popen(
        [sys.executable, "-c", UPLOAD, store.bucket.name, gateway.url, str(large)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    for _ in range(3):
        assert process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    (upload,) = s3.list_multipart_uploads(Bucket=store.bucket.name)["Uploads"]
    there = s3.list_parts(Bucket=store.bucket.name, Key="large", UploadId=upload["UploadId"])
    assert 3 <= len(there["Parts"]) < 9
    size = large.stat().st_size
    left = size - sum(part["Size"] for part in there["Parts"])
    with Proxy(gateway.port) as proxy:
        again = S3Store(Bucket(store.bucket.name, endpoint=proxy.url))
        again.part_bytes = PART
        stored = again.put_file("large", large)
        again._client.close()
    assert left <= proxy.sent < left + PART // 2
    assert read(store, "large", stored.version) == large.read_bytes()
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=store.bucket.name)


def test_parts_of_a_file_that_changed_are_sent_again(store, large, s3):
    upload = s3.create_multipart_upload(Bucket=store.bucket.name, Key="large")["UploadId"]
    whole = large.read_bytes()
    for number, content in ((1, bytes(PART)), (2, whole[PART : 2 * PART])):
        s3.upload_part(
            Bucket=store.bucket.name, Key="large", UploadId=upload, PartNumber=number, Body=content
        )
    store.put_file("large", large)
    assert read(store, "large") == whole


def test_objects_are_encrypted_by_the_key_that_was_named(store, large, s3, gateway):
    secret = S3Store(Bucket(store.bucket.name, endpoint=gateway.url, kms_key=KMS_KEY))
    secret.part_bytes = PART
    for key, put in (("small", lambda: secret.put_bytes("small", b"abc")),) + (
        ("large", lambda: secret.put_file("large", large)),
    ):
        version = put().version
        told = s3.head_object(Bucket=store.bucket.name, Key=key)
        assert (told["ServerSideEncryption"], told["SSEKMSKeyId"]) == ("aws:kms", KMS_KEY)
        assert fetched(secret.presign(key, seconds=60, version=version))[0] == 200
    assert read(secret, "large") == large.read_bytes()
    secret._client.close()
    wrong = S3Store(Bucket(store.bucket.name, endpoint=gateway.url, kms_key="no-such-key"))
    with pytest.raises(StoreError, match="WEIGHBRIDGE_S3_KMS_KEY"):
        wrong.put_bytes("other", b"abc")
    wrong._client.close()


def test_a_signed_url_opens_ranges_of_one_object_for_a_while(store):
    store.put_bytes("a", bytes(range(100)))
    url = store.presign("a", seconds=2, disposition='attachment; filename="a"')
    assert fetched(url, Range="bytes=10-19") == (206, bytes(range(10, 20)))
    for changed in (
        url.replace("/a?", "/b?"),
        url.replace("Expires=2", "Expires=3"),
        url[:-1] + ("0" if url[-1] != "0" else "1"),
        url.replace("attachment", "inline"),
        url.partition("?")[0],
    ):
        assert refused(changed) == 403
    time.sleep(3)
    assert refused(url) == 403


def test_virtual_addressing_is_understood_by_the_same_store(store, bucket, gateway):
    store.put_bytes("a", b"abc")
    endpoint = f"http://localhost:{gateway.port}"
    url = S3Store(Bucket(bucket.name, endpoint=endpoint, addressing="virtual")).presign(
        "a", seconds=60
    )
    host = f"{bucket.name}.localhost:{gateway.port}"
    assert url.startswith(f"http://{host}/a?")
    # the name need not be known here: only its Host header is signed
    assert fetched(url.replace(host, f"127.0.0.1:{gateway.port}"), Host=host) == (200, b"abc")


def test_a_store_that_cuts_connections_is_asked_again_and_not_for_ever(store, gateway, bucket):
    store.put_bytes("a", b"abc")
    with Proxy(gateway.port, cuts=(5, 5)) as proxy:
        shaky = S3Store(Bucket(bucket.name, endpoint=proxy.url))
        assert shaky.head("a").size == 3
        shaky._client.close()
    with Proxy(gateway.port, cuts=(5,) * 50) as proxy:
        broken = S3Store(Bucket(bucket.name, endpoint=proxy.url))
        with pytest.raises(StoreError, match="try again later"):
            broken.head("a")
        broken._client.close()
    assert proxy.connections <= 5
    with Proxy(gateway.port, cuts=(20,)) as proxy:
        half = S3Store(Bucket(bucket.name, endpoint=proxy.url))
        with pytest.raises(StoreError, match="half an answer"):
            half.head("a")
        half._client.close()


def test_a_wrong_key_is_told_in_words(bucket, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    wrong = S3Store(bucket)
    with pytest.raises(StoreError, match="AWS_ACCESS_KEY_ID"):
        wrong.put_bytes("a", b"abc")
    wrong._client.close()
