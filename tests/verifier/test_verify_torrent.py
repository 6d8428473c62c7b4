"""`python -m verifier --torrent FILE` and `--magnet URI`, as a person runs them."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.verifier import torrents
from tests.verifier.conftest import Published, flip, make_signer, publish, run_command
from tests.verifier.test_torrent import HOSTILE

FIVE = "two/deep/er/five-pieces.bin"


@pytest.fixture(scope="module")
def edges(tmp_path_factory, signer) -> Published:
    root = tmp_path_factory.mktemp("official")
    return publish(torrents.fill_edges(root / "edges"), root / "work", signer, name="test/edges@1")


@pytest.fixture
def torrent(tmp_path):
    """Write the torrent of a folder and return its place."""

    def write(folder, version="v2", **options):
        place = tmp_path / "x.torrent"
        place.write_bytes(torrents.make(folder, version, **options))
        return place

    return write


@pytest.fixture
def run(edges):
    def verify(*arguments):
        return run_command(*arguments, "--trusted-key", edges.signer.public)

    return verify


@pytest.mark.parametrize("version", torrents.VERSIONS)
def test_the_official_torrent_is_identical_and_0(edges, torrent, run, version):
    outcome = run("--torrent", torrent(edges.folder, version), "--official", edges.folder, "--json")
    assert outcome.status == 0, outcome.err
    report = outcome.report
    assert (report["schema"], report["verdict"]) == ("weighbridge.report/1", "identical")
    assert {file["status"] for file in report["files"]} == {"official"}
    v1, v2 = torrents.infohashes(torrents.make(edges.folder, version))
    assert (report["torrent"]["infohash_v1"] or "0" * 40) == v1
    assert (report["torrent"]["infohash_v2"] or "0" * 64) == v2
    assert report["torrent"]["piece_length"] == torrents.PIECE
    assert outcome.sentence.startswith("The torrent of test/edges@1 is identical")


def test_the_manifest_is_found_in_path_by_name_or_beside_the_official_files(edges, torrent, run):
    place = torrent(edges.folder)
    bundle = edges.folder / "model.sig"
    for given in ([edges.folder], ["--manifest", bundle], ["--official", edges.folder]):
        assert run("--torrent", place, *given).status == 0


def test_a_changed_byte_is_damaged_and_1(edges, torrent, run, tmp_path):
    folder = shutil.copytree(edges.folder, tmp_path / "copy")
    flip(folder / FIVE, 0)
    outcome = run("--torrent", torrent(folder), "--official", edges.folder, "--json")
    assert outcome.status == 1
    assert outcome.report["verdict"] == "damaged"
    (file,) = (f for f in outcome.report["files"] if f["path"] == FIVE)
    assert file["status"] == "differs"
    assert file["pieces"] == {"v2": {"official": 4, "differ": 1, "total": 5}}
    assert file["ranges"] == [[0, torrents.PIECE]]
    assert "4 of 5 pieces official" in outcome.sentence


def test_what_cannot_be_told_is_1_and_says_how_it_could_be(edges, torrent, run):
    outcome = run("--torrent", torrent(edges.folder, "v1"), edges.folder)
    assert outcome.status == 1
    assert outcome.out.startswith("UNDETERMINED")
    assert "--official DIR" in outcome.sentence
    accepted = run(
        "--torrent", torrent(edges.folder, "v1"), edges.folder, "--accept", "undetermined"
    )
    assert accepted.status == 0


def test_an_official_folder_that_is_incomplete_serves_as_far_as_it_goes(
    edges, torrent, run, tmp_path
):
    folder = shutil.copytree(edges.folder, tmp_path / "part")
    (folder / FIVE).unlink()
    flip(folder / "two/piece.safetensors", 0)
    outcome = run("--torrent", torrent(edges.folder, "v2"), "--official", folder, "--json")
    assert outcome.status == 0  # the manifest's Merkle roots tell the rest
    assert outcome.codes == {"official-not-used"}


def test_an_official_folder_without_official_files_is_2(edges, torrent, run, tmp_path):
    (tmp_path / "empty").mkdir()
    outcome = run(
        "--torrent", torrent(edges.folder), edges.folder, "--official", tmp_path / "empty"
    )
    assert outcome.status == 2
    assert "holds no official file of test/edges@1" in outcome.sentence


def test_a_list_that_nobody_signed_serves_with_official_bytes(edges, torrent, run, tmp_path):
    digests = tmp_path / "SHA256SUMS"
    lines = [
        f"{hashlib.sha256((edges.folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in torrents.EDGES
    ]
    digests.write_text("".join(lines))
    for version in ("v1", "v2"):
        given = ["--torrent", torrent(edges.folder, version), "--manifest", digests, "--json"]
        outcome = run(*given, "--official", edges.folder)
        assert outcome.report["verdict"] == "identical"
        assert "unsigned" in outcome.codes
        assert "nobody signed" in outcome.sentence
    assert run(*given).report["verdict"] == "undetermined"


def test_a_manifest_of_another_signer_is_untrusted(edges, torrent, tmp_path):
    other = make_signer(tmp_path / "other")
    outcome = run_command(
        "--torrent", torrent(edges.folder), edges.folder, "--trusted-key", other.public
    )
    assert outcome.status == 1
    assert outcome.out.startswith("UNTRUSTED")
    assert outcome.sentence


def test_of_several_manifests_the_one_that_fits_is_reported(edges, published, torrent, run):
    outcome = run(
        "--torrent",
        torrent(edges.folder),
        "--manifest",
        published.folder / "model.sig",
        "--manifest",
        edges.folder / "model.sig",
        "--json",
    )
    assert (outcome.status, outcome.report["checkpoint"]) == (0, "test/edges@1")


def test_a_torrent_that_contradicts_itself_is_never_accepted(edges, torrent, run):
    def spoil(fields):
        fields[b"info"][b"files"].append({b"length": 0, b"path": [b"more"]})

    place = torrent(edges.folder, "hybrid")
    place.write_bytes(torrents.changed(place.read_bytes(), spoil))
    outcome = run("--torrent", place, "--official", edges.folder, "--json")
    assert outcome.report["verdict"] == "identical"
    assert outcome.status == 1
    assert "contradicts itself" in outcome.sentence


def test_names_of_strangers_do_not_reach_the_terminal_or_the_page(edges, torrent, run, tmp_path):
    folder = shutil.copytree(edges.folder, tmp_path / "copy")
    (folder / "<script>\N{RIGHT-TO-LEFT OVERRIDE}.txt").touch()
    page = tmp_path / "report.html"
    outcome = run("--torrent", torrent(folder), edges.folder, "--report", page)
    assert outcome.status == 0
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in outcome.out + outcome.err + page.read_text()
    assert "<script>" not in page.read_text()
    assert "infohash v2" in page.read_text()
    assert "not run" not in page.read_text()


@pytest.mark.parametrize(
    "name", ["path leaves", "pieces too few", "tree too deep", "a web page", "length below 0"]
)
def test_a_hostile_torrent_is_one_sentence_and_2(edges, run, tmp_path, name):
    (tmp_path / "x.torrent").write_bytes(HOSTILE[name])
    outcome = run("--torrent", tmp_path / "x.torrent", edges.folder)
    assert (outcome.status, outcome.out) == (2, "")
    assert "x.torrent" in outcome.sentence


@pytest.mark.parametrize(
    "arguments",
    [
        ["--torrent", "x.torrent", "--magnet", "magnet:?"],
        ["--torrent", "none.torrent"],
        ["--torrent", "none.torrent", "."],
        ["--magnet", "magnet:?xt=urn:btih:" + "ab" * 20],
        ["--magnet", "nonsense", "."],
        ["--magnet", "", "."],
        ["--official", "."],
        ["--torrent", "x.torrent", ".", "--attest", "none.pem", "--attest-out", "out.json"],
    ],
)
def test_wrong_usage_is_one_sentence_and_2(arguments, run, tmp_path):
    env = os.environ | {"PYTHONPATH": os.getcwd()}
    outcome = run_command(*arguments, cwd=tmp_path, env=env)
    assert outcome.status == 2
    assert outcome.sentence


@pytest.mark.parametrize("version", ["v1", "v2", "hybrid"])
def test_a_magnet_link_that_is_guessed_is_proof(edges, run, version):
    uri = torrents.magnet(torrents.make(edges.folder, version)) + "&dn=edges&tr=http://t/secret"
    outcome = run("--magnet", uri, "--official", edges.folder, "--json")
    assert outcome.status == 0, outcome.err
    assert outcome.report["verdict"] == "identical"
    assert outcome.report["torrent"]["piece_length"] == torrents.PIECE
    assert "secret" not in outcome.out + outcome.err


def test_a_magnet_link_of_a_part_is_incomplete(edges, run, tmp_path):
    uri = torrents.magnet(torrents.make(edges.folder / FIVE, "v2"))
    outcome = run("--magnet", uri, edges.folder, "--json")
    assert outcome.status == 1
    assert outcome.report["verdict"] == "incomplete"
    official = [f["path"] for f in outcome.report["files"] if f["status"] == "official"]
    assert official == [FIVE]


def test_a_magnet_link_that_is_not_guessed_is_undetermined(edges, run):
    outcome = run("--magnet", f"magnet:?xt=urn:btmh:1220{'ab' * 32}", edges.folder, "--json")
    assert outcome.status == 1
    assert outcome.report["verdict"] == "undetermined"
    assert "proves nothing" in outcome.sentence
    v1 = run("--magnet", f"magnet:?xt=urn:btih:{'ab' * 20}", edges.folder)
    assert "needs the official bytes" in v1.sentence


def test_progress_tells_of_the_pieces(edges, torrent, run):
    place = torrent(edges.folder, "v1")
    outcome = run("--torrent", place, "--official", edges.folder, "--progress-json")
    *lines, _ = outcome.err.splitlines()
    last = json.loads(lines[-1])
    assert last["stage"] == "pieces"
    assert last["done"] == last["total"] > 0


def test_manage_py_verify_judges_torrents_too(published, torrent, tmp_path):
    """The portal's command runs the verifier; with neither manifest nor name, by its catalogue."""
    place = torrent(published.folder, piece=1 << 20)
    done = subprocess.run(
        [sys.executable, "manage.py", "verify", "--torrent", place, "--official", published.folder]
        + ["--trusted-key", published.signer.public],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"WEIGHBRIDGE_DATA": str(tmp_path / "data")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("IDENTICAL")
