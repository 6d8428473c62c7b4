"""Why a file differs is named where its bytes say so, and only there."""

import os

import pytest

from tests.verifier.conftest import LEAF, SECOND, SHARD, flip, publish


def damage(outcome):
    """The findings of damage, by path."""
    return {f["path"]: f for f in outcome.report["findings"] if f["code"] == "damaged"}


def truncate(copy):
    os.truncate(copy / SHARD, 2 * LEAF)


def extend(copy):
    with (copy / SHARD).open("ab") as file:
        file.write(b"more")


def empty(copy):
    os.truncate(copy / SHARD, 0)


def web_page(copy):
    (copy / SHARD).write_text("\n<!DOCTYPE html><html>404 Not Found</html>")


def pointer(copy):
    (copy / SHARD).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


def zeros(copy):
    with (copy / SHARD).open("r+b") as file:
        file.seek(LEAF)
        file.write(bytes(LEAF))


def put_in(copy):
    data = (copy / SHARD).read_bytes()
    (copy / SHARD).write_bytes(data[: LEAF + 5] + b"seven77" + data[LEAF + 5 :])


def left_out(copy):
    data = (copy / SHARD).read_bytes()
    (copy / SHARD).write_bytes(data[:100] + data[103:])


def swapped(copy):
    (copy / SHARD).rename(copy / "third")
    (copy / SECOND).rename(copy / SHARD)
    (copy / "third").rename(copy / SECOND)


def text_mode(copy):
    (copy / SHARD).write_bytes((copy / SHARD).read_bytes().replace(b"\n", b"\r\n"))


def half_done(copy):
    truncate(copy)
    (copy / f"{SHARD}.aria2").touch()


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (truncate, "truncated"),
        (extend, "extended"),
        (empty, "empty"),
        (web_page, "html-page"),
        (pointer, "lfs-pointer"),
        (zeros, "zeros"),
        (put_in, "shifted"),
        (left_out, "shifted"),
        (swapped, "swapped"),
        (text_mode, "newlines"),
        (half_done, "downloading"),
    ],
)
def test_a_plain_cause_is_named(copy, verify, spoil, cause):
    spoil(copy)
    outcome = verify(copy, "--checks", "files")
    assert (outcome.status, outcome.report["verdict"]) == (1, "damaged")
    assert damage(outcome)[SHARD]["cause"] == cause


@pytest.mark.parametrize("kind", ["blake3", "sha256"])
def test_how_many_bytes_were_put_in_and_where_is_said(copy, verify, kind):
    put_in(copy)
    message = damage(verify(copy, "--checks", "files", "--digest", kind))[SHARD]["message"]
    assert f"7 bytes were put in between bytes {LEAF:,} and {2 * LEAF:,}" in message


def test_both_of_two_swapped_shards_name_the_other(copy, verify):
    swapped(copy)
    found = damage(verify(copy, "--checks", "files"))
    assert SECOND in found[SHARD]["message"]
    assert f"holds the bytes of {SHARD}" in found[SECOND]["message"]


def test_unix_line_ends_in_a_file_from_windows_are_named(tmp_path, verify, signer):
    folder = tmp_path / "windows"
    folder.mkdir()
    (folder / "merges.txt").write_bytes(b"a b\r\nc d\r\n")
    publish(folder, tmp_path / "work", signer)
    (folder / "merges.txt").write_bytes(b"a b\nc d\n")
    assert damage(verify(folder, "--checks", "files"))["merges.txt"]["cause"] == "newlines"


def test_a_file_that_is_still_to_come_is_missing_because_of_that(copy, verify):
    (copy / SHARD).rename(copy / f"{SHARD}.crdownload")
    outcome = verify(copy, "--checks", "files")
    (finding,) = [f for f in outcome.report["findings"] if f["code"] == "missing"]
    assert finding["cause"] == "downloading"


@pytest.mark.parametrize("offset", [0, LEAF, 2 * LEAF + 9])
def test_a_flipped_bit_has_no_plain_cause(copy, verify, offset):
    flip(copy / SHARD, offset)
    assert damage(verify(copy, "--checks", "files"))[SHARD]["cause"] is None


def test_a_longer_file_of_another_content_has_no_plain_cause(copy, verify):
    (copy / SHARD).write_bytes(os.urandom((copy / SHARD).stat().st_size + 5))
    assert damage(verify(copy, "--checks", "files"))[SHARD]["cause"] is None


def test_a_truncated_file_is_good_up_to_its_end(copy, verify):
    truncate(copy)
    assert damage(verify(copy))[SHARD]["ranges"][0][0] == 2 * LEAF
