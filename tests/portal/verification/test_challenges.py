"""Who may draw a challenge, who may answer it, and how often."""

import json
import threading
from datetime import timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connections
from django.utils.timezone import now

from portal.accounts import tokens
from portal.audit.models import Event
from portal.verification import challenges
from portal.verification.challenges import ChallengeError
from portal.verification.models import Challenge, Verification
from tests.conftest import make_person

from .answers import floats, made_up


@pytest.fixture
def published(checkpoint):
    checkpoint.has_reference = True
    checkpoint.save()
    return checkpoint


@pytest.fixture
def challenge(applicant, published, at):
    return challenges.draw(applicant, published, at=at)


def test_each_draw_has_a_seed_of_its_own_and_the_audit_has_none(applicant, published, at):
    drawn = [challenges.draw(applicant, published, at=at) for _ in range(3)]
    assert len({one.seed for one in drawn}) == 3
    told = "".join(event.detail for event in Event.objects.filter(action="challenge.drawn"))
    assert "seed_sha256" in told and not any(one.seed in told for one in drawn)


def test_a_challenge_in_stock_is_drawn_once(applicant, stranger, published, at):
    ready = challenges.stock(published, at=at)
    Challenge.objects.filter(pk=ready.pk).update(official="{}")
    first = challenges.draw(applicant, published, at=at)
    second = challenges.draw(stranger, published, at=at)
    assert (first.pk, first.official) == (ready.pk, "{}")
    assert second.pk != ready.pk


def test_an_address_that_is_not_confirmed_draws_nothing(published, at):
    from portal.accounts.models import User

    with pytest.raises(ChallengeError, match="Confirm"):
        challenges.draw(User.objects.create_user("new@uni.example"), published, at=at)


def test_a_checkpoint_that_cannot_be_run_is_not_asked_about(applicant, checkpoint, at):
    with pytest.raises(ChallengeError, match="verify its files instead"):
        challenges.draw(applicant, checkpoint, at=at)


def test_a_person_draws_so_many_a_day(applicant, published, at, settings):
    settings.CHECKS_PER_DAY = 2
    for _ in range(2):
        challenges.draw(applicant, published, at=at)
    with pytest.raises(ChallengeError, match="2 challenges in 24 hours"):
        challenges.draw(applicant, published, at=at)
    assert challenges.draw(applicant, published, at=at + timedelta(days=1, seconds=1))


def test_an_answer_is_taken_once(challenge, applicant, at):
    check = challenges.answer(challenge, made_up(challenge), by=applicant, at=at)
    assert (check.source, check.status) == ("challenge", "queued")
    challenge.refresh_from_db()
    assert (challenge.answered_at, challenge.verification) == (at, check)
    assert Event.objects.filter(action="challenge.answered", subject=challenge.subject).exists()
    with pytest.raises(ChallengeError, match="answered once; draw another"):
        challenges.answer(challenge, made_up(challenge), by=applicant, at=at)
    assert Verification.objects.count() == 1


def test_an_answer_that_comes_late_is_refused(challenge, applicant):
    with pytest.raises(ChallengeError, match="has expired"):
        challenges.answer(challenge, made_up(challenge), by=applicant, at=challenge.expires_at)
    assert not Verification.objects.exists()


def test_nobody_answers_for_another(challenge, stranger, at):
    with pytest.raises(ChallengeError, match="somebody else"):
        challenges.answer(challenge, made_up(challenge), by=stranger, at=at)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"challenge": "4b0c1f0e-7d53-4a55-9a52-0c9f0f0a8a11"}, "another challenge"),
        ({"sketch": floats(16 * 32, float("nan"))}, "NaN"),
        ({"logits": "x"}, "malformed in logits"),
        ({"more": "x" * (2 << 20)}, "no more than"),
        ({"schema": "weighbridge.reference/1"}, "not of schema"),
    ],
)
def test_what_cannot_be_read_does_not_use_the_challenge_up(challenge, applicant, at, change, why):
    with pytest.raises(ChallengeError, match=why):
        challenges.answer(challenge, made_up(challenge, **change), by=applicant, at=at)
    assert challenges.answer(challenge, made_up(challenge), by=applicant, at=at)


def test_of_two_answers_at_once_one_is_taken(committed_db):
    from portal.catalog.models import Checkpoint
    from portal.catalog.publishing import make_family

    at, person = now(), make_person("holder@uni.example")
    checkpoint = Checkpoint.objects.create(
        family=make_family("llama", at=at),
        variant="7b",
        version="1",
        statement_sha256="0" * 64,
        signed_by="0" * 64,
        has_reference=True,
        published_at=at,
        published_by="command:publish",
    )
    drawn = challenges.draw(person, checkpoint, at=at)
    together, outcomes = threading.Barrier(2), []

    def send():
        seen = Challenge.objects.select_related("checkpoint__family").get(pk=drawn.pk)
        together.wait()
        try:
            outcomes.append(challenges.answer(seen, made_up(seen), by=person, at=at))
        except ChallengeError as error:
            outcomes.append(str(error))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (refused,) = [one for one in outcomes if isinstance(one, str)]
    assert "answered once" in refused
    (taken,) = Verification.objects.all()
    assert Challenge.objects.get(pk=drawn.pk).verification == taken
    assert Event.objects.filter(action="challenge.answered").count() == 1


def test_the_pages_lead_from_the_draw_to_the_check(client, applicant, published):
    client.force_login(applicant)
    answered = client.post("/challenges/", {"checkpoint": published.pk})
    place = answered.headers["Location"]
    page = client.get(place).content.decode()
    assert "--challenge challenge.json &gt; answer.json" in page and "proof of possession" in page
    drawn = Challenge.objects.get()
    file = client.get(f"{place}challenge.json")
    assert file.headers["Cache-Control"] == "no-store"
    assert json.loads(file.content)["seed"] == drawn.seed
    refused = client.post(place, {"answer": SimpleUploadedFile("a.json", b"{}")})
    assert refused.status_code == 422 and b"not of schema" in refused.content
    sent = client.post(place, {"answer": SimpleUploadedFile("a.json", made_up(drawn))})
    check = Verification.objects.get()
    assert sent.headers["Location"] == check.get_absolute_url()
    assert str(drawn) in client.get("/verifications/").content.decode()
    again = client.post(place, {"answer": SimpleUploadedFile("a.json", made_up(drawn))})
    assert again.status_code == 409 and b"answered once" in again.content


def test_a_late_page_says_so(client, applicant, challenge):
    Challenge.objects.filter(pk=challenge.pk).update(expires_at=now() - timedelta(seconds=1))
    client.force_login(applicant)
    assert b"without an answer" in client.get(challenge.get_absolute_url()).content


@pytest.fixture
def call(client, applicant, at):
    """Call the API with a token of the applicant's."""

    def post(place, body, *, scope="verify"):
        _, secret = tokens.make(applicant, scopes=[scope], by="tests", at=at)
        return client.post(
            f"/api/v1{place}",
            body,
            content_type="application/json",
            headers={"Authorization": f"Bearer {secret}"},
        )

    return post


def test_the_api_draws_and_answers(call, published):
    drawn = call("/challenges", {"checkpoint": published.name})
    assert drawn.status_code == 201 and drawn.json()["schema"] == "weighbridge.challenge/1"
    challenge = Challenge.objects.get()
    assert drawn.json()["seed"] == challenge.seed
    place = f"/challenges/{challenge.pk}/answer"
    answered = call(place, made_up(challenge))
    assert (answered.status_code, answered.json()["status"]) == (202, "queued")
    again = call(place, made_up(challenge))
    assert (again.status_code, again.headers["Content-Type"]) == (409, "application/problem+json")


@pytest.mark.parametrize(
    ("place", "body", "status"),
    [
        ("/challenges", {"checkpoint": "llama/none@1"}, 404),
        ("/challenges", {}, 422),
        ("/challenges/4b0c1f0e-7d53-4a55-9a52-0c9f0f0a8a11/answer", b"{}", 404),
        ("/challenges/4b0c1f0e-7d53-4a55-9a52-0c9f0f0a8a11/answer", b"x" * (2 << 20) + b"x", 413),
    ],
)
def test_the_api_refuses_with_a_problem(call, published, place, body, status):
    answer = call(place, body)
    assert answer.status_code == status and answer.json()["detail"]


def test_the_api_needs_the_scope_verify(call, published):
    assert call("/challenges", {"checkpoint": published.name}, scope="download").status_code == 403
