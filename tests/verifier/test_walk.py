"""A walk over a folder that a stranger filled: bounded, never blocking, never out of it."""

import os
import socket

import pytest

from verifier import walk
from verifier.errors import InputError
from verifier.findings import Code


def codes(listing):
    return {finding.path: finding.code for finding in listing.findings}


def test_files_are_listed_by_their_posix_names(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.bin").write_bytes(b"123")
    (tmp_path / ".hidden").touch()
    listing = walk.walk(tmp_path)
    assert {name: file.size for name, file in listing.files.items()} == {
        "a/b/c.bin": 3,
        ".hidden": 0,
    }
    assert not listing.findings


def test_one_file_is_a_listing_of_its_own(tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    listing = walk.walk(tmp_path / "a")
    assert list(listing.files) == ["a"]
    assert listing.root == tmp_path


def test_links_are_followed_to_files_inside_only(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("secret")
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "real").write_text("here")
    links = {"in": "real", "out": "../outside", "loop": "loop", "dead": "none", "up": ".."}
    links |= {"folder": "sub", "absolute": str(outside), "sub/loop": ".."}
    for name, target in links.items():
        (root / name).symlink_to(target)
    listing = walk.walk(root)
    assert set(listing.files) == {"real", "in"}
    assert listing.files["in"].location == root / "real"
    assert set(codes(listing)) == set(links) - {"in"}
    assert set(codes(listing).values()) == {Code.LINK}


def test_pipes_sockets_and_devices_are_not_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    if os.geteuid() == 0:
        os.mknod(tmp_path / "zero", 0o20666, os.makedev(1, 5))
    (tmp_path / "link").symlink_to("/dev/zero")
    found = codes(walk.walk(tmp_path))
    assert found.pop("link") is Code.LINK
    assert set(found.values()) == {Code.NOT_A_FILE}


def test_a_name_that_is_not_utf8_is_shown_escaped(tmp_path):
    (tmp_path / os.fsdecode(b"bad\xff")).touch()
    (finding,) = walk.walk(tmp_path).findings
    assert finding.code is Code.BAD_NAME
    assert finding.path == r"bad\xff"


def test_a_name_with_a_newline_is_one_file(tmp_path):
    (tmp_path / "a\nb").touch()
    assert list(walk.walk(tmp_path).files) == ["a\nb"]


def test_too_many_files_end_the_walk_but_listed_ones_are_looked_up(tmp_path):
    for number in range(20):
        (tmp_path / f"{number:02}").touch()
    listing = walk.walk(tmp_path, max_files=5)
    assert len(listing.files) == 5
    assert codes(listing) == {"": Code.TOO_MANY}
    walk.look_up(listing, ["19", "none"])
    assert "19" in listing.files
    assert "none" not in listing.files


def test_deep_folders_are_not_entered(tmp_path):
    deep = tmp_path.joinpath(*["d"] * 40)
    deep.mkdir(parents=True)
    (deep / "file").touch()
    listing = walk.walk(tmp_path)
    assert not listing.files
    assert set(codes(listing).values()) == {Code.TOO_DEEP}


@pytest.mark.parametrize("name", ["none", "a\0b", "loop", "pipe"])
def test_what_cannot_be_opened_is_said_in_one_sentence(tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError) as error:
        walk.walk(tmp_path / name)
    assert "\n" not in str(error.value)
    assert "\0" not in str(error.value)


def test_a_replaced_file_is_not_read(tmp_path):
    path = tmp_path / "a"
    path.write_text("one")
    found = walk.walk(tmp_path).files["a"]
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(walk.ReadError):
        walk.open_found(found)
    path.unlink()
    path.write_text("two")
    with pytest.raises(walk.ChangedError):
        walk.open_found(found)
