"""HEAD says what a file is; GET is an issue of one URL, under the policy and recorded first."""

import hashlib
import json
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.db import connection
from django.test import Client

from portal.access import decisions
from portal.accounts import tokens
from portal.audit import chain
from portal.audit.models import Event
from portal.delivery.models import Download
from portal.storage.stores import store

CONTENT = bytes(range(250)) * 400
FILE = "/llama/7b/resolve/main/a.bin"


def follow(client, answer):
    place = urlsplit(answer.headers["Location"])
    return client.get(f"{place.path}?{place.query}")


def test_head_says_what_the_clients_need_and_hands_nothing_out(
    client, repository, grant, mine, commit
):
    answer = client.head(FILE, headers=mine)
    assert answer.status_code == 200
    digest = f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    said = {name: answer.headers[name] for name in ("X-Repo-Commit", "ETag", "X-Linked-Etag")}
    assert said == {"X-Repo-Commit": commit, "ETag": digest, "X-Linked-Etag": digest}
    assert answer.headers["X-Linked-Size"] == answer.headers["Content-Length"] == "100000"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert not Download.objects.exists() and "Location" not in answer.headers


def test_a_plain_file_is_named_by_git(client, repository, grant, mine):
    answer = client.head("/llama/7b/resolve/main/config.json", headers=mine)
    git = hashlib.sha1(b"blob 3\0{}\n").hexdigest()
    assert answer.headers["ETag"] == f'"{git}"'


def test_get_leads_to_the_bytes_and_is_recorded(client, repository, grant, applicant, mine):
    answer = client.get(FILE, headers=mine | {"User-Agent": "hf_hub/2.4.0"})
    assert answer.status_code == 302 and answer.headers["Cache-Control"] == "no-store"
    assert follow(client, answer).getvalue() == CONTENT
    download = Download.objects.get()
    assert (download.grant, download.agent) == (grant, "hf_hub/2.4.0")
    assert [shard.path for shard in download.shards.all()] == ["a.bin"]
    assert download.token.user == applicant
    event = Event.objects.get(action="urls.issued")
    assert json.loads(event.detail)["download"] == download.pk


def test_each_get_is_an_issue_of_its_own(client, repository, grant, mine):
    for _ in range(2):
        client.get(FILE, headers=mine)
    assert Event.objects.filter(action="urls.issued").count() == 2


def test_a_signed_url_lives_five_minutes_and_never_past_its_grant(client, repository, grant, mine):
    client.get(FILE, headers=mine)
    download = Download.objects.get()
    assert download.expires_at - download.at == timedelta(minutes=5)


@pytest.mark.parametrize("method", ["get", "head"])
def test_who_has_no_token_is_told_the_way(client, repository, method):
    answer = getattr(client, method)(FILE)
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (401, "GatedRepo")
    for place in ("/families/llama/", "/account/tokens/"):
        assert place in answer.headers["X-Error-Message"]
        assert place in answer.headers["X-HF-Warning"]
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("method", ["get", "head"])
def test_a_stranger_an_operator_and_a_reviewer_get_no_bytes(
    client, repository, grant, stranger, operator, reviewer, headers_of, method
):
    for person in (stranger, operator, reviewer):
        answer = getattr(client, method)(FILE, headers=headers_of(person))
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (403, "GatedRepo")
        assert "apply" in answer.headers["X-Error-Message"]
    assert not Download.objects.exists()


def test_a_session_is_no_token(client, repository, grant, applicant):
    client.force_login(applicant)
    assert client.get(FILE).status_code == 401


def test_a_revoked_grant_closes_resolve_and_what_it_led_to(
    client, repository, grant, reviewer, mine, at
):
    led = client.get(FILE, headers=mine)
    decisions.revoke(grant, by=reviewer, reason="Project ended.", at=at)
    answer = client.get(FILE, headers=mine)
    assert answer.status_code == 403 and "Project ended." in answer.headers["X-Error-Message"]
    assert "Project ended." in answer.headers["X-HF-Warning"]
    assert follow(client, led).status_code == 403


@pytest.mark.parametrize(("scope", "head", "get"), [("read", 200, 403), ("verify", 403, 403)])
def test_a_token_opens_only_what_it_was_made_for(
    client, repository, grant, applicant, headers_of, scope, head, get
):
    mine = headers_of(applicant, scope)
    assert client.head(FILE, headers=mine).status_code == head
    answer = client.get(FILE, headers=mine)
    assert answer.status_code == get and answer.headers["X-Error-Code"] == "GatedRepo"


def test_a_file_that_is_not_there_may_be_remembered_as_such(client, repository, commit):
    answer = client.head("/llama/7b/resolve/main/adapter_config.json")
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "EntryNotFound")
    assert answer.headers["X-Repo-Commit"] == commit


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("/llama/70b/resolve/main/a.bin", "RepoNotFound"),
        ("/gpt2/resolve/main/a.bin", "RepoNotFound"),
        ("/Llama/7B/resolve/main/a.bin", "RepoNotFound"),
        ("/../7b/resolve/main/a.bin", "RepoNotFound"),
        ("/llama/7b/resolve/2/a.bin", "RevisionNotFound"),
        ("/llama/7b/resolve/refs%2Fpr%2F1/a.bin", "RevisionNotFound"),
        ("/llama/7b/resolve/%00/a.bin", "RevisionNotFound"),
        ("/llama/7b/resolve/..%2f..%2f/a.bin", "RevisionNotFound"),
        (f"/llama/7b/resolve/{'0' * 40}/a.bin", "RevisionNotFound"),
        (f"/llama/7b/resolve/{'x' * 5000}/a.bin", "RevisionNotFound"),
        ("/llama/7b/resolve/main/../a.bin", "EntryNotFound"),
        ("/llama/7b/resolve/main/..%2F..%2Fkeys%2Furl.key", "EntryNotFound"),
        ("/llama/7b/resolve/main//a.bin", "EntryNotFound"),
        ("/llama/7b/resolve/main/a.bin%00", "EntryNotFound"),
        ("/llama/7b/resolve/main/a.bin%0aX-Evil: 1", "EntryNotFound"),
        ("/llama/7b/resolve/main/%ff%fe", "EntryNotFound"),
        ("/llama/7b/resolve/main/A.BIN", "EntryNotFound"),
    ],
)
@pytest.mark.parametrize("method", ["get", "head"])
def test_what_is_not_there_is_said_in_the_clients_words(
    client, repository, grant, mine, place, code, method
):
    answer = getattr(client, method)(place, headers=mine)
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, code)
    assert "X-Evil" not in answer.headers
    assert not Download.objects.exists()


def test_an_encoded_slash_is_a_slash(client, repository, grant, mine):
    for place in ("sub%20dir%2Fb.bin", "sub%20dir/b.bin"):
        answer = client.get(f"/llama/7b/resolve/main/{place}", headers=mine)
        assert follow(client, answer).getvalue() == b"deep"


def test_the_manifest_is_open_to_all_and_can_be_resumed(client, repository, commit):
    place = "/llama/7b/resolve/main/model.sig"
    assert client.get(place).getvalue() == b"signed"
    part = client.get(place, headers={"Range": "bytes=3-"})
    assert (part.status_code, part.getvalue()) == (206, b"ned")
    head = client.head(place)
    assert (head.headers["Content-Length"], head.headers["X-Repo-Commit"]) == ("6", commit)
    assert not Download.objects.exists()


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch", "options", "trace"])
@pytest.mark.parametrize("place", [FILE, "/api/models/llama/7b", "/api/whoami-v2"])
def test_other_methods_are_refused_with_those_that_serve(client, repository, place, method):
    answer = getattr(client, method)(place)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_no_cookie_is_needed_or_counts_where_a_token_is_sent(repository, grant, mine):
    strict = Client(enforce_csrf_checks=True)
    place = "/api/models/llama/7b/paths-info/main"
    assert strict.post(place, {"paths": "a.bin"}, headers=mine).status_code == 200


def test_auth_check_says_whether_the_bytes_would_come(
    client, repository, grant, mine, stranger, headers_of
):
    place = "/api/models/llama/7b/auth-check"
    assert client.get(place, headers=mine).status_code == 200
    for headers, status in (({}, 401), (headers_of(stranger), 403)):
        answer = client.get(place, headers=headers)
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (status, "GatedRepo")


def test_a_place_that_this_portal_lacks_is_a_missing_repository(client, repository):
    for place in ("gpt2", "llama/7b/discussions", "llama/7b/xet-read-token/main", "llama/7b/"):
        answer = client.get(f"/api/models/{place}")
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "RepoNotFound")


def test_nothing_is_handed_out_when_the_audit_cannot_be_written(
    client, repository, grant, mine, monkeypatch
):
    def fail(event):
        raise chain.AuditError("disk full")

    monkeypatch.setattr(chain, "event_hash", fail)
    answer = client.get(FILE, headers=mine)
    assert answer.status_code == 503 and "Location" not in answer.headers
    assert "nothing is handed out" in answer.headers["X-Error-Message"]
    assert not Download.objects.exists()


def test_nothing_is_handed_out_when_the_database_takes_no_event(client, repository, grant, mine):
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMP TRIGGER full BEFORE INSERT ON audit_event "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    try:
        answer = client.get(FILE, headers=mine)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER full")
    assert answer.status_code == 503 and "Location" not in answer.headers
    assert not Download.objects.exists()


def test_a_manifest_that_the_store_lost_is_told_in_words(client, repository):
    store().delete(repository.shards.get(path="model.sig").store_key)
    assert client.get("/llama/7b/resolve/main/model.sig").status_code == 503


@pytest.mark.parametrize("method", ["get", "head"])
def test_a_resolve_costs_a_fixed_number_of_queries(
    client, repository, grant, mine, method, django_assert_max_num_queries
):
    from tests.portal.hub.conftest import add_file

    ask = getattr(client, method)
    ask(FILE, headers=mine)
    for number in range(30):
        add_file(repository, f"{number}.bin", b"x")
    with django_assert_max_num_queries(26 if method == "get" else 8):
        assert ask(FILE, headers=mine).status_code in (200, 302)


def test_a_token_for_one_checkpoint_opens_no_other(client, repository, grant, applicant, at):
    for name, status in (("llama/7b@1", 302), ("llama/7b@2", 403)):
        _, secret = tokens.make(applicant, scopes=["download"], checkpoint=name, by="tests", at=at)
        answer = client.get(FILE, headers={"Authorization": f"Bearer {secret}"})
        assert answer.status_code == status
    assert answer.headers["X-Error-Code"] == "GatedRepo"
    assert "made for llama/7b@2 only" in answer.headers["X-Error-Message"]
    assert Download.objects.count() == 1


def test_a_token_for_some_addresses_opens_nothing_elsewhere(
    client, repository, grant, applicant, at
):
    for span, status in (("127.0.0.0/8", 302), ("192.0.2.0/24", 403)):
        _, secret = tokens.make(applicant, scopes=["download"], ranges=[span], by="t", at=at)
        headers = {"Authorization": f"Bearer {secret}"}
        assert client.get(FILE, headers=headers).status_code == status
    assert client.head(FILE, headers=headers).status_code == 403
    assert client.get("/api/models/llama/7b", headers=headers).status_code == 403


def test_a_bad_token_is_said_to_be_bad_whatever_it_asks_for(client, repository, grant):
    bad = {"Authorization": f"Bearer hf_{'x' * 40}"}
    for path in ("a.bin", "model.sig", "not-there.json"):
        answer = client.get(f"/llama/7b/resolve/main/{path}", headers=bad)
        assert answer.status_code == 401
        assert answer.headers["X-Error-Message"] == "Invalid credentials in Authorization header"


def test_any_token_of_ours_opens_what_is_open_to_all(client, repository, stranger, headers_of):
    for scope in ("read", "verify", "review", "apply"):
        answer = client.get("/llama/7b/resolve/main/model.sig", headers=headers_of(stranger, scope))
        assert answer.getvalue() == b"signed"
