import os
import resource
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest

from portal.storage.errors import StoreError
from portal.storage.folder import FolderStore
from portal.storage.keyfiles import read_or_make_secret


@pytest.fixture
def folder(tmp_path):
    return FolderStore(tmp_path / "store")


def test_what_is_put_can_be_read_and_deleted(folder):
    folder.put_bytes("a/b.bin", b"abc")
    with folder.open("a/b.bin") as file:
        assert file.read() == b"abc"
    assert folder.size("a/b.bin") == 3
    folder.delete("a/b.bin")
    folder.delete("a/b.bin")
    assert not folder.exists("a/b.bin")


def test_nothing_is_overwritten(folder):
    folder.put_bytes("a", b"first")
    with pytest.raises(StoreError, match="nothing is overwritten"):
        folder.put_bytes("a", b"other")
    with folder.open("a") as file:
        assert file.read() == b"first"


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a\0b", "./a", "a/"])
def test_no_key_leads_out_of_the_store(folder, key):
    with pytest.raises(StoreError, match="cannot be a key"):
        folder.put_bytes(key, b"x")


def test_holes_stay_holes(folder, tmp_path):
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.write(b"head")
        file.seek(5 << 30)
        file.write(b"tail")
        file.truncate((5 << 30) + 100)
    folder.put_file("sparse", sparse)
    kept = folder.local_path("sparse").stat()
    assert kept.st_size == (5 << 30) + 100
    assert kept.st_blocks * 512 < 1 << 20
    with folder.open("sparse") as file:
        assert file.read(8) == b"head\0\0\0\0"
        file.seek(5 << 30)
        assert file.read() == b"tail" + bytes(96)


def test_a_disk_that_is_full_is_said_so_and_leaves_nothing(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StoreError, match="make room below"):
            folder.put_bytes("a/big", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not folder.exists("a/big")
    assert [path for path in folder.root.rglob("*") if path.is_file()] == []


def test_an_object_that_is_not_there_is_an_error_with_its_key(folder):
    with pytest.raises(StoreError, match="gone cannot be read"):
        folder.open("gone")


def test_a_secret_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "keys" / "secret.key"
    secret = read_or_make_secret(path)
    assert len(secret) == 64 and read_or_make_secret(path) == secret
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["secret.key"]


def test_s3_presigns_with_version_4_for_one_object_and_method(settings, monkeypatch):
    from portal.storage.s3 import S3Store

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up")
    settings.S3_ENDPOINT = "http://127.0.0.1:7480"
    store = S3Store("weights")
    signed = [
        store.presign(
            "llama/a.bin", method=method, seconds=60, disposition='attachment; filename="a"'
        )
        for method in ("GET", "HEAD")
    ]
    get, head = (urlsplit(url) for url in signed)
    assert get.path == head.path == "/weights/llama/a.bin"
    query = parse_qs(get.query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["60"]
    assert query["response-content-disposition"] == ['attachment; filename="a"']
    assert parse_qs(head.query)["X-Amz-Signature"] != query["X-Amz-Signature"]


class OneObject(BaseHTTPRequestHandler):
    """As much of S3's interface as the rule needs: `taken` exists, and what is put is noted."""

    def do_HEAD(self):
        self.answer(200 if self.path == "/weights/taken" else 404)

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.put.append(self.path)
        self.answer(200)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def bucket(settings, monkeypatch):
    """A server on loopback, and the paths that were put there."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up")
    with HTTPServer(("127.0.0.1", 0), OneObject) as server:
        server.put = []
        settings.S3_ENDPOINT = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_nothing_is_overwritten_in_s3_either(bucket, tmp_path):
    from portal.storage.s3 import S3Store

    store, file = S3Store("weights"), tmp_path / "a.bin"
    file.write_bytes(b"abc")
    for put, what in ((store.put_bytes, b"abc"), (store.put_file, file)):
        with pytest.raises(StoreError, match="nothing is overwritten"):
            put("taken", what)
    store.put_bytes("free", b"abc")
    store.put_file("free2", file)
    store._client.close()
    assert bucket.put == ["/weights/free", "/weights/free2"]
