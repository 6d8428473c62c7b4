"""Which manifest counts, whose signature, and what ends in status 2."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.verifier.conftest import (
    LEAF,
    SECOND,
    SHARD,
    fill,
    flip,
    make_signer,
    publish,
)


def test_the_best_of_several_manifests_is_reported(copy, verify, tmp_path, signer):
    other = publish(
        fill(tmp_path / "other", seed=8), tmp_path / "work", signer, name="test/other@1"
    )
    flip(copy / SHARD, 0)
    manifests = ["--manifest", other.folder / "model.sig", "--manifest", copy / "model.sig"]
    assert verify(copy, *manifests).report["checkpoint"] == "test/tiny@1"
    assert verify(other.folder, *manifests).report["verdict"] == "identical"


def test_a_file_that_two_checkpoints_share_does_not_choose_between_them(
    published, verify, tmp_path, signer
):
    """The config is the same in both; the weights say which."""
    other = publish(
        fill(tmp_path / "other", seed=8), tmp_path / "work", signer, name="test/other@1"
    )
    copy = shutil.copytree(other.folder, tmp_path / "copy")
    (copy / SHARD).unlink()
    manifests = ["--manifest", published.folder / "model.sig"]
    manifests += ["--manifest", other.folder / "model.sig"]
    assert verify(copy, *manifests).report["checkpoint"] == "test/other@1"


def test_a_folder_of_checkpoints_is_a_report_each_and_the_worst_status(published, verify, tmp_path):
    for name in ("7B", "13B"):
        shutil.copytree(published.folder, tmp_path / "all" / name)
    assert verify(tmp_path / "all").status == 0
    (tmp_path / "all" / "13B" / "config.json").unlink()
    outcome = verify(tmp_path / "all")
    assert outcome.status == 1
    assert [r["verdict"] for r in outcome.report["reports"]] == ["incomplete", "identical"]


def test_one_file_is_compared_by_name_else_by_digest(copy, verify, published, tmp_path):
    manifest = ["--manifest", published.folder / "model.sig"]
    assert verify(copy / SHARD).report["verdict"] == "identical"
    renamed = (copy / SHARD).rename(tmp_path / "renamed.bin")
    outcome = verify(renamed, *manifest)
    assert (outcome.status, outcome.report["verdict"]) == (0, "identical")
    assert "missing" not in outcome.codes
    flip(renamed, 0)
    assert verify(renamed, *manifest).report["verdict"] == "undetermined"
    flip(copy / SECOND, LEAF - 1)
    assert verify(copy / SECOND).report["verdict"] == "damaged"


def test_a_wrong_signature_is_untrusted(copy, verify):
    bundle = json.loads((copy / "model.sig").read_text())
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = "AAAA"
    (copy / "model.sig").write_text(json.dumps(bundle))
    outcome = verify(copy)
    assert (outcome.status, outcome.report["verdict"]) == (1, "untrusted")
    assert outcome.report["checkpoint"] is None


def test_an_unknown_key_is_untrusted(copy, verify, tmp_path):
    outcome = verify(copy, key=make_signer(tmp_path / "other").public)
    assert (outcome.status, outcome.report["verdict"]) == (1, "untrusted")
    assert "not trusted" in outcome.sentence


def test_an_older_revision_than_one_seen_is_untrusted(published, verify, tmp_path, signer):
    newer = publish(
        shutil.copytree(
            published.folder,
            tmp_path / "newer",
            ignore=shutil.ignore_patterns(".weighbridge", "*.sig"),
        ),
        tmp_path / "work",
        signer,
        revision=2,
    )
    assert verify(published.folder).status == 0
    assert verify(newer.folder).status == 0
    outcome = verify(published.folder)
    assert (outcome.status, outcome.report["verdict"]) == (1, "untrusted")
    assert outcome.codes == {"rollback"}


def test_where_nothing_can_be_remembered_nothing_fails(copy, verify, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("WEIGHBRIDGE_DATA", str(tmp_path / "file"))
    assert verify(copy).status == 0


@pytest.mark.parametrize(
    "what", ["signed twice", "no manifest", "no key", "no path", "a pipe", "a device"]
)
def test_nothing_trustworthy_or_nothing_to_look_at_exits_with_2(
    copy, verify, published, tmp_path, what
):
    key: Path | None = published.signer.public
    if what == "signed twice":
        text = (copy / "model.sig").read_text()
        (copy / "model.sig").write_text(
            text.replace('{"mediaType"', '{"mediaType":"x","mediaType"')
        )
    elif what == "no manifest":
        (copy / "model.sig").unlink()
    elif what == "no key":
        key = None
    elif what == "no path":
        copy = tmp_path / "none"
    elif what == "a device":
        copy = Path("/dev/zero")
    else:
        copy = tmp_path / "pipe"
        os.mkfifo(copy)
    outcome = verify(copy, key=key)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.sentence


def test_a_folder_without_permission_exits_with_2(copy, verify):
    """Root may open everything, so it becomes somebody else for this."""
    copy.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        outcome = verify(copy, key=None)
    finally:
        os.seteuid(user)
        copy.chmod(0o755)
    assert outcome.status == 2
    assert "Permission denied" in outcome.sentence
