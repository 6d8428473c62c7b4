"""A reviewer's scripts decide by the same verbs as the reviewers' desk."""

from datetime import timedelta

import pytest
from django.test import Client

from portal.access import applications, policy
from portal.access.models import AccessRequest, Grant
from portal.accounts import tokens
from portal.audit.models import Event
from portal.catalog.models import Checkpoint
from tests.conftest import ANSWERS

PLACE = "/api/models/llama/7b/user-access-request"


@pytest.fixture
def review(headers_of, reviewer):
    """The reviewer's own header."""
    return headers_of(reviewer, "review")


@pytest.fixture
def ask(client, review, repository):
    def send(verb, **content):
        return client.post(
            f"{PLACE}/{verb}", content, content_type="application/json", headers=review
        )

    return send


@pytest.fixture
def listed(client, review, repository):
    def get(status):
        answer = client.get(f"{PLACE}/{status}", headers=review)
        assert answer.status_code == 200, answer.content
        return [each["requestId"] for each in answer.json()]

    return get


def states(listed):
    return {status: len(listed(status)) for status in ("pending", "accepted", "rejected")}


def test_a_waiting_request_is_listed_with_its_answers(client, application, review, repository):
    (said,) = client.get(f"{PLACE}/pending", headers=review).json()
    assert said["requestId"] == str(application.pk)
    assert said["user"]["user"] == said["user"]["email"] == "applicant@uni.example"
    assert said["fields"]["What is your full name?"] == ANSWERS["name"]
    assert "Academic researcher" in said["fields"].values(), "labels, not values"
    assert said["status"] == "pending" and said["timestamp"].endswith("Z")


def test_reading_requests_is_recorded(client, application, review, reviewer, repository):
    client.get(f"{PLACE}/pending", headers=review)
    event = Event.objects.get(action="requests.read")
    assert (event.actor, event.subject) == (reviewer.actor, "repository:llama/7b")


@pytest.mark.parametrize("by", ["user", "requestId"])
def test_accepting_begins_a_grant(ask, listed, application, applicant, checkpoint, by, at):
    key = {"user": "APPLICANT@uni.example", "requestId": str(application.pk)}[by]
    assert ask("handle", status="accepted", **{by: key}).status_code == 200
    assert policy.decide(applicant, checkpoint, at + timedelta(minutes=1)).allowed
    assert states(listed) == {"pending": 0, "accepted": 1, "rejected": 0}


def test_rejecting_gives_the_reason(ask, listed, application):
    answer = ask(
        "handle", user="applicant@uni.example", status="rejected", rejectionReason="Too vague."
    )
    assert answer.status_code == 200
    assert application.decisions.get().reason == "Too vague."
    assert states(listed) == {"pending": 0, "accepted": 0, "rejected": 1}


@pytest.mark.parametrize("given", ["pending", "accepted"])
def test_nobody_is_refused_without_a_reason(ask, request, application, given):
    if given == "accepted":
        request.getfixturevalue("grant")
    answer = ask("handle", user="applicant@uni.example", status="rejected")
    assert answer.status_code == 400
    assert "Write the reason" in answer.headers["X-Error-Message"]
    assert not Grant.objects.exclude(revoked_at=None).exists()


def test_rejecting_an_accepted_request_revokes_its_grant(ask, listed, grant):
    ask("handle", user="applicant@uni.example", status="rejected", rejectionReason="Ended.")
    grant.refresh_from_db()
    assert grant.revoke_reason == "Ended." and grant.revoked_at
    assert states(listed) == {"pending": 0, "accepted": 0, "rejected": 1}


def test_cancelling_an_accepted_request_revokes_its_grant(ask, grant):
    assert ask("handle", user="applicant@uni.example", status="pending").status_code == 200
    grant.refresh_from_db()
    assert "you may apply again" in grant.revoke_reason


def test_what_waits_or_was_rejected_cannot_be_cancelled(ask, application):
    who = {"user": "applicant@uni.example"}
    assert "already" in ask("handle", status="pending", **who).headers["X-Error-Message"]
    ask("handle", status="rejected", rejectionReason="No.", **who)
    answer = ask("handle", status="pending", **who)
    assert answer.status_code == 400 and "back into the queue" in answer.json()["error"]
    answer = ask("handle", status="accepted", **who)
    assert answer.status_code == 400 and "Already rejected by" in answer.json()["error"]


def test_a_request_for_more_than_this_repository_is_decided_as_a_whole(
    ask, application, family, at
):
    other = Checkpoint.objects.create(
        family=family, variant="13b", version="1", published_at=at, published_by="t"
    )
    application.checkpoints.add(other)
    for status in ("accepted", "rejected"):
        answer = ask("handle", user="applicant@uni.example", status=status, rejectionReason="No.")
        assert answer.status_code == 400
        assert f"/admin/access/accessrequest/{application.pk}/change/" in answer.json()["error"]
    application.refresh_from_db()
    assert application.status == AccessRequest.Status.SUBMITTED


def test_granting_needs_no_request(ask, stranger, repository, at):
    assert ask("grant", user="stranger@other.example").status_code == 200
    assert policy.decide(stranger, repository, at + timedelta(minutes=1)).allowed
    again = ask("grant", user="stranger@other.example")
    assert again.status_code == 400 and "already" in again.json()["error"]


def test_nobody_is_granted_who_is_not_known(ask):
    answer = ask("grant", user="nobody@nowhere.example")
    assert answer.status_code == 404 and "nobody@nowhere.example" in answer.json()["error"]


def test_nobody_decides_on_their_own_request(ask, repository, reviewer, at):
    own = applications.begin(reviewer, repository.family, at=at)
    applications.save(own, answers=ANSWERS, checkpoints=[repository], at=at)
    applications.submit(own, terms=repository.family.terms, at=at, address=None, agent="")
    for verb in ("handle", "grant"):
        answer = ask(verb, user="reviewer@lab.example", status="accepted")
        assert answer.status_code == 400 and "their own request" in answer.json()["error"]
    assert not Grant.objects.exists()


@pytest.mark.parametrize(
    ("place", "content"),
    [("pending", None), ("handle", {"user": "a", "status": "accepted"}), ("grant", {"user": "a"})],
)
def test_only_a_reviewer_with_a_token_for_it_may(
    repository, application, stranger, reviewer, headers_of, place, content
):
    client = Client(enforce_csrf_checks=True)
    client.force_login(reviewer)
    for headers, status in (
        ({}, 401),
        (headers_of(stranger, "review"), 403),
        (headers_of(reviewer, "download", "read", "verify"), 403),
    ):
        send = client.post if content else client.get
        options = {"data": content, "content_type": "application/json"} if content else {}
        answer = send(f"{PLACE}/{place}", headers=headers, **options)
        assert answer.status_code == status, answer.content
        assert answer.headers["X-Error-Message"]
    assert not Event.objects.filter(action="requests.read").exists()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ("[]", 400),
        ("[" * 60_000, 400),
        ("{}", 404),
        ('{"user": 5}', 404),
        ("x" * 70_000, 413),
    ],
)
def test_a_body_that_cannot_be_used_is_refused_in_words(client, repository, review, body, status):
    answer = client.post(f"{PLACE}/handle", body, content_type="application/json", headers=review)
    assert answer.status_code == status and answer.json()["error"]


def test_a_status_that_is_not_known_is_named(ask, application):
    answer = ask("handle", user="applicant@uni.example", status="maybe")
    assert answer.status_code == 400 and "status" in answer.json()["error"]


@pytest.mark.parametrize("key", ["²", "-1", "9" * 30, "0"])
def test_a_request_that_is_not_there_is_not_found(ask, application, key):
    assert ask("handle", requestId=key, status="accepted").status_code == 404


def test_a_repository_that_is_not_there_has_no_requests(client, review, repository):
    answer = client.get("/api/models/llama/70b/user-access-request/pending", headers=review)
    assert answer.headers["X-Error-Code"] == "RepoNotFound"


def test_pages_of_requests_lead_to_each_other(
    client, application, stranger, review, repository, at, monkeypatch
):
    from portal.hub import requests

    monkeypatch.setattr(requests, "PAGE", 1)
    second = applications.begin(stranger, repository.family, at=at)
    applications.save(second, answers=ANSWERS, checkpoints=[repository], at=at)
    applications.submit(second, terms=repository.family.terms, at=at, address=None, agent="")
    first = client.get(f"{PLACE}/pending", headers=review)
    assert [row["requestId"] for row in first.json()] == [str(application.pk)]
    following = first.headers["Link"][1:].split(">")[0].split("8000")[1]
    rest = client.get(following, headers=review)
    assert [row["requestId"] for row in rest.json()] == [str(second.pk)]
    assert "Link" not in rest.headers


def test_a_token_for_one_checkpoint_decides_on_no_other(
    client, application, repository, reviewer, at
):
    _, secret = tokens.make(
        reviewer, scopes=["review"], checkpoint="llama/13b@1", by="tests", at=at
    )
    headers = {"Authorization": f"Bearer {secret}"}
    assert client.get(f"{PLACE}/pending", headers=headers).status_code == 403
    content = {"user": "applicant@uni.example", "status": "accepted"}
    for verb in ("handle", "grant"):
        answer = client.post(
            f"{PLACE}/{verb}", content, content_type="application/json", headers=headers
        )
        assert answer.status_code == 403
    assert not Grant.objects.exists()
