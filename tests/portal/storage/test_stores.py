import os
import resource

import pytest

from portal.storage.errors import ExistsError, StoreError
from portal.storage.folder import FolderStore
from portal.storage.keyfiles import read_or_make_secret


@pytest.fixture
def folder(tmp_path):
    return FolderStore(tmp_path / "store")


def test_what_is_put_can_be_read_and_deleted(folder):
    folder.put_bytes("a/b.bin", b"abc")
    with folder.open("a/b.bin") as file:
        assert file.read() == b"abc"
    assert folder.head("a/b.bin").size == 3
    folder.delete("a/b.bin")
    folder.delete("a/b.bin")
    assert folder.head("a/b.bin") is None


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


def test_the_same_file_again_is_no_error_and_another_is(folder, tmp_path):
    file, told = tmp_path / "a", []
    file.write_bytes(b"abc")
    assert folder.put_file("a", file, told.append) == folder.put_file("a", file, told.append)
    assert sum(told) == 6
    file.write_bytes(b"abd")
    with pytest.raises(ExistsError, match="nothing is overwritten"):
        folder.put_file("a", file)


def test_a_disk_that_is_full_is_said_so_and_leaves_nothing(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StoreError, match="make room below"):
            folder.put_bytes("a/big", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert folder.head("a/big") is None
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
