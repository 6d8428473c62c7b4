import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from portal.catalog.models import Checkpoint, CheckpointNameError, Name
from portal.storage.stores import store

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small checkpoint in both layouts."""
    folder = tmp_path_factory.mktemp("weights")
    for layout in ("hf", "meta"):
        subprocess.run(
            [sys.executable, "-m", "inference_check.synthetic", folder / layout]
            + ["--layout", layout, "--parts", "2", "--seed", "7", "--layers", "2"],
            check=True,
            cwd=ROOT,
        )
    return folder


def publish(folder, name, *more):
    call_command("publish", str(folder), name, *more)
    return Checkpoint.objects.named(name).get()


@pytest.fixture
def removed(db):
    """Take what a test published out of the store again."""
    yield
    for checkpoint in Checkpoint.objects.all():
        for shard in checkpoint.shards.all():
            store().delete(shard.store_key)


def test_a_published_checkpoint_is_accepted_by_the_unmodified_tool(
    weights, tmp_path, removed, capfd
):
    before = {path: path.read_bytes() for path in (weights / "hf").iterdir()}
    checkpoint = publish(weights / "hf", "llama/7b-hf@1", "--manifest-out", str(tmp_path))
    assert before == {path: path.read_bytes() for path in (weights / "hf").iterdir()}
    for shard in checkpoint.shards.all():
        target = tmp_path / shard.path
        target.parent.mkdir(exist_ok=True)
        with store().open(shard.store_key) as file:
            target.write_bytes(file.read())
    key = settings.DATA / "keys" / "release.pub.pem"
    tool = subprocess.run(
        [sys.executable, "-m", "model_signing", "verify", "key", str(tmp_path)]
        + ["--signature", str(tmp_path / "model.sig"), "--public_key", str(key)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert tool.returncode == 0, tool.stderr
    ours = subprocess.run(
        [sys.executable, "-m", "verifier", tmp_path, "--trusted-key", key, "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert ours.returncode == 0, ours.stderr
    report = json.loads(ours.stdout)
    assert (report["verdict"], report["inference"]["status"]) == ("identical", "agrees")


def test_the_release_key_is_for_its_owner_alone(weights, removed):
    publish(weights / "hf", "llama/7b-hf@1")
    mode = (settings.DATA / "keys" / "release.pem").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_two_layouts_of_the_same_weights_are_linked_by_their_values(weights, removed):
    hf = publish(weights / "hf", "llama/7b-hf@1")
    meta = publish(weights / "meta", "llama/7b-meta@1")
    assert hf.weights_sha256 == meta.weights_sha256 != ""
    assert hf.has_reference and meta.has_reference


def test_publishing_the_same_again_changes_nothing(weights, removed, capsys):
    first = publish(weights / "hf", "llama/7b-hf@1")
    assert publish(weights / "hf", "llama/7b-hf@1") == first
    assert "is published already" in capsys.readouterr().out


def test_other_bytes_under_a_published_name_are_refused(weights, removed):
    publish(weights / "hf", "llama/7b-hf@1")
    with pytest.raises(CommandError, match="never changes"):
        publish(weights / "meta", "llama/7b-hf@1")


def test_any_files_can_be_published_with_a_sentence_about_what_is_left_out(
    tmp_path, removed, capfd
):
    (tmp_path / "notes.txt").write_text("not a model")
    (tmp_path.parent / "tokenizer.model").write_bytes(b"shared")
    checkpoint = publish(
        tmp_path, "notes/plain@1", "--with", str(tmp_path.parent / "tokenizer.model")
    )
    assert set(checkpoint.shards.weights().values_list("path", flat=True)) == {
        "notes.txt",
        "tokenizer.model",
    }
    assert not checkpoint.has_reference
    assert "No inference reference" in capfd.readouterr().err


@pytest.mark.parametrize("make", ["missing", "empty", "link", "fifo", "newline"])
def test_what_cannot_be_published_is_refused_in_a_sentence(tmp_path, removed, capfd, make):
    folder = tmp_path / "copy"
    if make != "missing":
        folder.mkdir()
    if make == "link":
        (folder / "a").symlink_to("/etc/passwd")
    if make == "fifo":
        os.mkfifo(folder / "a")
    if make == "newline":
        (folder / "a\nb").write_text("x")
    with pytest.raises(CommandError, match="was not published"):
        publish(folder, "llama/7b@1")
    error = capfd.readouterr().err
    assert "Traceback" not in error and str(folder) in error
    assert not Checkpoint.objects.exists()


@pytest.mark.parametrize("name", ["llama", "llama/7b", "../x/y@1", "a/b@1\n", "A/b@1", "a/b@"])
def test_a_name_that_is_not_of_the_form_is_refused(name):
    with pytest.raises(CheckpointNameError, match="FAMILY/VARIANT@VERSION"):
        Name.parse(name)
