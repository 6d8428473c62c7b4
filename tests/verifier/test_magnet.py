"""Magnet links: read as libtorrent writes them, and the torrent behind them guessed."""

import base64

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.verifier import torrents
from tests.verifier.test_torrent_match import WANTED
from verifier import guess, magnet, merkle, piece_hashes
from verifier.errors import TorrentError
from verifier.guess import Source
from verifier.progress import silent
from verifier.walk import walk

bounded = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

V1, V2 = "ab" * 20, "cd" * 32
BTIH, BTMH = f"xt=urn:btih:{V1}", f"xt=urn:btmh:1220{V2}"


@pytest.fixture(scope="module")
def edges(tmp_path_factory):
    return torrents.fill_edges(tmp_path_factory.mktemp("magnets") / "edges")


@pytest.fixture(scope="module")
def sources(edges):
    """All that is known where the official bytes are at hand."""
    found = {}
    for name, file in walk(edges).files.items():
        layer = piece_hashes.piece_layer(file, 1 << 20, lambda _: None)
        root = merkle.root_of_layer(layer, 1 << 20) if file.size > 1 << 20 else layer
        found[name] = Source(file.size, root if file.size else None, file)
    return found


@pytest.mark.parametrize("version", torrents.VERSIONS)
def test_a_link_of_libtorrent_is_read_as_it_was_written(edges, version):
    data = torrents.make(edges, version)
    found = magnet.parse(torrents.magnet(data))
    v1, v2 = torrents.infohashes(data)
    assert (found.v1 or "0" * 40, found.v2 or "0" * 64) == (v1, v2)


def test_base32_and_any_case_are_the_same_hash():
    text = base64.b32encode(bytes.fromhex(V1)).decode()
    for spelling in (V1, V1.upper(), text, text.lower()):
        assert magnet.parse(f"magnet:?xt=urn:btih:{spelling}").v1 == V1


def test_names_lengths_and_trackers_are_claims_and_trackers_are_not_repeated():
    found = magnet.parse(f"magnet:?{BTIH}&{BTMH}&dn=LLaMA%207B&xl=13&tr=http://t/secret&tr=udp://u")
    assert (found.v1, found.v2) == (V1, V2)
    assert (found.name, found.length, found.trackers) == ("LLaMA 7B", 13, 2)
    assert "secret" not in found.plain + str(found.as_json())


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "x",
        "http://example.org/?" + BTIH,
        "magnet:",
        "magnet:?dn=a",
        "magnet:?xt=urn:sha1:YNCKHTQCWBTRNJIV4WNAE52SJUQCZO5C",
        "magnet:?xt=urn:btih:",
        "magnet:?xt=urn:btih:" + "z" * 40,
        "magnet:?xt=urn:btih:" + "1" * 32,
        "magnet:?xt=urn:btih:" + "a" * 39,
        "magnet:?xt=urn:btmh:1220" + "a" * 63,
        "magnet:?xt=urn:btmh:1114" + "a" * 40,
        f"magnet:?{BTIH}&xt=urn:btih:{'00' * 20}",
        f"magnet:?{BTIH}&xl=-5",
        f"magnet:?{BTIH}&xl=many",
        f"magnet:?{BTIH}&xl={1 << 60}",
        f"magnet:?{BTIH}" + "&tr=a" * 2000,
        f"magnet:?{BTIH}&dn=" + "a" * 70_000,
        "magnet://[" + BTIH,
    ],
)
def test_a_broken_link_is_refused_in_one_sentence(uri):
    with pytest.raises(TorrentError, match=r"^The magnet link cannot be judged: .*\.$"):
        magnet.parse(uri)


@bounded
@given(st.text(max_size=100) | st.text(max_size=100).map(lambda text: f"magnet:?{BTIH}&{text}"))
def test_any_text_is_read_or_refused(text):
    try:
        assert magnet.parse(text).plain.startswith("magnet:?xt=urn:bt")
    except TorrentError as error:
        assert str(error).isprintable()


def outcome(data, sources, names=("edges",), folder=None, extra=None, uri=None):
    link = magnet.parse(uri or torrents.magnet(data))
    return guess.guess(link, sources, extra or {}, names, folder, silent)


@pytest.mark.parametrize("version", torrents.VERSIONS)
@pytest.mark.parametrize("piece", [32 << 10, 1 << 20])
def test_the_torrent_of_the_official_files_is_guessed(edges, sources, version, piece):
    data = torrents.make(edges, version, piece=piece)
    found = outcome(data, sources, folder=edges).guess
    assert found.piece_length == piece
    assert found.version == version.partition(" ")[0]
    assert sorted(found.paths) == sorted(torrents.EDGES)


def test_a_v2_torrent_is_guessed_from_merkle_roots_alone(edges, sources):
    known = {name: Source(source.length, source.root) for name, source in sources.items()}
    found = outcome(torrents.make(edges, "v2"), known)
    assert found.guess is not None
    assert found.bytes_read == 0


@pytest.mark.parametrize("version", ["v1", "v2", "hybrid"])
def test_private_torrents_and_sources_are_guessed(edges, sources, version):
    def mark(fields):
        fields[b"info"] |= {b"private": 1, b"source": b"hub"}

    data = torrents.changed(torrents.make(edges, version), mark)
    found = outcome(data, sources, names=("edges", "hub"), folder=edges).guess
    assert {"private", "source"} <= set(found.keys)


@pytest.mark.parametrize("version", ["v1", "v2", "hybrid"])
def test_a_torrent_of_one_of_the_files_is_guessed(edges, sources, version):
    name = "two/deep/er/five-pieces.bin"
    found = outcome(torrents.make(edges / name, version), sources).guess
    assert found.paths == (name,)


def test_each_order_of_files_is_guessed(edges, sources):
    for order in (sorted(sources), sorted(sources, key=str.casefold), list(sources)):
        files = [
            {b"length": sources[path].length, b"path": path.encode().split(b"/")} for path in order
        ]
        stream = piece_hashes.Stream(
            (piece_hashes.Region(sources[p].length, sources[p].file) for p in order), 1 << 18
        )
        digests = [d for _, run in piece_hashes.hash_stream(stream, lambda _: None) for d in run]
        data = torrents.v1_torrent(
            name=b"edges", length=None, piece_length=1 << 18, files=files, pieces=b"".join(digests)
        )
        assert outcome(data, sources).guess.paths


def test_files_that_are_not_of_the_checkpoint_may_lie_beside(edges, sources):
    listed = {name: source for name, source in sources.items() if name != "zz.json"}
    extra = {"zz.json": sources["zz.json"]}
    found = outcome(torrents.make(edges, "v2"), listed, extra=extra).guess
    assert "zz.json" in found.paths


def test_a_miss_says_nothing(edges, sources):
    data = torrents.make(edges, "v2")
    assert outcome(data, sources, names=("another name",)).guess is None
    assert outcome(data, {name: Source(w.length) for name, w in WANTED.items()}).tried == 0


def test_a_length_that_no_selection_has_ends_it_at_once(edges, sources):
    uri = torrents.magnet(torrents.make(edges, "v2"))
    assert outcome(b"", sources, uri=f"{uri}&xl=12345").tried == 0
    total = sum(torrents.EDGES.values())
    assert outcome(b"", sources, uri=f"{uri}&xl={total}").guess is not None


def test_both_hashes_have_to_fit(edges, sources):
    """A link that joins the v2 hash of an official torrent to another v1 hash is not official."""
    uri = torrents.magnet(torrents.make(edges, "hybrid"))
    v1 = magnet.parse(uri).v1
    assert outcome(b"", sources, uri=uri.replace(v1, "00" * 20)).guess is None


def test_trying_ends(edges, sources, monkeypatch):
    monkeypatch.setattr(guess, "MAX_TRIES", 10)
    data = torrents.make(edges, "v2")
    found = outcome(data, sources, names=("a", "b", "c"))
    assert (found.guess, found.tried, found.complete) == (None, 10, False)


def test_no_hashing_begins_after_the_time_is_over(edges, sources, monkeypatch):
    monkeypatch.setattr(guess, "MAX_SECONDS", -1.0)
    found = outcome(torrents.make(edges, "v1"), sources)
    assert (found.guess, found.complete, found.bytes_read) == (None, False, 0)
