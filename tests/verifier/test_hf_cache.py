"""A copy in the cache of Hugging Face's tools: links to its blobs are followed, no others."""

import os

import pytest

from inference_check.synthetic import Shape, make_weights, write_hf
from tests.verifier.clothes import gguf_of
from tests.verifier.conftest import SHARD, flip, publish
from verifier import hf_cache, walk
from verifier.errors import InputError
from verifier.findings import Code
from verifier.readers import ReadError, open_source, read_tensors

REVISION = "0123456789abcdef0123456789abcdef01234567"
SHARED = "ab" * 32


def link_to_blob(cache, snapshot, name, data, *, shared=None):
    """Put a file into the cache as the Hub's client does."""
    blob = cache / "blobs" / f"etag-{name.replace('/', '-')}"
    if shared:
        place = cache.parent / "blobs" / shared[:2] / shared
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        blob.symlink_to(f"../../blobs/{shared[:2]}/{shared}")
    else:
        blob.write_bytes(data)
    link = snapshot / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(blob, link.parent))


def cached(folder, hub, *, shared=None, revision=REVISION, main=True):
    """Copy ``folder`` into a cache; return the repository's folder and the snapshot."""
    cache = hub / "models--test--tiny"
    snapshot = cache / "snapshots" / revision
    for path in (cache / "blobs", cache / "refs", snapshot):
        path.mkdir(parents=True, exist_ok=True)
    if main:
        (cache / "refs" / "main").write_text(revision)
    for path in folder.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(folder))
            link_to_blob(
                cache,
                snapshot,
                name,
                path.read_bytes(),
                shared=shared if name == SHARD else None,
            )
    return cache, snapshot


@pytest.mark.parametrize("shared", [None, SHARED])
def test_the_library_takes_the_tests_cache_for_its_own(published, tmp_path, shared):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    cached(published.folder, tmp_path, shared=shared)
    (repository,) = huggingface_hub.scan_cache_dir(tmp_path).repos
    (revision,) = repository.revisions
    assert (repository.repo_id, revision.commit_hash) == ("test/tiny", REVISION)
    assert {file.file_name for file in revision.files} >= {SHARD, "config.json", "model.sig"}


@pytest.mark.parametrize("shared", [None, SHARED])
@pytest.mark.parametrize("which", ["repository", "snapshot"])
def test_a_cached_copy_is_identical(published, tmp_path, verify, which, shared):
    cache, snapshot = cached(published.folder, tmp_path, shared=shared)
    outcome = verify(cache if which == "repository" else snapshot)
    assert (outcome.status, outcome.report["verdict"]) == (0, "identical")
    assert not outcome.report["findings"]


def test_one_cached_file_keeps_its_name(published, tmp_path, verify):
    _, snapshot = cached(published.folder, tmp_path)
    outcome = verify(snapshot / SHARD)
    assert outcome.report["verdict"] == "identical"
    assert [file["path"] for file in outcome.report["files"]] == [SHARD]


def test_damage_in_a_blob_is_found(published, tmp_path, verify):
    cache, _ = cached(published.folder, tmp_path)
    flip(cache / "blobs" / f"etag-{SHARD}", 5_000_000)
    outcome = verify(cache)
    assert outcome.report["verdict"] == "damaged"
    assert SHARD in {finding["path"] for finding in outcome.report["findings"]}


@pytest.mark.parametrize("single", [False, True])
def test_weights_in_a_cache_are_compared(tmp_path, signer, verify, single):
    shape = Shape(layers=2)
    for name in ("hf", "gguf"):
        (tmp_path / name).mkdir()
    write_hf(tmp_path / "hf", make_weights(shape), shape)
    official = publish(tmp_path / "hf", tmp_path / "work", signer)
    gguf_of("F16")(tmp_path / "gguf", make_weights(shape), shape)
    cache, snapshot = cached(tmp_path / "gguf", tmp_path)
    path = snapshot / "tiny.F16.gguf" if single else cache
    outcome = verify(path, "--manifest", official.folder / "model.sig")
    assert outcome.report["verdict"] == "same-weights"


def test_the_snapshot_is_that_of_main_or_the_only_one(published, tmp_path):
    cache, first = cached(published.folder, tmp_path, main=False)
    assert walk.resolve_root(cache) == first
    (cache / "snapshots" / "ffff").mkdir()
    with pytest.raises(InputError, match=f"several snapshots: give one of snapshots/{REVISION}"):
        walk.resolve_root(cache)
    (cache / "refs" / "main").write_text("ffff\n")
    assert walk.resolve_root(cache) == cache / "snapshots" / "ffff"


@pytest.mark.parametrize("ref", ["../..", "..", "", "a/b", "x" * 5000, "\0", "none"])
def test_a_ref_leads_nowhere_else(published, tmp_path, ref):
    cache, first = cached(published.folder, tmp_path)
    (cache / "refs" / "main").write_text(ref)
    assert walk.resolve_root(cache) == first


def test_an_empty_cache_is_said_in_one_sentence(tmp_path):
    (tmp_path / "models--a--b" / "snapshots").mkdir(parents=True)
    with pytest.raises(InputError, match="without a snapshot"):
        walk.resolve_root(tmp_path / "models--a--b")


LINKS = {
    "secret": "../../../secret",
    "absolute": "/etc/passwd",
    "folder": "../../blobs",
    "deeper": "../../blobs/sub/file",
    "not blobs": "../../refs/main",
    "other cache": "../../../models--other--one/blobs/file",
    "nowhere": "../../blobs/none",
    "blob that leaves": "../../blobs/leaves",
    "blob in the store of others": "../../blobs/near",
    "blob of links": "../../blobs/chain",
    "pipe": "../../blobs/pipe",
}


@pytest.fixture
def traps(tmp_path):
    """A cache whose snapshot has links that must not be followed."""
    (tmp_path / "empty").mkdir()
    cache, snapshot = cached(tmp_path / "empty", tmp_path)
    blobs = cache / "blobs"
    (tmp_path / "secret").write_text("secret")
    for folder in (blobs / "sub", tmp_path / "models--other--one" / "blobs"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("secret")
    store = tmp_path / "blobs" / "ab"
    store.mkdir(parents=True)
    (store / "near").write_text("secret")
    (store / SHARED).symlink_to(tmp_path / "secret")
    os.mkfifo(blobs / "pipe")
    (blobs / "leaves").symlink_to("../../secret")
    (blobs / "near").symlink_to("../../blobs/ab/near")
    (blobs / "chain").symlink_to(f"../../blobs/ab/{SHARED}")
    for name, target in LINKS.items():
        (snapshot / name).symlink_to(target)
    return snapshot


@pytest.mark.parametrize("name", LINKS)
def test_no_other_link_is_followed(traps, name):
    listing = walk.walk(traps)
    assert not listing.files
    assert {finding.path: finding.code for finding in listing.findings}[name] in (
        Code.LINK,
        Code.NOT_A_FILE,
    )
    with (
        pytest.raises(ReadError, match="it is a link|not a regular file"),
        open_source(traps, name),
    ):
        pass


def test_links_to_blobs_are_refused_outside_a_snapshot(published, tmp_path):
    cache, snapshot = cached(published.folder, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / SHARD).symlink_to(cache / "blobs" / f"etag-{SHARD}")
    assert read_tensors(snapshot, SHARD)
    with pytest.raises(ReadError, match="it is a link"):
        read_tensors(tmp_path / "elsewhere", SHARD)


def test_blobs_that_are_a_link_are_no_store(published, tmp_path):
    cache, snapshot = cached(published.folder, tmp_path)
    (cache / "blobs").rename(tmp_path / "moved")
    (cache / "blobs").symlink_to(tmp_path / "moved")
    assert hf_cache.blob_behind(snapshot, snapshot / SHARD) is None
    assert not walk.walk(snapshot).files


def test_a_folder_that_is_a_link_is_not_entered(published, tmp_path):
    _, snapshot = cached(published.folder, tmp_path)
    (snapshot / "sub").symlink_to(".")
    with pytest.raises(ReadError, match="it is a link"):
        read_tensors(snapshot, f"sub/{SHARD}")
