"""Judging torrents that libtorrent made: official ones, and ones of changed, cut and other files."""

import hashlib
import os
import shutil
import time

import pytest

from tests.verifier import torrents
from tests.verifier.conftest import Published, flip, publish
from tests.verifier.torrents import EDGES, PIECE
from verifier import keys, manifest, merkle, piece_hashes, torrent, torrent_check
from verifier.errors import ReadError
from verifier.findings import Code, FileStatus, Verdict
from verifier.progress import silent
from verifier.torrent_halves import Checkpoint
from verifier.walk import walk

FIVE = "two/deep/er/five-pieces.bin"
HYBRIDS = ("hybrid", "hybrid without a last pad")


@pytest.fixture(scope="module")
def edges(tmp_path_factory, signer) -> Published:
    root = tmp_path_factory.mktemp("official")
    return publish(torrents.fill_edges(root / "edges"), root / "work", signer, name="test/edges@1")


@pytest.fixture(scope="module")
def from_manifest(edges) -> Checkpoint:
    """What the manifest alone tells."""
    found = manifest.load(edges.folder / "model.sig", keys.load_all([edges.signer.public]))
    return Checkpoint(found.files)


@pytest.fixture(scope="module")
def from_bytes(edges, from_manifest) -> Checkpoint:
    """What the official folder tells, with the manifest's own files beside."""
    files = walk(edges.folder).files
    official = {name: files.pop(name) for name in from_manifest.entries}
    return Checkpoint(from_manifest.entries, official, files)


@pytest.fixture
def copy(edges, tmp_path):
    """A copy of the files alone, to be changed and made into torrents."""
    folder = tmp_path / "copy"
    return shutil.copytree(edges.folder, folder, ignore=lambda *_: ["model.sig", ".weighbridge"])


def judge(data, checkpoint):
    found = torrent_check.judge(torrent.parse(data), checkpoint, silent)
    return found, {result.path: result for result in found.results}


def statuses(results):
    return {result.status.value for result in results.values()}


@pytest.mark.parametrize("version", torrents.VERSIONS)
@pytest.mark.parametrize("piece", [16 << 10, 32 << 10, 1 << 20])
def test_the_official_files_are_official_at_every_edge(copy, from_bytes, version, piece):
    found, files = judge(torrents.make(copy, version, piece=piece), from_bytes)
    assert found.verdict is Verdict.IDENTICAL
    assert statuses(files) == {"official"}
    assert not found.findings
    for name, size in EDGES.items():
        for half, pieces in files[name].pieces.items():
            assert pieces.official == pieces.total
            if half == "v2" or version in HYBRIDS:
                assert pieces.total == -(-size // piece)


@pytest.mark.parametrize("version", ["v2", *HYBRIDS])
def test_merkle_roots_alone_tell_every_file(copy, from_manifest, version):
    found, files = judge(torrents.make(copy, version), from_manifest)
    assert statuses(files) == {"official"}
    assert found.bytes_read == 0
    told = {finding.code for finding in found.findings}
    if version in HYBRIDS:  # nobody can say what comes to a program that knows v1 alone
        assert (found.verdict, told) == (Verdict.UNDETERMINED, {Code.TORRENT_HALF_NOT_TOLD})
    else:
        assert (found.verdict, told) == (Verdict.IDENTICAL, set())


def test_v1_without_official_bytes_cannot_be_told(copy, from_manifest):
    found, files = judge(torrents.make(copy, "v1"), from_manifest)
    assert found.verdict is Verdict.UNDETERMINED
    assert files.pop("empty.txt").status is FileStatus.OFFICIAL  # a length of 0 says all
    assert statuses(files) == {"cannot-be-told"}


def test_v1_without_official_bytes_tells_a_wrong_length(copy, from_manifest):
    os.truncate(copy / FIVE, 5)
    found, files = judge(torrents.make(copy, "v1"), from_manifest)
    assert found.verdict is Verdict.DAMAGED
    assert files[FIVE].status is FileStatus.DIFFERS


@pytest.mark.parametrize("version", torrents.VERSIONS)
@pytest.mark.parametrize("checkpoint", ["from_manifest", "from_bytes"])
def test_one_changed_byte_differs_in_the_piece_that_holds_it(copy, version, checkpoint, request):
    if (version, checkpoint) == ("v1", "from_manifest"):
        return  # cannot be told, as tested above
    flip(copy / FIVE, 2 * PIECE + PIECE // 2)
    found, files = judge(torrents.make(copy, version), request.getfixturevalue(checkpoint))
    assert found.verdict is Verdict.DAMAGED
    changed = files.pop(FIVE)
    assert changed.status is FileStatus.DIFFERS
    assert statuses(files) <= {"official", "cannot-be-told"}
    if checkpoint == "from_manifest":
        assert statuses(files) == {"official"}
        return
    for pieces in changed.pieces.values():
        assert (pieces.official, pieces.differ) == (pieces.total - 1, 1)
    (span,) = changed.ranges
    assert span[0] <= 2 * PIECE + PIECE // 2 < span[1]
    assert span[1] - span[0] <= PIECE
    assert statuses(files) == {"official"}  # the piece lies within the file, whatever the order


def test_a_changed_byte_in_a_shared_piece_accuses_the_two_together(tmp_path, edges, from_bytes):
    """One piece holds one.txt, block.bin and zz.json: which of them differs cannot be known."""
    small = ("one.txt", "block.bin", "zz.json")
    (tmp_path / "t").mkdir()
    for name in small:
        shutil.copy(edges.folder / name, tmp_path / "t" / name)
    flip(tmp_path / "t" / "one.txt", 0)
    found, files = judge(torrents.make(tmp_path / "t", "v1"), from_bytes)
    assert found.verdict is Verdict.DAMAGED
    assert {files[name].status for name in small} == {FileStatus.CANNOT_BE_TOLD}
    (finding,) = (f for f in found.findings if f.code is Code.TORRENT_DIFFERS)
    assert all(name in finding.message for name in small)


def test_a_changed_neighbour_spoils_only_the_pieces_it_touches(edges, from_bytes):
    """A file that nobody knows is joined before an official one that begins within a piece."""
    before, official = 1000, (edges.folder / FIVE).read_bytes()
    stranger = os.urandom(before)
    data = v1_of([("odd.txt", stranger), ("five-pieces.bin", official)])
    found, files = judge(data, from_bytes)
    assert found.verdict is Verdict.UNDETERMINED
    assert files[FIVE].status is FileStatus.CANNOT_BE_TOLD
    assert (files[FIVE].pieces["v1"].official, files[FIVE].pieces["v1"].total) == (5, 6)
    assert files["m/odd.txt"].status is FileStatus.UNLISTED


def test_bytes_beside_the_official_ones_tell_a_shared_piece(edges, from_bytes, tmp_path):
    (tmp_path / "odd.txt").write_bytes(os.urandom(1000))
    beside = Checkpoint(from_bytes.entries, from_bytes.official, walk(tmp_path / "odd.txt").files)
    official = (edges.folder / FIVE).read_bytes()
    known = (tmp_path / "odd.txt").read_bytes()
    for odd, status in ((known, "official"), (bytes(1000), "cannot-be-told")):
        # Other bytes under that name accuse nobody: it is not official.
        data = v1_of([("odd.txt", odd), (FIVE, official)])
        _, files = judge(data, beside)
        assert files[FIVE].status.value == status


def v1_of(files, length=PIECE):
    """Return a v1 torrent of ``files``, pairs of path and bytes, in this order."""
    joined = b"".join(content for _, content in files)
    pieces = [joined[at : at + length] for at in range(0, len(joined), length)]
    entries = [{b"length": len(c), b"path": p.encode().split(b"/")} for p, c in files]
    digests = b"".join(hashlib.sha1(piece).digest() for piece in pieces)
    return torrents.v1_torrent(length=None, files=entries, pieces=digests, piece_length=length)


def test_the_order_of_the_torrent_counts_not_that_of_names(edges, from_bytes):
    names = sorted(EDGES, reverse=True)
    data = v1_of([(name, (edges.folder / name).read_bytes()) for name in names], length=17_000)
    found, files = judge(data, from_bytes)
    assert found.verdict is Verdict.IDENTICAL
    assert statuses(files) == {"official"}


def test_a_cut_file_differs_and_its_whole_pieces_are_official(edges, from_bytes):
    content = (edges.folder / FIVE).read_bytes()[: 3 * PIECE + 10]
    found, files = judge(v1_of([(FIVE, content)]), from_bytes)
    assert found.verdict is Verdict.UNRELATED  # nothing else of the checkpoint is there
    assert files[FIVE].status is FileStatus.DIFFERS
    assert files[FIVE].pieces["v1"].official == 4


@pytest.mark.parametrize("version", ["v2", *HYBRIDS])
def test_missing_files_are_incomplete_and_extra_ones_change_nothing(copy, from_bytes, version):
    (copy / "zz.json").unlink()
    (copy / "readme").write_text("hello")
    found, files = judge(torrents.make(copy, version), from_bytes)
    assert found.verdict is Verdict.INCOMPLETE
    assert files["zz.json"].status is FileStatus.MISSING
    assert files["copy/readme"].status is FileStatus.UNLISTED


def test_other_weights_beside_missing_ones_are_not_incomplete(copy, from_bytes):
    (copy / "two/piece.safetensors").rename(copy / "two/other.safetensors")
    flip(copy / "two/other.safetensors", 0)
    os.truncate(copy / "two/other.safetensors", PIECE - 7)
    found, _ = judge(torrents.make(copy, "v2"), from_bytes)
    assert found.verdict is Verdict.UNDETERMINED


def test_a_torrent_of_other_things_is_unrelated(tmp_path, from_bytes):
    (tmp_path / "film").mkdir()
    (tmp_path / "film" / "film.mkv").write_bytes(bytes(100_001))
    for version in torrents.VERSIONS:
        found, _ = judge(torrents.make(tmp_path / "film", version), from_bytes)
        assert found.verdict is Verdict.UNRELATED


@pytest.mark.parametrize("version", ["v1", "v2", "hybrid"])
def test_renamed_files_are_found_and_said(copy, from_bytes, version):
    (copy / FIVE).rename(copy / "weights.bin")
    found, files = judge(torrents.make(copy, version), from_bytes)
    assert found.verdict is Verdict.IDENTICAL
    assert files[FIVE].in_torrent == "copy/weights.bin"
    assert {f.path for f in found.findings if f.code is Code.TORRENT_MOVED} == {FIVE}


def test_another_file_of_the_same_length_is_not_a_renamed_one(copy, from_bytes):
    (copy / FIVE).unlink()
    (copy / "other.txt").write_bytes(bytes(EDGES[FIVE]))
    found, files = judge(torrents.make(copy, "v2"), from_bytes)
    assert files[FIVE].status is FileStatus.MISSING
    assert files["copy/other.txt"].status is FileStatus.UNLISTED
    assert found.verdict is Verdict.INCOMPLETE


@pytest.mark.parametrize("version", HYBRIDS)
def test_the_halves_of_a_hybrid_are_both_checked(copy, from_bytes, from_manifest, version):
    """A v1 half of changed bytes under an official v2 half: only official bytes show it."""

    def poison(fields):
        pieces = fields[b"info"][b"pieces"]
        fields[b"info"][b"pieces"] = bytes([pieces[0] ^ 1]) + pieces[1:]

    data = torrents.changed(torrents.make(copy, version), poison)
    found, files = judge(data, from_bytes)
    assert found.verdict is Verdict.DAMAGED
    assert sorted(statuses(files)) == ["differs", "official"]
    found, _ = judge(data, from_manifest)
    assert found.verdict is Verdict.UNDETERMINED


def test_a_pad_that_is_not_zeros_is_found(copy, from_bytes):
    """Nothing of a file lies in such a piece, but a program that checks pads never completes."""
    data = torrents.v1_torrent(
        length=None,
        files=[
            {b"length": 1, b"path": [b"one.txt"]},
            {b"length": PIECE - 1, b"path": [b".pad", b"1"], b"attr": b"p"},
            {b"length": PIECE - 1, b"path": [b".pad", b"2"], b"attr": b"p"},
        ],
        pieces=bytes(40),
    )
    found, _ = judge(data, from_bytes)
    assert found.verdict is Verdict.DAMAGED
    assert any("only padding" in finding.message for finding in found.findings)


@pytest.mark.parametrize("kind", [b"l", b"p"])
def test_a_link_or_pad_under_an_official_name_is_not_the_file(from_bytes, kind):
    data = torrents.v1_torrent(
        length=None,
        files=[
            {b"length": 0, b"path": [b"empty.txt"]},
            {b"length": 0, b"path": [b"one.txt"], b"attr": kind},
        ],
        pieces=b"",
    )
    found, files = judge(data, from_bytes)
    assert found.verdict is (Verdict.DAMAGED if kind == b"l" else Verdict.INCOMPLETE)
    assert files["one.txt"].status in (FileStatus.REFUSED, FileStatus.MISSING)


def test_claimed_sizes_cost_nothing(from_bytes):
    """Of half a petabyte of strangers nothing is hashed."""
    length = 1 << 28
    entries = [
        {b"length": 1 << 48, b"path": [b"stranger"]},
        {b"length": 1, b"path": [b"one.txt"]},
        {b"length": (1 << 48) - 1, b"path": [b"other stranger"]},
    ]
    pieces = bytes(20 * (1 << 49) // length)
    data = torrents.v1_torrent(length=None, files=entries, piece_length=length, pieces=pieces)
    started = time.perf_counter()
    found, _ = judge(data, from_bytes)
    assert found.bytes_read == 0
    assert found.verdict is Verdict.UNDETERMINED
    assert time.perf_counter() - started < 10


def test_a_file_that_changes_meanwhile_is_an_error(edges, from_manifest, tmp_path):
    folder = shutil.copytree(edges.folder, tmp_path / "official")
    listed = walk(folder).files
    checkpoint = Checkpoint(
        from_manifest.entries, {name: listed[name] for name in from_manifest.entries}
    )
    data = torrents.make(edges.folder, "v1")
    (folder / FIVE).write_bytes(bytes(EDGES[FIVE]))
    with pytest.raises(ReadError, match="changed while"):
        judge(data, checkpoint)


@pytest.mark.parametrize("name", [name for name, size in EDGES.items() if size])
@pytest.mark.parametrize("length", [16 << 10, 64 << 10, 8 << 20])
def test_layers_lead_to_the_root_that_was_signed(edges, from_manifest, name, length):
    file = walk(edges.folder / name).files[name.rpartition("/")[2]]
    layer = piece_hashes.piece_layer(file, length, lambda _: None)
    root = merkle.root_of_layer(layer, length) if file.size > length else layer
    assert root == from_manifest.root(name)
