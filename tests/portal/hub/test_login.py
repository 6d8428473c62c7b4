"""A client logs in by the browser of its person, and gets a token for downloading and nothing else."""

import pytest
from django.core.cache import cache
from django.test import Client

from portal.accounts import devices
from portal.accounts.models import ApiToken

CLIENT = "26be6b09-91c5-47da-9861-d2d2bb7a7e36"


@pytest.fixture(autouse=True)
def no_counts():
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def begun(db):
    answer = Client(enforce_csrf_checks=True).post("/oauth/device", {"client_id": CLIENT})
    assert answer.status_code == 200 and answer.headers["Cache-Control"] == "no-store"
    return answer.json()


def ask(begun):
    return Client(enforce_csrf_checks=True).post(
        "/oauth/token",
        {
            "grant_type": devices.GRANT_TYPE,
            "device_code": begun["device_code"],
            "client_id": CLIENT,
        },
    )


def test_a_client_waits_until_its_person_said_yes(client, begun, applicant, at):
    assert begun["user_code"] in begun["verification_uri_complete"]
    waiting = ask(begun)
    assert (waiting.status_code, waiting.json()["error"]) == (400, "authorization_pending")
    question = devices.typed(begun["user_code"], at=at)
    devices.decide(question, user=applicant, approved=True, at=at)
    secret = ask(begun).json()["access_token"]
    said = client.get("/api/whoami-v2", headers={"Authorization": f"Bearer {secret}"}).json()
    assert said["name"] == "applicant@uni.example"
    assert ApiToken.objects.get().scopes == ["download"]
    assert ask(begun).json()["error"] == "invalid_grant"


def test_a_client_is_told_that_its_person_said_no(begun, applicant, at):
    question = devices.typed(begun["user_code"], at=at)
    devices.decide(question, user=applicant, approved=False, at=at)
    assert ask(begun).json()["error"] == "access_denied"
    assert not ApiToken.objects.exists()


def test_there_is_nothing_to_refresh(client, db):
    answer = client.post("/oauth/token", {"grant_type": "refresh_token", "refresh_token": "x"})
    assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_grant_type")


def test_who_asks_for_codes_too_often_is_told_when_to_come_back(client, db):
    for _ in range(11):
        answer = client.post("/oauth/device", {"client_id": CLIENT})
    assert answer.status_code == 429 and int(answer.headers["Retry-After"]) > 0
