"""Manifests: side files are believed only as they were signed, and never more than they may say."""

import hashlib
import json
import shutil

import pytest

from tests.verifier.conftest import make_signer, sign_again
from verifier import manifest
from verifier.errors import ManifestError, SignatureError
from verifier.findings import Code
from verifier.trust import Trust


def load(folder, signer):
    return manifest.load(folder / "model.sig", Trust.in_keys(signer.key.public_key()))


def test_a_published_checkpoint_is_read_back(published):
    found = load(published.folder, published.signer)
    assert (found.name, found.revision) == ("test/tiny@1", 1)
    shard = found.files["model-00001-of-00002.safetensors"]
    path = published.folder / shard.name
    assert shard.size == path.stat().st_size
    assert shard.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert shard.leaf_list(("blake3", "sha256")).kind == "blake3"
    assert len(shard.leaf_list(("sha256",)).digests) == 3 * 32
    assert not any(name.startswith(".weighbridge") for name in found.files)
    assert not found.findings


@pytest.mark.parametrize("name", ["checkpoint.json", "leaves.bin", "leaves.b3"])
def test_a_side_file_that_differs_is_not_used(copy, published, name):
    (copy / ".weighbridge" / name).write_bytes(b"{}")
    found = load(copy, published.signer)
    assert [f.code for f in found.findings] == [Code.SIDE_FILE_DIFFERS]
    assert found.side_file(f".weighbridge/{name}") is None


def test_without_side_files_whole_digests_are_left(copy, published):
    shutil.rmtree(copy / ".weighbridge")
    found = load(copy, published.signer)
    assert {f.code for f in found.findings} == {Code.SIDE_FILE_MISSING}
    assert found.revision is None
    assert all(file.leaf_list(("sha256",)) is None for file in found.files.values())


@pytest.fixture
def resign(copy, published):
    """Change checkpoint.json of the copy and sign the result, as a careless publisher might."""

    def change(edit, extra=None):
        path = copy / ".weighbridge" / "checkpoint.json"
        content = json.loads(path.read_text())
        replaced = edit(content)
        path.write_text(json.dumps(content) if replaced is None else replaced)
        sign_again(copy, published.signer, extra)
        return copy

    return change


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda c: c.update(schema=2), "update Weighbridge"),
        (lambda c: c.update(revision=0), "positive revision"),
        (lambda c: c.update(revision=True), "`revision`"),
        (lambda c: c.update(leaf_size=1), "leaves"),
        (lambda c: c.update(previous="x"), "`previous`"),
        (lambda c: c.update(checkpoint=None), "`checkpoint`"),
        (lambda c: c.update(terms=[]), "`terms`"),
        (lambda c: c["files"].pop("config.json") and None, "does not describe"),
        (lambda c: c["files"].update(extra={}), "does not describe"),
        (lambda c: c["files"]["config.json"].update(size=-1), "`size`"),
        (lambda c: c["files"]["config.json"].update(size=2**63), "`size`"),
        (lambda c: c["files"]["config.json"].update(size=5 << 20), "every leaf"),
        (lambda c: c["files"]["config.json"].update(leaf_sha256="0" * 64), "contradicts"),
        (lambda c: c["files"]["config.json"].update(bt2_root="0"), "`bt2_root`"),
        (lambda c: "[]", "form"),
        (lambda c: "[" * 100_000, "nested too deeply"),
        (lambda c: '{"schema": 1, "schema": 1}', "repeats the key"),
    ],
)
def test_a_signed_checkpoint_file_that_breaks_the_rules_is_refused(resign, published, edit, reason):
    with pytest.raises(ManifestError, match=reason):
        load(resign(edit), published.signer)


@pytest.mark.parametrize("name", ["CONFIG.json", "a\\b", "c:d", "line\nbreak"])
def test_names_that_differ_between_file_systems_are_refused(resign, published, name):
    with pytest.raises(ManifestError, match="lists"):
        load(resign(lambda c: None, {name: "0" * 64}), published.signer)


def test_a_manifest_of_another_key_is_not_trusted(published, tmp_path):
    with pytest.raises(SignatureError):
        load(published.folder, make_signer(tmp_path))


def test_a_manifest_that_is_a_device_or_endless_is_refused(tmp_path, published):
    for target in ("/dev/zero", str(tmp_path)):
        path = tmp_path / "model.sig"
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        with pytest.raises(ManifestError, match=r"not a regular file|directory"):
            manifest.load(path, Trust.in_keys(published.signer.key.public_key()))
    path.unlink()
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ManifestError, match="larger than"):
        manifest.load(path, Trust.in_keys(published.signer.key.public_key()))


def test_only_configs_that_are_as_signed_stand_in(copy, published):
    assert list(manifest.published_configs(load(copy, published.signer))) == ["config.json"]
    (copy / "config.json").write_text("{}")
    assert manifest.published_configs(load(copy, published.signer)) == {}
