"""root.json and latest.json over HTTP: cacheable, fresh, and nothing where nothing can be signed."""

import base64
import json
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command

from portal.catalog import keyring, newest, notices, rotation, views
from portal.catalog.models import Checkpoint
from verifier import latest, roots

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def own_keys(settings, tmp_path, db):
    """A portal of the test's own."""
    settings.DATA = tmp_path / "data"
    return settings.DATA / "keys"


def said(data):
    return json.loads(base64.b64decode(json.loads(data)["payload"]))


def signed(at):
    """What the portal says at a time, verified as a recipient does."""
    data = newest.current(by="portal", at=at)
    return latest.verify(data, keyring.current(by="portal", at=at))


@pytest.mark.parametrize("place", ["/root.json", "/1.root.json", "/latest.json"])
def test_a_document_is_sent_again_only_if_it_changed(client, place):
    first = client.get(place)
    assert (first.status_code, first.headers["Content-Type"]) == (200, "application/json")
    assert first.headers["Cache-Control"].startswith("public, max-age=")
    assert client.get(place).headers["ETag"] == first.headers["ETag"]
    again = client.get(place, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head(place).status_code == 200
    assert client.post(place).status_code == 405


def test_every_version_of_the_root_is_served_and_none_that_is_not_in_force(client, at, own_keys):
    rotation.rotate("root", by="command:keys", at=at)
    assert client.get("/root.json").content == client.get("/2.root.json").content
    first = roots.verify(client.get("/1.root.json").content)
    assert roots.step(first, client.get("/2.root.json").content).version == 2
    for number in ("0", "3", "99999999999999999999999"):
        assert client.get(f"/{number}.root.json").status_code == 404


def test_latest_json_names_the_newest_version_and_revision(client, checkpoint, family, at):
    Checkpoint.objects.create(
        family=family,
        variant="7b",
        version="2",
        revision=3,
        statement_sha256="1" * 64,
        signed_by="0" * 64,
        published_at=at + DAY,
        published_by="command:publish",
    )
    word = signed(at)
    assert word.newest == {"llama/7b": "2"}
    assert word.checkpoints["llama/7b@2"] == latest.Newest(3, "1" * 64)
    assert word.newer_version("llama/7b@1") == "llama/7b@2"
    assert said(client.get("/latest.json").content)["newest"] == {"llama/7b": "2"}


def test_latest_json_is_signed_again_when_half_of_its_time_is_over(checkpoint, at):
    assert signed(at) == signed(at + 6 * DAY)
    later = signed(at + 8 * DAY)
    assert later.issued_at == at + 8 * DAY and later.expires_at == at + 22 * DAY


def test_latest_json_is_signed_again_when_the_catalogue_or_the_root_changes(checkpoint, at):
    first = signed(at)
    Checkpoint.objects.update(revision=2)
    second = signed(at + timedelta(seconds=1))
    assert (first.checkpoints["llama/7b@1"].revision, first.digest == second.digest) == (1, False)
    rotation.rotate("latest", by="command:keys", at=at)
    assert signed(at).root_version == 2


@pytest.mark.parametrize("lost", ["latest.pem", "1.root.json"])
def test_where_nothing_can_be_signed_nothing_is_served(client, checkpoint, own_keys, caplog, lost):
    assert client.get("/latest.json").status_code == 200
    (own_keys / lost).write_text("not a key")
    Checkpoint.objects.update(revision=2)
    answer = client.get("/latest.json")
    assert (answer.status_code, b"payload" in answer.content) == (503, False)
    assert str(own_keys).encode() not in answer.content
    assert lost in caplog.text


def test_a_word_that_would_soon_expire_is_not_served_when_it_cannot_be_renewed(
    client, checkpoint, own_keys, at, monkeypatch
):
    newest.current(by="portal", at=at)
    (own_keys / "latest.pem").unlink()
    assert client.get("/latest.json").status_code == 200
    monkeypatch.setattr(views, "now", lambda: at + 8 * DAY)
    assert client.get("/latest.json").status_code == 503


def test_a_recall_is_told_by_latest_json(client, checkpoint, family, at):
    other = Checkpoint.objects.create(
        family=family,
        variant="7b",
        version="2",
        statement_sha256="1" * 64,
        signed_by="0" * 64,
        published_at=at,
        published_by="command:publish",
    )
    call_command(
        "recall", "llama/7b@1", "--reason", "Wrong tokenizer.", "--replacement", str(other)
    )
    recall = signed(at).recalls["llama/7b@1"]
    assert (recall.reason, recall.replacement) == ("Wrong tokenizer.", "llama/7b@2")


def test_a_recall_has_a_reason_and_names_what_is_published(checkpoint, at):
    with pytest.raises(notices.RecallError, match="Say why"):
        notices.recall(checkpoint, reason=" ", by="command:recall", at=at)
    with pytest.raises(notices.RecallError, match="cannot replace itself"):
        notices.recall(checkpoint, reason="x", replacement=checkpoint, by="command:recall", at=at)
    for words in (["llama/7b@9"], ["llama/7b@1", "--replacement", "llama/7b@9"], ["llama"]):
        with pytest.raises(CommandError):
            call_command("recall", *words, "--reason", "Wrong.")


def test_a_key_that_was_revoked_is_told_by_latest_json(at):
    keyid = keyring.current(by="portal", at=at).roles["release"].keyids[0]
    rotation.revoke(keyid, reason="Copied.", by="command:keys", at=at)
    assert signed(at).revoked == {keyid: "Copied."}
