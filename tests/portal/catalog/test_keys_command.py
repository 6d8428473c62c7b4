"""`manage.py keys`, and what it does to the checkpoints that are published."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils.timezone import now

from portal.audit.models import Event
from portal.catalog import keyring, revisions, rotation
from portal.catalog.management.commands import keys as command
from portal.catalog.manifests import manifest_of, trusted_root
from portal.catalog.models import Checkpoint, Shard
from portal.delivery.issuing import issue
from portal.storage.stores import store
from tests.portal.catalog.test_keyring import offline_key
from verifier.envelopes import key_id, load_public, public_pem
from verifier.keys import private_pem

ROOT = Path(__file__).parents[3]
NAME = "keys/plain@1"


@pytest.fixture(autouse=True)
def own_portal(settings, tmp_path, db):
    """A portal of the test's own, with its own keys and store."""
    settings.DATA = tmp_path / "data"
    settings.STORE_FOLDER = tmp_path / "store"
    return settings.DATA / "keys"


def keys(*words):
    out = io.StringIO()
    call_command("keys", *map(str, words), stdout=out)
    return out.getvalue()


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "notes.txt").write_text("not a model")
    call_command("publish", str(folder), NAME, stdout=io.StringIO(), stderr=io.StringIO())
    return Checkpoint.objects.named(NAME).get()


def verify(copy, trusted, data, *more):
    """Run the verifier as a recipient does, who has ``data`` for a memory."""
    done = subprocess.run(
        [sys.executable, "-m", "verifier", copy, "--trusted-key", trusted, "--json", *more],
        capture_output=True,
        text=True,
        env=os.environ | {"WEIGHBRIDGE_DATA": str(data)},
        cwd=ROOT,
        check=False,
    )
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    return report["verdict"], {finding["code"] for finding in report["findings"]}


def received(checkpoint, place):
    """Copy a checkpoint with its manifest, as it is now, to ``place``."""
    shutil.copytree(manifest_of(checkpoint), place)
    for shard in checkpoint.shards.weights():
        with store().open(shard.store_key) as file:
            (place / shard.path).write_bytes(file.read())
    return place


def test_keys_are_listed_without_their_private_halves(own_portal):
    listed = keys("list").splitlines()
    assert [line.split()[1:3] for line in listed[1:4]] == [
        ["Ed25519", "root"],
        ["P-256", "release"],
        ["Ed25519", "latest"],
    ]
    assert "Root version 1, 1 of 1 root keys must sign the next" in listed[-1]
    keys("rotate", "release")
    text = keys("list")
    assert "verifies only" in text and text.count("in use") == 3
    assert "PRIVATE" not in text


def test_export_prints_the_release_key_and_the_root(own_portal):
    before = keys("export")
    assert before == (own_portal / "release.pub.pem").read_text()
    assert keys("export", "--root") == (own_portal / "1.root.json").read_text()
    keys("rotate", "release")
    assert keys("export") != before
    load_public(keys("export").encode(), "what was exported")


def test_no_private_key_reaches_the_audit_or_the_output(own_portal, capfd):
    said = keys("rotate", "release") + keys("rotate", "root") + keys("rotate", "latest")
    told = "".join(Event.objects.values_list("detail", flat=True))
    for role in ("root", "release", "latest"):
        secret = (own_portal / f"{role}.pem").read_text().splitlines()[1]
        assert secret not in said + told + "".join(capfd.readouterr())


def test_an_offline_key_cosigns_by_files(own_portal, tmp_path):
    key = offline_key()
    (tmp_path / "offline.pem").write_bytes(private_pem(key))
    (tmp_path / "offline.pub.pem").write_bytes(public_pem(key.public_key()))
    said = keys("add", "--role", "root", "--public", tmp_path / "offline.pub.pem", "--threshold", 2)
    assert "Nothing changed yet" in said
    assert "Version 2 waits for signatures." in keys("list")
    draft = tmp_path / "draft.json"
    draft.write_text(keys("root", "--draft"))
    shown = keys("sign-root", draft, "--key", tmp_path / "offline.pem")
    assert "2 of  " in shown and key_id(key.public_key())[:16] in shown
    assert "Root version 2 is in force" in keys("sign-root", draft)
    assert "signs elsewhere" in keys("list")
    keys("rotate", "latest")
    keys("root", "--discard")
    with pytest.raises(CommandError, match="No version of the root waits"):
        keys("root", "--draft")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["add", "--role", "root", "--public", "none.pem"], "none.pem: No such file"),
        (["sign-root", "none.json"], "none.json cannot be read"),
        (["revoke", "12345678", "--reason", "x"], "names no key"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(words, reason):
    with pytest.raises(CommandError, match=reason):
        keys(*words)


def test_a_revoked_release_key_is_followed_by_new_revisions(published, tmp_path):
    """The old manifest verifies after a rotation, and counts for nothing after the revocation."""
    old = received(published, tmp_path / "old")
    memory = tmp_path / "memory"
    signer = published.signed_by
    keys("rotate", "release")
    assert verify(old, trusted_root(by="test"), memory) == ("identical", set())
    said = keys("revoke", signer, "--reason", "The laptop was stolen.")
    assert f"Signed {NAME} again, as revision 2." in said
    published.refresh_from_db()
    assert (published.revision, published.signed_by == signer) == (2, False)
    new = received(published, tmp_path / "new")
    described = json.loads((new / ".weighbridge" / "checkpoint.json").read_text())
    assert described["revision"] == 2 and described["previous"]
    assert verify(new, trusted_root(by="test"), memory) == ("identical", set())
    assert verify(old, trusted_root(by="test"), memory) == ("untrusted", {"revoked"})
    # who has nothing but the first root learns it from the versions beside it
    first = keyring.folder() / "1.root.json"
    assert verify(old, first, tmp_path / "other")[0] == "untrusted"
    assert verify(new, first, tmp_path / "other")[0] == "identical"


def test_a_signing_again_without_a_new_key_makes_the_older_revision_a_rollback(published, tmp_path):
    old = received(published, tmp_path / "old")
    revisions.resign(published, by="command:keys", at=now())
    assert verify(old, trusted_root(by="test"), tmp_path / "memory") == ("untrusted", {"rollback"})


def test_a_revocation_that_was_cut_short_is_finished_by_the_next(published, monkeypatch):
    signer = published.signed_by

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rotation, "resign", stop)
        with pytest.raises(KeyboardInterrupt):
            keys("revoke", signer, "--reason", "Lost.")
    assert Checkpoint.objects.get().signed_by == signer
    said = keys("revoke", signer, "--reason", "Lost.")
    assert "revoked already" in said and "as revision 2" in said
    assert "as revision" not in keys("revoke", signer, "--reason", "Lost.")


def test_the_replaced_files_stay_and_are_handed_out_no_more(grant, checkpoint, applicant, at):
    """Grants are for the checkpoint, so a revision changes none of them."""
    for path, content in ((".weighbridge/checkpoint.json", b"{}"), ("model.sig", b"old")):
        key = f"checkpoints/{checkpoint.name}/{path}"
        store().put_bytes(key, content)
        Shard.objects.create(
            checkpoint=checkpoint,
            path=path,
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            store_key=key,
            is_manifest=True,
        )
    revisions.resign(checkpoint, by="command:keys", at=at)
    assert checkpoint.shards.filter(path="model.sig").count() == 2
    _, files = issue(applicant, checkpoint, at=at)
    paths = [file.shard.path for file in files]
    assert sorted(paths) == sorted(set(paths)) and "model.sig" in paths
    assert all(file.shard.replaced_at is None for file in files)


def test_of_two_who_sign_again_at_once_one_wins(published, at, monkeypatch):
    write_rows = revisions._write_rows

    def after_another(checkpoint, *arguments, **named):
        monkeypatch.setattr(revisions, "_write_rows", write_rows)
        revisions.resign(Checkpoint.objects.get(), by="another", at=at)
        return write_rows(checkpoint, *arguments, **named)

    monkeypatch.setattr(revisions, "_write_rows", after_another)
    with pytest.raises(revisions.ResignError, match="Somebody else"):
        revisions.resign(published, by="command:keys", at=at)
    assert Event.objects.filter(action="checkpoint.resigned").count() == 1
    for shard in published.shards.current():
        with store().open(shard.store_key) as file:
            assert hashlib.sha256(file.read()).hexdigest() == shard.sha256


def test_a_manifest_that_changed_in_the_store_is_not_signed_again(published, at):
    shard = published.shards.get(path=".weighbridge/checkpoint.json")
    store().delete(shard.store_key)
    store().put_bytes(shard.store_key, b"{}")
    with pytest.raises(revisions.ResignError, match="not what was published"):
        revisions.resign(published, by="command:keys", at=at)


def test_the_command_signs_nothing_when_a_key_is_missing(own_portal):
    keys("list")
    (own_portal / "latest.pem").unlink()
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command.sys, "stderr", said)
        keys("rotate", "release")
    assert "latest.json cannot be signed" in said.getvalue()
