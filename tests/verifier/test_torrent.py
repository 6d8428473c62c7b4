"""Reading torrents: libtorrent's are understood as it does; hostile ones are refused."""

import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.verifier import torrents
from tests.verifier.torrents import EDGES, PIECE, v1_torrent, v2_torrent
from verifier import bencode, torrent
from verifier.errors import TorrentError

bounded = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

ROOT = bytes(32)
LEAF = {b"": {b"length": 5, b"pieces root": ROOT}}


@pytest.fixture(scope="module")
def edges(tmp_path_factory):
    return torrents.fill_edges(tmp_path_factory.mktemp("torrents") / "edges")


@pytest.mark.parametrize("version", torrents.VERSIONS)
def test_a_torrent_of_libtorrent_is_read_as_it_was_made(edges, version):
    data = torrents.make(edges, version)
    found = torrent.parse(data)
    assert {path: file.length for path, file in found.files.items()} == EDGES
    hashes = {half.version: half.infohash for half in found.halves}
    v1, v2 = torrents.infohashes(data)
    assert hashes.get(1, "0" * 40) == v1
    assert hashes.get(2, "0" * 64) == v2
    assert (found.name, found.piece_length, found.single) == ("edges", PIECE, False)
    assert found.contradictions == ()


def test_the_infohash_is_over_the_bytes_as_written_not_as_sorted():
    raw = b"d6:lengthi5e4:name1:m12:piece lengthi32768e6:pieces20:" + bytes(20) + b"e"
    unsorted = raw.replace(b"d6:lengthi5e4:name1:m", b"d4:name1:m6:lengthi5e")
    first, second = (torrent.parse(b"d4:info" + info + b"e") for info in (raw, unsorted))
    assert (first.canonical, second.canonical) == (True, False)
    assert first.halves[0].infohash != second.halves[0].infohash


def test_a_single_file_is_read_in_each_version(edges):
    for version in ("v1", "v2", "hybrid"):
        found = torrent.parse(torrents.make(edges / "block.bin", version))
        assert found.single
        assert list(found.files) == ["block.bin"]


def test_trackers_are_counted_and_not_shown():
    data = bencode.encode(
        {
            b"announce": b"http://tracker/secret",
            b"announce-list": [[b"http://tracker/secret", b"udp://other"], b"odd"],
            b"info": torrents.v1_info(),
        }
    )
    shown = torrent.parse(data).as_json()
    assert shown["trackers"] == 2
    assert "secret" not in str(shown)


def test_a_wrong_piece_layer_is_a_contradiction(edges):
    def spoil(fields):
        layers = fields[b"piece layers"]
        root = max(layers, key=lambda root: len(layers[root]))
        layers[root] = bytes(32) + layers[root][32:]

    data = torrents.changed(torrents.make(edges, "v2"), spoil)
    (sentence,) = torrent.parse(data).contradictions
    assert "piece layer of two/deep/" in sentence


def test_halves_that_list_other_files_are_a_contradiction(edges):
    def spoil(fields):
        fields[b"info"][b"files"][0][b"path"] = [b"other"]

    data = torrents.changed(torrents.make(edges, "hybrid"), spoil)
    assert "list different files" in torrent.parse(data).contradictions[0]


def files(*paths, attr=b""):
    entries = [{b"length": 0, b"path": list(path), b"attr": attr} for path in paths]
    return v1_torrent(length=None, pieces=b"", files=entries)


def tree_of(depth):
    tree = LEAF
    for _ in range(depth):
        tree = {b"d": tree}
    return tree


HOSTILE = {
    "info is a number": b"d4:infoi1ee",
    "no info": b"d8:announce1:ae",
    "no name": v1_torrent(name=None),
    "name is a number": v1_torrent(name=5),
    "name is empty": v1_torrent(name=b""),
    "name is dots": v1_torrent(name=b".."),
    "name leaves": v1_torrent(name=b"../x"),
    "name is absolute": v1_torrent(name=b"/etc/passwd"),
    "name of Windows": v1_torrent(name=b"C:\\x"),
    "name with NUL": v1_torrent(name=b"a\0b"),
    "name with escape": v1_torrent(name=b"\x1b[2J"),
    "name is not UTF-8": v1_torrent(name=b"\xff\xfe"),
    "name of 1000 bytes": v1_torrent(name=b"a" * 1000),
    "no piece length": v1_torrent(piece_length=None),
    "piece length 0": v1_torrent(piece_length=0),
    "piece length below 0": v1_torrent(piece_length=-PIECE),
    "piece length 1": v1_torrent(piece_length=1),
    "piece length 2^60": v1_torrent(piece_length=1 << 60),
    "no pieces": v1_torrent(pieces=None),
    "pieces are a list": v1_torrent(pieces=[]),
    "pieces too few": v1_torrent(pieces=b""),
    "pieces too many": v1_torrent(pieces=bytes(40)),
    "pieces odd": v1_torrent(pieces=bytes(21)),
    "length below 0": v1_torrent(length=-5),
    "length over 2^50": v1_torrent(length=(1 << 50) + 1),
    "length of 2^63": v1_torrent(length=(1 << 63) - 1),
    "length is a text": v1_torrent(length=b"5"),
    "length and files": v1_torrent(files=[]),
    "neither length nor files": v1_torrent(length=None),
    "no file": v1_torrent(length=None, pieces=b"", files=[]),
    "files is a dictionary": v1_torrent(length=None, pieces=b"", files={}),
    "a file is a number": v1_torrent(length=None, pieces=b"", files=[5]),
    "sum over 2^50": v1_torrent(
        length=None,
        pieces=b"",
        files=[{b"length": 1 << 50, b"path": [b"%d" % n]} for n in range(9)],
    ),
    "only pads": files([b"a"], attr=b"p"),
    "attr is a number": files([b"a"], attr=1),
    "a pad of a petabyte": v1_torrent(
        length=None,
        piece_length=1 << 28,
        pieces=bytes(20 << 20),
        files=[{b"length": 1 << 48, b"path": [b".pad", b"1"], b"attr": b"p"}],
    ),
    "path is empty": files([]),
    "path part is empty": files([b"a", b"", b"b"]),
    "path leaves": files([b"..", b"etc", b"passwd"]),
    "path leaves inside": files([b"a", b"..", b"b"]),
    "path is a dot": files([b"."]),
    "path with slash": files([b"a/../../b"]),
    "path is absolute": files([b"/etc", b"passwd"]),
    "path with backslash": files([b"..\\..\\b"]),
    "path with NUL": files([b"a\0"]),
    "path with newline": files([b"a\nb"]),
    "path of numbers": files([1, 2]),
    "path is a text": v1_torrent(length=None, pieces=b"", files=[{b"length": 0, b"path": b"../x"}]),
    "path too deep": files([b"d"] * 1000),
    "path too long": files([b"d" * 255] * 30),
    "path twice": files([b"a"], [b"a"]),
    "file and folder": files([b"a"], [b"a", b"b"]),
    "more files than there can be": files(*([b"%d" % n] for n in range(torrent.MAX_FILES + 1))),
    "v2 without version": v2_torrent({b"a": LEAF}, meta_version=1),
    "v2 with odd pieces": v2_torrent({b"a": LEAF}, piece_length=PIECE + 1),
    "v2 with small pieces": v2_torrent({b"a": LEAF}, piece_length=1 << 13),
    "tree is a list": v2_torrent([]),
    "tree is empty": v2_torrent({}),
    "tree holds a number": v2_torrent({b"a": 5}),
    "tree of empty folders": v2_torrent({b"a": {b"b": {}}}),
    "tree leaves": v2_torrent({b"..": LEAF}),
    "tree with slash": v2_torrent({b"a/b": LEAF}),
    "tree too deep": v2_torrent(tree_of(40)),
    "tree without end": v2_torrent(tree_of(70)),
    "tree is a file": v2_torrent(LEAF),
    "file and folder in one": v2_torrent({b"a": LEAF | {b"b": LEAF}}),
    "file is a number": v2_torrent({b"a": {b"": 5}}),
    "no root": v2_torrent({b"a": {b"": {b"length": 5}}}),
    "short root": v2_torrent({b"a": {b"": {b"length": 5, b"pieces root": bytes(31)}}}),
    "tree length below 0": v2_torrent({b"a": {b"": {b"length": -5, b"pieces root": ROOT}}}),
    "tree length over 2^50": v2_torrent({b"a": {b"": {b"length": 1 << 60, b"pieces root": ROOT}}}),
    "layers are a list": bencode.encode(
        {b"info": bencode.decode(v2_torrent({b"a": LEAF}), "").fields[b"info"], b"piece layers": []}
    ),
    "layers of numbers": bencode.encode(
        {
            b"info": bencode.decode(v2_torrent({b"a": LEAF}), "").fields[b"info"],
            b"piece layers": {ROOT: 5},
        }
    ),
    "not a torrent": b"\x89PNG\r\n\x1a\n" + bytes(1000),
    "a web page": b"<!doctype html><title>404</title>",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_torrent_is_refused_in_one_sentence(name):
    started = time.perf_counter()
    with pytest.raises(TorrentError, match=r"^The torrent .*\.$") as refused:
        torrent.parse(HOSTILE[name])
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300
    assert time.perf_counter() - started < 5  # under a second on a quiet machine


@bounded
@given(st.data())
def test_a_torrent_with_changed_bytes_is_read_or_refused(edges_data, data):
    text = bytearray(edges_data[data.draw(st.sampled_from(sorted(edges_data)))])
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = torrent.parse(bytes(text))
    except TorrentError as error:
        assert str(error).isprintable()
        return
    for path in found.files:
        assert not path.startswith("/")
        assert ".." not in path.split("/")


@pytest.fixture(scope="module")
def edges_data(edges):
    return {version: torrents.make(edges, version) for version in torrents.VERSIONS}


@pytest.mark.parametrize(
    ("kind", "says"), [("absent", "cannot be read"), ("folder", "not a regular"), ("pipe", "not a")]
)
def test_a_torrent_that_is_no_file_is_refused(tmp_path, kind, says):
    place = tmp_path / "x.torrent"
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    with pytest.raises(TorrentError, match=says):
        torrent.load(place)
