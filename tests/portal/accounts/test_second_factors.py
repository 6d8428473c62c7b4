"""Second factors and sessions, by the arithmetic of RFC 6238."""

import base64
import hmac
import re
import struct
import time

import pytest
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.core.cache import cache
from django.test import Client

from portal.accounts import sessions
from portal.audit.models import Event
from tests.conftest import sign_in

SECRET = re.compile(r'<pre class="command" tabindex="0">([A-Z2-7]{16,})</pre>')


def code_of(secret: str, at: float) -> str:
    """Return the six digits for ``secret`` at ``at``: RFC 6238, with RFC 4226's truncation."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    mac = hmac.digest(key, struct.pack(">Q", int(at) // 30), "sha1")
    offset = mac[-1] & 15
    number = struct.unpack(">I", mac[offset : offset + 4])[0] & 0x7FFFFFFF
    return f"{number % 10**6:06}"


def test_the_arithmetic_is_that_of_the_rfc():
    secret = base64.b32encode(b"12345678901234567890").decode()
    assert [code_of(secret, at) for at in (59, 1111111109, 2000000000)] == [
        "287082",
        "081804",
        "279037",
    ]


def enrol(client):
    """Set an authenticator app up; return its secret and the recovery codes shown."""
    secret = SECRET.search(client.get("/account/2fa/totp/activate/").text).group(1)
    answer = client.post("/account/2fa/totp/activate/", {"code": code_of(secret, time.time())})
    assert answer.status_code == 302, answer.text
    shown = client.get("/account/2fa/recovery-codes/").text
    cache.clear()  # a code is good once; the next may be asked within the same half minute
    return secret, re.findall(r"^(?:.*>)?(\d{8})$", shown, re.M)


@pytest.fixture
def enrolled(applicant):
    client = Client()
    sign_in(client, applicant)
    return enrol(client)


def test_a_password_alone_opens_nothing_once_there_is_a_second_factor(client, applicant, enrolled):
    secret, _ = enrolled
    assert sign_in(client, applicant).url == "/account/2fa/authenticate/"
    assert client.get("/access/").status_code == 302
    assert client.post("/account/2fa/authenticate/", {"code": "000000"}).status_code == 200
    assert client.get("/access/").status_code == 302
    client.post("/account/2fa/authenticate/", {"code": code_of(secret, time.time())})
    assert client.get("/access/").status_code == 200


def test_a_code_is_good_once(client, applicant, enrolled):
    secret, _ = enrolled
    code = code_of(secret, time.time())
    sign_in(client, applicant)
    client.post("/account/2fa/authenticate/", {"code": code})
    other = Client()
    sign_in(other, applicant)
    other.post("/account/2fa/authenticate/", {"code": code})
    assert other.get("/access/").status_code == 302


def test_a_recovery_code_signs_in_once(applicant, enrolled):
    _, codes = enrolled
    assert len(codes) == 10
    seen = []
    for _ in range(2):
        client = Client()
        sign_in(client, applicant)
        client.post("/account/2fa/authenticate/", {"code": codes[0]})
        seen.append(client.get("/access/").status_code)
    assert seen == [200, 302]


def test_no_secret_of_a_factor_lies_readable_in_the_database(enrolled):
    secret, codes = enrolled
    for row in Authenticator.objects.all():
        assert secret not in str(row.data)
        assert not any(code in str(row.data) for code in codes)
    totp = Authenticator.objects.get(type="totp")
    assert totp.wrap().validate_code(code_of(secret, time.time()))


def test_what_is_sensitive_asks_again_who_it_is(client, applicant):
    client.force_login(applicant)  # a session that proved nothing lately
    form = {"name": "x", "scopes": ["read"], "days": 1}
    answer = client.post("/account/tokens/", form)
    assert answer.url.startswith("/account/reauthenticate/") and not applicant.tokens.exists()
    assert client.get("/account/2fa/totp/activate/").url.startswith("/account/reauthenticate/")
    resumed = client.post(answer.url, {"password": "weighbridge-test", "next": "/account/tokens/"})
    assert resumed.status_code == 200 and applicant.tokens.exists()


def test_who_signed_in_minutes_ago_is_not_asked_again_but_later_is(client, applicant, monkeypatch):
    sign_in(client, applicant)
    assert client.get("/account/2fa/totp/activate/").status_code == 200
    later = time.time() + sessions.FRESH_SECONDS
    monkeypatch.setattr(sessions.time, "time", lambda: later)
    assert client.get("/account/2fa/totp/activate/").status_code == 302


# -- staff ------------------------------------------------------------------------------------
@pytest.fixture
def strict(settings):
    settings.STAFF_MFA = True


def test_staff_pages_ask_for_a_second_factor(client, reviewer, strict):
    assert client.get("/admin/").url.startswith("/admin/login/")
    assert client.get("/admin/login/?next=/admin/").url.startswith("/account/login/")
    sign_in(client, reviewer)
    assert client.get("/admin/").url == "/account/2fa/"
    assert "need a second factor" in client.get("/account/2fa/").text
    secret, _ = enrol(client)
    answer = client.get("/admin/access/accessrequest/")
    assert answer.url == "/account/2fa/reauthenticate/?next=%2Fadmin%2Faccess%2Faccessrequest%2F"
    answer = client.post(answer.url, {"code": code_of(secret, time.time())})
    assert client.get("/admin/access/accessrequest/").status_code == 200


def test_signing_in_with_a_second_factor_opens_staff_pages(client, reviewer, strict):
    other = Client()
    sign_in(other, reviewer)
    secret, _ = enrol(other)
    sign_in(client, reviewer)
    assert client.get("/admin/").status_code == 302
    client.post("/account/2fa/authenticate/", {"code": code_of(secret, time.time())})
    assert client.get("/admin/").status_code == 200
    assert client.post("/admin/logout/").status_code == 200


def test_the_admins_own_sign_in_takes_nobody_with_a_second_factor(client, reviewer):
    words = {"username": reviewer.email, "password": "weighbridge-test"}
    assert client.post("/admin/login/", words).status_code == 302
    own = Client()
    sign_in(own, reviewer)
    enrol(own)
    other = Client()
    page = other.post("/admin/login/", words)
    assert "second factor" in page.text and other.get("/admin/").status_code == 302


def test_a_session_of_staff_ends_after_eight_hours(client, reviewer, applicant, monkeypatch):
    sign_in(client, reviewer)
    other = Client()
    sign_in(other, applicant)
    began = time.time()
    for one in (client, other):
        assert one.get("/access/").status_code == 200
    monkeypatch.setattr(sessions.time, "time", lambda: began + 8 * 3600 + 60)
    assert client.get("/access/").url == "/account/login/?next=/access/"
    assert client.get("/access/").status_code == 302
    assert other.get("/access/").status_code == 200


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({}, False),
        ({"WEIGHBRIDGE_URL": "https://portal.example"}, True),
        ({"WEIGHBRIDGE_DATABASE_URL": "postgres://u@127.0.0.1/x"}, True),
        ({"WEIGHBRIDGE_URL": "https://portal.example", "WEIGHBRIDGE_STAFF_MFA": "0"}, False),
        ({"WEIGHBRIDGE_STAFF_MFA": "1"}, True),
    ],
)
def test_staff_need_a_second_factor_everywhere_but_on_a_portal_that_is_tried_out(variables, asked):
    import os
    import subprocess
    import sys

    kept = {k: v for k, v in os.environ.items() if not k.startswith("WEIGHBRIDGE_")}
    done = subprocess.run(
        [sys.executable, "-c", "from portal.settings import STAFF_MFA; print(STAFF_MFA)"],
        env=kept | variables,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(asked), done.stderr


# -- sessions ---------------------------------------------------------------------------------
def test_a_session_is_listed_and_ended_from_another(client, applicant):
    other = Client(headers={"User-Agent": "A browser in a library"})
    for one in (client, other):
        sign_in(one, applicant)
    page = client.get("/account/sessions/").text
    assert "A browser in a library" in page and page.count("this one") == 1
    theirs = UserSession.objects.get(user_agent="A browser in a library")
    client.post(f"/account/sessions/{theirs.pk}/end/")
    assert other.get("/access/").status_code == 302 and client.get("/access/").status_code == 200
    assert Event.objects.filter(action="sessions.ended", subject=applicant.actor).exists()


def test_signing_out_everywhere_else_leaves_this_session(client, applicant):
    others = [Client(), Client()]
    for one in (client, *others):
        sign_in(one, applicant)
    client.post("/account/sessions/end-others/")
    assert [one.get("/access/").status_code for one in others] == [302, 302]
    assert client.get("/access/").status_code == 200


def test_signing_in_to_the_admin_is_a_session_too(client, reviewer):
    words = {"username": reviewer.email, "password": "weighbridge-test"}
    client.post("/admin/login/", words)
    assert "this one" in client.get("/account/sessions/").text


def test_when_a_session_was_seen_last_is_noted_every_five_minutes(client, applicant, monkeypatch):
    sign_in(client, applicant)
    first = UserSession.objects.get().last_seen_at
    client.get("/access/")
    assert UserSession.objects.get().last_seen_at == first
    later = time.time() + sessions.SEEN_NOTED_EVERY
    monkeypatch.setattr(sessions.time, "time", lambda: later)
    client.get("/access/")
    assert UserSession.objects.get().last_seen_at > first


def test_nobody_ends_a_strangers_session(client, applicant, stranger):
    sign_in(Client(), applicant)
    theirs = UserSession.objects.get(user=applicant)
    sign_in(client, stranger)
    assert client.post(f"/account/sessions/{theirs.pk}/end/").status_code == 404
    assert UserSession.objects.filter(user=applicant).exists()
