"""How requests and grants stand, told to a token."""

import pytest

from portal.access import decisions
from portal.accounts import tokens


@pytest.fixture
def standing(client, at):
    def ask(person, **more):
        given = {"scopes": ["apply"]} | more
        _, secret = tokens.make(person, by="tests", at=at, **given)
        return client.get("/api/v1/requests", headers={"Authorization": f"Bearer {secret}"})

    return ask


def test_a_waiting_request_has_its_place_and_its_page(standing, application, applicant):
    (one,) = standing(applicant).json()["requests"]
    assert (one["status"], one["place"], one["reason"]) == ("submitted", 1, "")
    assert one["url"].endswith(f"/requests/{application.pk}/")


def test_a_refusal_tells_the_reason_and_the_way_back(
    standing, application, applicant, reviewer, at
):
    decisions.return_(application, by=reviewer, reason="Say more.", at=at)
    (one,) = standing(applicant).json()["requests"]
    assert (one["words"], one["reason"], one["place"]) == ("returned to you", "Say more.", None)


def test_a_grant_says_until_when_or_why_not(standing, grant, applicant, reviewer):
    from django.utils.timezone import now

    (one,) = standing(applicant).json()["grants"]
    assert (one["open"], one["checkpoint"]) == (True, "llama/7b@1")
    decisions.revoke(grant, by=reviewer, reason="Lost.", at=now())
    (one,) = standing(applicant).json()["grants"]
    assert not one["open"] and "Lost." in one["reason"]


def test_a_token_tells_of_its_person_and_its_checkpoint_only(standing, grant, applicant, stranger):
    told = standing(stranger).json()
    assert told == {"person": stranger.email, "requests": [], "grants": []}
    assert standing(applicant, checkpoint="llama/7b@2").json()["grants"] == []


def test_a_token_for_something_else_is_refused(standing, applicant):
    assert standing(applicant, scopes=["verify"]).status_code == 403
    assert standing(applicant, scopes=["download"]).status_code == 200  # it includes reading
