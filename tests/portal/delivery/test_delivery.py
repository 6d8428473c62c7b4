import json
import re
import subprocess
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.test import override_settings

from portal.access import decisions, policy
from portal.accounts import tokens
from portal.audit import chain
from portal.audit.models import Event
from portal.catalog.models import Shard
from portal.delivery import signers
from portal.delivery.issuing import IssueError, SignedFile, issue
from portal.delivery.models import Download
from portal.delivery.views import shell_line
from portal.storage.stores import store
from tests.conftest import sign_in

DAY = timedelta(days=1)
CONTENT = bytes(range(250)) * 400


@pytest.fixture
def url(grant, applicant, checkpoint, at):
    """The path and query of a signed URL of `a.bin`."""
    _, files = issue(applicant, checkpoint, at=at, paths=["a.bin"])
    parts = urlsplit(files[0].url)
    return f"{parts.path}?{parts.query}"


def body(answer):
    return answer.getvalue()


@pytest.mark.parametrize(
    ("asked", "status", "span", "content"),
    [
        ("bytes=0-99", 206, "bytes 0-99/100000", CONTENT[:100]),
        ("bytes=-100", 206, "bytes 99900-99999/100000", CONTENT[-100:]),
        ("bytes=99990-", 206, "bytes 99990-99999/100000", CONTENT[-10:]),
        ("bytes=99990-200000", 206, "bytes 99990-99999/100000", CONTENT[-10:]),
        ("bytes=100000-", 416, "bytes */100000", b""),
        ("bytes=-0", 416, "bytes */100000", b""),
        ("bytes=9-3", 200, None, CONTENT),
        ("bytes=0-9,20-29", 200, None, CONTENT),
        ("items=0-9", 200, None, CONTENT),
        ("bytes=٣-٤", 200, None, CONTENT),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_range_is_answered_and_anything_else_is_the_whole(
    client, url, asked, status, span, content
):
    answer = client.get(url, headers={"Range": asked})
    assert (answer.status_code, answer.headers.get("Content-Range")) == (status, span)
    assert body(answer) == content


def test_head_says_what_get_would_send(client, url):
    answer = client.head(url)
    assert (answer.status_code, answer.headers["Content-Length"]) == (200, "100000")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="a.bin"'


def test_a_range_is_for_get_only(client, url):
    answer = client.head(url, headers={"Range": "bytes=0-9"})
    assert (answer.status_code, answer.headers["Content-Length"]) == (200, "100000")
    assert client.head(url, headers={"Range": "bytes=100000-"}).status_code == 200


def test_a_resumed_download_never_mixes_versions(client, url):
    etag = client.head(url).headers["ETag"]
    resumed = client.get(url, headers={"Range": "bytes=5-9", "If-Range": etag})
    assert body(resumed) == CONTENT[5:10]
    other = client.get(url, headers={"Range": "bytes=5-9", "If-Range": '"other"'})
    assert (other.status_code, body(other)) == (200, CONTENT)
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 304
    assert client.get(url, headers={"If-Match": '"other"'}).status_code == 412


def test_every_changed_character_is_refused(client, url):
    path, query = url.split("?")
    for at in range(0, len(query), 7):
        changed = query[:at] + ("1" if query[at] != "1" else "2") + query[at + 1 :]
        assert client.get(f"{path}?{changed}").status_code == 403


def test_a_url_is_for_one_shard_of_one_grant(client, url, grant, checkpoint):
    other = checkpoint.shards.get(path="config.json")
    path, query = url.split("?")
    assert client.get(f"/d/{grant.pk}/{other.pk}/config.json?{query}").status_code == 403


def test_a_url_ends_when_it_says(at):
    ends = at + timedelta(seconds=60)
    query = dict(
        part.split("=") for part in signers.sign(1, 2, method="GET", expires_at=ends).split("&")
    )
    before = ends.replace(microsecond=0) - timedelta(microseconds=1)
    signers.check(1, 2, method="GET", at=before, **query)
    with pytest.raises(signers.UrlError, match="ended at"):
        signers.check(1, 2, method="GET", at=ends, **query)
    with pytest.raises(signers.UrlError, match="changed"):
        signers.check(1, 2, method="PUT", at=before, **query)


def test_a_revoked_grant_closes_its_urls_at_once_and_says_why(client, url, grant, reviewer, at):
    decisions.revoke(grant, by=reviewer, reason="Project ended.", at=at)
    answer = client.get(url)
    assert answer.status_code == 403
    assert "Project ended." in answer.content.decode()


def test_no_url_outlives_its_grant(grant, applicant, checkpoint):
    last = grant.expires_at - timedelta(seconds=5)
    download, _ = issue(applicant, checkpoint, at=last, expires_in=3600)
    assert download.expires_at == grant.expires_at
    with pytest.raises(IssueError, match="ended"):
        issue(applicant, checkpoint, at=grant.expires_at)


@pytest.mark.parametrize("seconds", [0, -1, 12 * 3600 + 1])
def test_a_url_lives_from_a_second_to_twelve_hours(grant, applicant, checkpoint, at, seconds):
    with pytest.raises(IssueError, match="expires_in"):
        issue(applicant, checkpoint, at=at, expires_in=seconds)


def test_the_issue_is_in_the_audit_and_never_the_url(url):
    event = Event.objects.get(action="urls.issued")
    assert json.loads(event.detail)["download"] == Download.objects.get().pk
    assert "signature" not in event.detail


def test_nothing_is_handed_out_when_the_audit_cannot_be_written(
    committed_db, settings, monkeypatch
):
    from django.utils.timezone import now

    from tests.conftest import make_person
    from tests.portal.access.rows import checkpoint_row

    reviewer, grantee = make_person("r@lab.example"), make_person("g@uni.example")
    checkpoint, at = checkpoint_row(), now()
    decisions.grant_directly(grantee, checkpoint, by=reviewer, reason="R", at=at, until=at + DAY)

    def fail(event):
        raise OSError("disk full")

    monkeypatch.setattr(chain, "event_hash", fail)
    with pytest.raises(OSError, match="disk full"):
        issue(grantee, checkpoint, at=at)
    assert Download.objects.count() == 0


def test_another_persons_grant_is_not_found(client, stranger, grant):
    client.force_login(stranger)
    assert client.post(f"/access/{grant.pk}/urls/").status_code == 404


def test_the_page_shows_urls_and_a_line_for_the_shell(client, applicant, grant):
    client.force_login(applicant)
    page = client.post(f"/access/{grant.pk}/urls/").content.decode()
    assert "curl -fL" in page and page.count("signature=") >= 4


def ask(client, secret, **wanted):
    return client.post(
        "/api/v1/downloads",
        json.dumps(wanted),
        content_type="application/json",
        headers={"Authorization": f"Bearer {secret}"} if secret else {},
    )


@pytest.fixture
def secret(applicant, at):
    return tokens.make(applicant, scopes=["download"], by="tests", at=at)[1]


def test_the_api_answers_with_a_url_for_each_shard(client, grant, secret):
    answer = ask(client, secret, checkpoint="llama/7b@1")
    assert answer.status_code == 201
    assert {file["path"] for file in answer.json()["files"]} == {"a.bin", "config.json"}
    assert client.head(answer.json()["files"][0]["url"].split("8000")[1]).status_code == 200


@pytest.mark.parametrize(
    ("wanted", "status", "says"),
    [
        ({"checkpoint": "llama/7b@2"}, 404, "not published"),
        ({"checkpoint": "../../x"}, 422, "FAMILY/VARIANT@VERSION"),
        ({"checkpoint": "llama/7b@1", "shards": ["../etc"]}, 422, "not a file of"),
        ({"checkpoint": "llama/7b@1", "expires_in": 10**9}, 422, "expires_in"),
        ({"checkpoint": "llama/7b@1", "expires_in": "soon"}, 422, "expires_in"),
        ({}, 422, "checkpoint"),
    ],
)
def test_the_api_says_which_field_is_wrong(client, grant, secret, wanted, status, says):
    answer = ask(client, secret, **wanted)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert says in answer.json()["detail"]


def test_the_api_refuses_who_has_no_token_or_no_grant(client, grant, stranger, operator, at):
    assert ask(client, "", checkpoint="llama/7b@1").status_code == 401
    assert ask(client, "hf_nonsense", checkpoint="llama/7b@1").status_code == 401
    for person in (stranger, operator):
        _, secret = tokens.make(person, scopes=["download"], by="tests", at=at)
        assert ask(client, secret, checkpoint="llama/7b@1").status_code == 403


def test_a_token_opens_only_what_it_was_made_for(client, grant, applicant, at):
    token, secret = tokens.make(applicant, scopes=["read"], by="tests", at=at)
    answer = ask(client, secret, checkpoint="llama/7b@1")
    assert answer.status_code == 403 and "was not made for" in answer.json()["detail"]
    tokens.revoke(token, by="tests", at=at)
    assert "revoked" in ask(client, secret, checkpoint="llama/7b@1").json()["detail"]


def test_only_a_digest_of_a_token_is_kept(applicant, at):
    token, secret = tokens.make(applicant, scopes=["download"], by="tests", at=at)
    assert secret.startswith("hf_") and len(secret) == 43
    assert secret not in json.dumps({k: str(v) for k, v in vars(token).items()})


def test_an_ended_token_opens_nothing(applicant, at):
    _, secret = tokens.make(applicant, scopes=["download"], by="tests", at=at, expires_at=at + DAY)
    tokens.authenticate(secret, scope="read", at=at)
    with pytest.raises(tokens.TokenError, match="has ended"):
        tokens.authenticate(secret, scope="download", at=at + DAY)


def test_manifests_are_open_to_all_and_weights_are_not(client, checkpoint):
    checkpoint.shards.filter(path="config.json").update(is_manifest=True)
    place = "/manifests/llama/7b@1/files/"
    assert body(client.get(f"{place}config.json")) == b"{}\n"
    assert client.get(f"{place}a.bin").status_code == 404
    assert client.get("/manifests/../../etc/files/passwd").status_code == 404


def test_policy_asks_for_the_grants_own_terms(grant, applicant, checkpoint, at):
    assert policy.decide(applicant, checkpoint, at).allowed
    applicant.acceptances.all().delete()
    assert "terms" in policy.decide(applicant, checkpoint, at).reason


def test_a_weak_tag_never_satisfies_if_match(client, url):
    etag = client.head(url).headers["ETag"]
    assert client.head(url, headers={"If-Match": f"W/{etag}"}).status_code == 412
    assert client.head(url, headers={"If-None-Match": f"W/{etag}"}).status_code == 304


def test_a_shard_that_the_store_lost_is_told_in_words(client, url, checkpoint):
    store().delete(checkpoint.shards.get(path="a.bin").store_key)
    answer = client.get(url)
    assert answer.status_code == 503 and "write to the operators" in answer.content.decode()


def test_a_browser_is_refused_with_a_page(client, url):
    answer = client.get(url[:-1], headers={"Accept": "text/html"})
    assert answer.status_code == 403 and "<h1>This file is not handed over" in answer.text


@pytest.fixture
def s3_store(url, monkeypatch):
    """The portal as if its shards lay in a bucket; ended before the checkpoint is removed."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up")
    with override_settings(STORE="s3", S3_BUCKET="weights", S3_ENDPOINT="http://127.0.0.1:7480"):
        yield


def test_another_store_is_opened_for_a_minute(client, url, s3_store):
    answer = client.get(url)
    assert answer.status_code == 302 and answer.headers["Cache-Control"] == "no-store"
    place = urlsplit(answer.headers["Location"])
    assert place.path == "/weights/checkpoints/llama/7b%401/a.bin"
    assert "X-Amz-Expires=60" in place.query
    (event,) = Event.objects.filter(action="store_url.issued")
    assert "X-Amz" not in event.detail


def test_another_store_stays_shut_when_the_audit_cannot_be_written(
    client, url, s3_store, monkeypatch
):
    def fail(event):
        raise OSError("disk full")

    monkeypatch.setattr(chain, "event_hash", fail)
    with pytest.raises(OSError, match="disk full"):
        client.get(url)


def test_the_shell_line_works_as_it_is_and_resumes(tmp_path, checkpoint):
    parts = {"sub folder/it's.bin": b"abcdef", "a.bin": b"whole"}
    files = []
    for number, (path, content) in enumerate(parts.items()):
        source = tmp_path / f"source-{number}"
        source.write_bytes(content)
        files.append(SignedFile(Shard(path=path), source.as_uri()))
    kept = tmp_path / "llama-7b-1" / "sub folder" / "it's.bin"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"abc")
    line = shell_line(checkpoint, files)
    subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True, capture_output=True)
    for path, content in parts.items():
        assert (tmp_path / "llama-7b-1" / path).read_bytes() == content


def test_the_api_answers_a_body_that_is_no_json_with_a_problem(client, secret):
    answer = client.post(
        "/api/v1/downloads",
        "{nonsense",
        content_type="application/json",
        headers={"Authorization": f"Bearer {secret}"},
    )
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "send JSON" in answer.json()["detail"]


def test_who_has_no_token_is_told_how_to_send_one(client, db):
    assert ask(client, "").headers["WWW-Authenticate"] == "Bearer"


def test_a_token_is_shown_by_the_page_that_makes_it_and_never_again(client, applicant):
    sign_in(client, applicant)
    page = client.post("/account/tokens/", {"name": "x", "scopes": ["download"], "days": 3})
    (secret,) = re.findall(r"hf_[A-Za-z0-9]{40}", page.text)
    assert secret not in client.get("/account/tokens/").text


def test_a_strangers_token_cannot_be_revoked(client, applicant, stranger, at):
    token, _ = tokens.make(applicant, scopes=["download"], by="tests", at=at)
    client.force_login(stranger)
    assert client.post(f"/account/tokens/{token.pk}/revoke/").status_code == 404
    token.refresh_from_db()
    assert token.revoked_at is None
