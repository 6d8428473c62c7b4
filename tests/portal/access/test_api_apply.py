"""Applying through the API holds to what the pages hold to."""

import json

import pytest

from portal.access.models import Acceptance, AccessRequest
from portal.accounts import tokens
from tests.conftest import ANSWERS


@pytest.fixture
def send(client, applicant, family, checkpoint, at):
    """Apply as the applicant; what is given changes a right application."""

    def go(person=applicant, token=None, slug="llama", **changes):
        given = {"scopes": ["apply"]} | (token or {})
        _, secret = tokens.make(person, by="tests", at=at, **given)
        right = {
            "checkpoints": ["llama/7b@1"],
            "answers": ANSWERS,
            "terms_sha256": family.terms.sha256,
        }
        return client.post(
            f"/api/v1/families/{slug}/requests",
            json.dumps(right | changes),
            content_type="application/json",
            headers={"Authorization": f"Bearer {secret}", "User-Agent": "cluster/1"},
        )

    return go


def test_an_application_is_submitted_with_the_terms_accepted(send, applicant, family):
    answer = send()
    assert answer.status_code == 201, answer.text
    request = AccessRequest.objects.get(pk=answer.json()["id"])
    assert (request.status, request.applicant) == ("submitted", applicant)
    assert request.answers["purpose"] == ANSWERS["purpose"]
    accepted = Acceptance.objects.get()
    assert (accepted.text_sha256, accepted.agent) == (family.terms.sha256, "cluster/1")
    assert answer.json()["url"].endswith(f"/requests/{request.pk}/")


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"answers": ANSWERS | {"purpose": ""}}, 409, "Your request is at"),
        ({"answers": ANSWERS | {"role": "wizard"}}, 409, "Your request is at"),
        ({"answers": ANSWERS | {"role": ["academic"]}}, 409, "Your request is at"),
        ({"answers": ANSWERS | {"surprise": "x"}}, 422, "does not ask 'surprise'"),
        ({"answers": {"purpose": 7}}, 422, "purpose"),
        ({"checkpoints": []}, 409, "Your request is at"),
        ({"checkpoints": ["llama/70b@1"]}, 422, "not of the family"),
        ({"terms_sha256": "0" * 64}, 422, "read it first"),
        ({"slug": "nothing"}, 404, "no family 'nothing'"),
        ({"token": {"scopes": ["download"]}}, 403, "not made for “apply”"),
        (
            {"token": {"checkpoint": "llama/70b@1", "scopes": ["apply"]}},
            403,
            "for llama/70b@1 only",
        ),
    ],
)
def test_what_cannot_be_sent_is_refused_in_a_sentence(send, changes, status, says):
    answer = send(**changes)
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert not AccessRequest.objects.exclude(status="draft").exists()
    assert not Acceptance.objects.exists()


def test_what_was_typed_is_kept_as_a_draft_and_sent_when_it_is_right(send):
    send(answers=ANSWERS | {"purpose": ""})
    draft = AccessRequest.objects.get()
    assert draft.answers["affiliation"] == ANSWERS["affiliation"]
    assert send().json()["id"] == draft.pk


def test_a_request_is_submitted_once(send):
    send()
    again = send()
    assert again.status_code == 409 and "submitted" in again.json()["detail"]


def test_the_form_names_questions_checkpoints_and_terms(client, applicant, checkpoint, at):
    _, secret = tokens.make(applicant, scopes=["apply"], by="tests", at=at)
    headers = {"Authorization": f"Bearer {secret}"}
    form = client.get("/api/v1/families/llama/form", headers=headers).json()
    assert form["checkpoints"] == ["llama/7b@1"]
    assert {"name", "purpose"} <= {one["id"] for one in form["questions"]}
    terms = checkpoint.family.terms
    assert form["terms"] == {"version": 1, "sha256": terms.sha256, "text": terms.text}
