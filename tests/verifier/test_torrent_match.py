"""Which file of a torrent is which of the checkpoint, wherever it lies and whatever else is there."""

import pytest

from tests.verifier.torrents import PIECE
from verifier.torrent import Half, Torrent, TorrentFile
from verifier.torrent_match import Wanted, match

ROOT = bytes(range(32))
WANTED = {"a.bin": Wanted(100), "b.bin": Wanted(200), "config.json": Wanted(30)}


def torrent(files, name="t", single=False):
    entries = [
        TorrentFile(p, n, root=r) for p, n, r in (f if len(f) == 3 else (*f, None) for f in files)
    ]
    half = Half(1, "", tuple(entries))
    return Torrent(name, PIECE, (half,), single, 0, True, ())


def paths(files, wanted=WANTED, **options):
    found, _ = match(torrent(files, **options), wanted)
    return {name: (entry.path, entry.by) for name, entry in found.items()}


@pytest.mark.parametrize("folder", ["", "7B/", "weights/LLaMA/7B/"])
def test_the_folder_may_have_any_name(folder):
    files = [(f"{folder}{name}", wanted.length) for name, wanted in WANTED.items()]
    assert paths(files) == {name: (f"t/{folder}{name}", "name") for name in WANTED}


def test_in_a_larger_torrent_the_folder_with_the_right_lengths_is_taken():
    files = [
        (f"{folder}/{name}", size)
        for folder in ("13B", "65B")
        for name, size in (("a.bin", 7), ("b.bin", 8), ("config.json", 30))
    ]
    files += [("7B/a.bin", 100), ("7B/b.bin", 200), ("7B/config.json", 30)]
    assert paths(files)["config.json"] == ("t/7B/config.json", "name")


def test_a_file_that_others_share_lies_above():
    wanted = WANTED | {"tokenizer.model": Wanted(50)}
    files = [
        ("7B/a.bin", 100),
        ("7B/b.bin", 200),
        ("tokenizer.model", 50),
        ("old/tokenizer.model", 51),
    ]
    found, folder = match(torrent(files), wanted)
    assert folder == ("t", "7B")
    assert found["tokenizer.model"].path == "t/tokenizer.model"
    assert found["tokenizer.model"].moved
    assert not found["a.bin"].moved


def test_the_name_of_the_torrent_may_be_a_part_of_the_path():
    assert paths([("a.bin", 1)], {"7B/a.bin": Wanted(1)}, name="7B") == {
        "7B/a.bin": ("7B/a.bin", "name")
    }


def test_a_wrong_length_under_the_right_name_is_still_that_file():
    assert paths([("a.bin", 99)]) == {"a.bin": ("t/a.bin", "name")}


def test_the_longest_common_end_of_a_path_decides():
    wanted = {"x/y/a.bin": Wanted(5), "z.bin": Wanted(5)}
    files = [("top/z.bin", 5), ("q/y/a.bin", 6), ("q/w/a.bin", 5)]
    assert paths(files, wanted)["x/y/a.bin"] == ("t/q/y/a.bin", "name")


def test_an_official_root_is_recognized_under_any_name():
    wanted = {"a.bin": Wanted(100, ROOT)}
    assert paths([("x", 100, ROOT), ("y", 100, bytes(32))], wanted) == {"a.bin": ("t/x", "root")}


def test_a_length_that_only_one_file_has_is_enough_and_others_are_not():
    assert paths([("x", 100), ("y", 1)]) == {"a.bin": ("t/x", "length")}
    assert paths([("x", 100), ("y", 100)]) == {}
    assert paths([("x", 0)], {"a.bin": Wanted(0)}) == {}


def test_a_single_file_is_found_by_its_name():
    assert paths([("a.bin", 100)], name="a.bin", single=True) == {"a.bin": ("a.bin", "name")}


def test_no_file_of_the_torrent_is_taken_twice():
    wanted = {"x/a.bin": Wanted(5), "y/a.bin": Wanted(5)}
    assert len(paths([("a.bin", 5)], wanted)) == 1
