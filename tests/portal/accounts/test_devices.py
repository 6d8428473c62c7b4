"""RFC 8628: a command gets a token once a person has said yes, and not before."""

import re
from datetime import timedelta

import pytest
from django.utils.timezone import now

from portal.accounts import devices, tokens
from portal.accounts.models import ApiToken, DeviceCode
from portal.audit.models import Event
from tests.conftest import sign_in


def begin(client, **more):
    sent = {"client_id": "weighbridge on cluster-3", "scope": "read download"} | more
    return client.post("/api/v1/device/code", sent)


def ask(client, begun, **more):
    sent = {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": begun["device_code"],
        "client_id": "weighbridge on cluster-3",
    }
    return client.post("/api/v1/device/token", sent | more)


def error_of(answer):
    assert answer.status_code == 400 and answer.headers["Cache-Control"] == "no-store"
    return answer.json()["error"]


@pytest.fixture
def begun(client, db):
    return begin(client).json()


def pass_time(seconds):
    """Let a code be ``seconds`` older than it is."""
    for row in DeviceCode.objects.all():
        row.asked_at -= timedelta(seconds=seconds)
        row.expires_at -= timedelta(seconds=seconds)
        row.polled_at = row.polled_at and row.polled_at - timedelta(seconds=seconds)
        row.save()


def test_a_code_comes_with_what_the_rfc_names(begun):
    assert re.fullmatch(r"[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}", begun["user_code"])
    assert begun["verification_uri"].endswith("/device/")
    assert begun["verification_uri_complete"].endswith(f"/device/?code={begun['user_code']}")
    assert (begun["expires_in"], begun["interval"]) == (600, 5)


def test_a_person_sees_what_would_be_given_says_yes_and_the_command_gets_it_once(
    client, begun, applicant
):
    assert error_of(ask(client, begun)) == "authorization_pending"
    sign_in(client, applicant)
    page = client.post("/device/", {"code": begun["user_code"].lower().replace("-", " ")})
    for words in ("weighbridge on cluster-3", "127.0.0.1", "download checkpoints", applicant.email):
        assert words in page.text
    assert not ApiToken.objects.exists()
    client.post("/device/", {"code": begun["user_code"], "answer": "approve"})
    given = ask(client, begun)
    assert given.status_code == 200 and given.headers["Cache-Control"] == "no-store"
    told = given.json()
    assert (told["token_type"], told["scope"]) == ("Bearer", "download read")
    token = tokens.authenticate(told["access_token"], scope="download", at=now())
    assert token.user == applicant and (token.expires_at - token.created_at).days == 90
    assert error_of(ask(client, begun)) == "invalid_grant"
    assert ApiToken.objects.count() == 1
    assert Event.objects.filter(action="device.approved", actor=applicant.actor).exists()


def test_a_no_is_told_and_gives_nothing(client, begun, applicant):
    sign_in(client, applicant)
    client.post("/device/", {"code": begun["user_code"], "answer": "deny"})
    assert error_of(ask(client, begun)) == "access_denied"
    assert "not known or has ended" in client.post("/device/", {"code": begun["user_code"]}).text
    assert not ApiToken.objects.exists()


def test_who_asks_too_soon_must_slow_down_each_time_more(client, begun):
    errors = [error_of(ask(client, begun)) for _ in range(3)]
    assert errors == ["authorization_pending", "slow_down", "slow_down"]
    assert DeviceCode.objects.get().interval == 15
    pass_time(14)
    assert error_of(ask(client, begun)) == "slow_down"
    pass_time(20)
    assert error_of(ask(client, begun)) == "authorization_pending"


def test_a_code_ends_after_ten_minutes_for_both(client, begun, applicant):
    pass_time(600)
    assert error_of(ask(client, begun)) == "expired_token"
    sign_in(client, applicant)
    assert "has ended" in client.post("/device/", {"code": begun["user_code"]}).text


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"device_code": "x"}, "invalid_grant"),
        ({"device_code": ""}, "invalid_grant"),
        ({"client_id": "another"}, "invalid_grant"),
    ],
)
def test_a_wrong_question_for_a_token_is_named_as_the_rfc_does(client, begun, wrong, error):
    assert error_of(ask(client, begun, **wrong)) == error


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"client_id": ""}, "invalid_request"),
        ({"client_id": "<b>x</b>"}, "invalid_request"),
        ({"client_id": "x" * 61}, "invalid_request"),
        ({"scope": "everything"}, "invalid_scope"),
        ({"scope": " "}, "invalid_scope"),
    ],
)
def test_a_wrong_beginning_is_named_as_the_rfc_does(client, db, wrong, error):
    assert error_of(begin(client, **wrong)) == error


def test_neither_code_lies_in_the_database_and_neither_could_be_guessed_from_it(begun):
    import hashlib

    row = str(vars(DeviceCode.objects.get()))
    letters = begun["user_code"].replace("-", "")
    for code in (begun["device_code"], letters, begun["user_code"]):
        assert code not in row and hashlib.sha256(code.encode()).hexdigest() not in row


def test_beginnings_and_guesses_are_limited(client, applicant):
    assert [begin(client).status_code for _ in range(11)] == [200] * 10 + [429]
    sign_in(client, applicant)
    pages = [client.post("/device/", {"code": "BCDF-GHJK"}).text for _ in range(11)]
    assert "not known" in pages[9] and "too often" in pages[10]


def test_the_page_asks_who_it_is_before_it_gives_anything(client, begun, applicant):
    client.force_login(applicant)
    answer = client.post("/device/", {"code": begun["user_code"], "answer": "approve"})
    assert answer.url.startswith("/account/reauthenticate/")
    assert error_of(ask(client, begun)) == "authorization_pending"


def test_of_two_answers_the_first_counts(client, begun, applicant, stranger, at):
    question = devices.typed(begun["user_code"], at=now())
    devices.decide(question, user=stranger, approved=False, at=now())
    with pytest.raises(devices.CodeError, match="answered"):
        devices.decide(question, user=applicant, approved=True, at=now())
    assert error_of(ask(client, begun)) == "access_denied"


def test_old_codes_are_swept(client, begun):
    pass_time(2 * 86400)
    begin(client)
    assert DeviceCode.objects.count() == 1
