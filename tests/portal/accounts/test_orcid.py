"""ORCID at a loopback address that answers in ORCID's published shapes."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from portal.accounts import evidence, orcid
from portal.accounts.models import IdentityEvidence, User
from tests.conftest import sign_in

ID = "0000-0002-1825-0097"  # the iD that ORCID's own documentation uses
# the part of /v3.0/{iD}/record that is read, as ORCID's schema 3.0 writes it
RECORD = {
    "orcid-identifier": {"uri": f"https://orcid.org/{ID}", "path": ID, "host": "orcid.org"},
    "person": {
        "name": {
            "given-names": {"value": "Josiah"},
            "family-name": {"value": "Carberry"},
            "credit-name": None,
            "visibility": "public",
            "path": ID,
        },
        "emails": {"email": [], "path": f"/{ID}/email"},
    },
    "activities-summary": {
        "employments": {
            "affiliation-group": [
                {
                    "summaries": [
                        {
                            "employment-summary": {
                                "organization": {"name": "Brown University"},
                                "role-title": "Professor of Psychoceramics",
                                "end-date": None,
                            }
                        }
                    ]
                }
            ]
        },
        "works": {"group": [{"work-summary": [{}]}, {"work-summary": [{}, {}]}]},
    },
}
TOKEN = {
    "access_token": "f5af9f51-07e6-4332-8f1a-c0c11c1e3728",
    "token_type": "bearer",
    "refresh_token": "f725f747-3a65-49f6-a231-3e8944ce464d",
    "expires_in": 631138518,
    "scope": "/authenticate",
    "name": "Josiah Carberry",
    "orcid": ID,
}


class Orcid(BaseHTTPRequestHandler):
    token, record = TOKEN, RECORD

    def do_GET(self):
        place = urlsplit(self.path)
        if place.path == "/oauth/authorize":
            asked = {name: value for name, (value,) in parse_qs(place.query).items()}
            assert asked["scope"] == "/authenticate" and asked["response_type"] == "code"
            self.send_response(302)
            self.send_header(
                "Location", f"{asked['redirect_uri']}?code=Q70Y3A&state={asked['state']}"
            )
            self.end_headers()
            return
        assert place.path == f"/v3.0/{ID}/record"
        assert self.headers["Accept"] == "application/orcid+json"
        self.answer(self.record)

    def do_POST(self):
        sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
        assert self.path == "/oauth/token" and "code=Q70Y3A" in sent
        self.answer(self.token)

    def answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/orcid+json;charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def service(settings):
    """ORCID's place, and the portal told to ask there."""
    handler = type("Handler", (Orcid,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        settings.ORCID_URL = settings.ORCID_API_URL = f"http://127.0.0.1:{server.server_port}"
        settings.SOCIALACCOUNT_PROVIDERS = {
            "openid_connect": {"APPS": []},
            "orcid": {"APP": {"client_id": "APP-TEST", "secret": "s"}},
        }
        yield handler
        server.shutdown()
        thread.join()


def go(client, process):
    """Go to ORCID and come back, as a browser does; return the portal's last answer."""
    import requests

    away = client.post(f"/account/elsewhere/orcid/login/?process={process}")
    assert away.status_code == 302, away.text
    back = requests.get(away.url, allow_redirects=False, timeout=5).headers["Location"]
    return client.get(back.replace("http://testserver", ""))


def test_an_orcid_id_is_evidence_with_its_works_and_employment(client, applicant, service):
    sign_in(client, applicant)
    assert go(client, "connect").url == "/account/identity/"
    (known,) = evidence.of(applicant)
    assert (known.kind, known.value, known.by) == ("orcid", ID, "system")
    assert known.note == "Josiah Carberry, 2 works, Brown University"
    assert known.source.startswith("ORCID, http://127.0.0.1:") and known.expires_at is not None
    page = client.get("/account/identity/").text
    assert ID in page and "Brown University" in page


def test_what_is_disconnected_is_evidence_no_more(client, applicant, service):
    sign_in(client, applicant)
    go(client, "connect")
    account = applicant.socialaccount_set.get()
    assert set(account.extra_data) == {"orcid", "name", "works", "employment"}
    client.post("/account/elsewhere/", {"account": account.pk})
    assert evidence.of(applicant) == [] and IdentityEvidence.objects.count() == 1


def test_an_id_belongs_to_one_person(client, applicant, stranger, service):
    sign_in(client, applicant)
    go(client, "connect")
    from django.test import Client

    other = Client()
    sign_in(other, stranger)
    assert "already connected" in other.get(go(other, "connect").url).text
    assert evidence.of(stranger) == []


def test_who_signs_up_with_orcid_names_an_address_and_confirms_it(client, db, service):
    assert go(client, "login").url == "/account/elsewhere/signup/"
    client.post("/account/elsewhere/signup/", {"email": "josiah@brown.example"})
    user = User.objects.get()
    assert (user.email, user.name) == ("josiah@brown.example", "Josiah Carberry")
    assert user.messages.get().kind == "account.email_confirmation_signup"
    assert {one.kind for one in evidence.of(user)} == {"orcid"}
    assert client.get("/access/").status_code == 302


@pytest.mark.parametrize("wrong", ["", "0000-0002-1825-0098", "../../etc/passwd", 7])
def test_an_answer_without_an_id_that_holds_is_refused(client, applicant, service, wrong):
    service.token = TOKEN | {"orcid": wrong}
    sign_in(client, applicant)
    answer = go(client, "connect")
    assert "did not work" in answer.text
    assert not applicant.socialaccount_set.exists() and not IdentityEvidence.objects.exists()


@pytest.mark.parametrize("record", [{}, {"person": None}, {"activities-summary": {"works": 3}}, []])
def test_a_record_that_says_little_is_read_as_little(record):
    assert orcid.summary_of(record) == {"name": "", "works": 0, "employment": ""}


@pytest.mark.parametrize(
    ("text", "holds"),
    [("0000-0002-1825-0097", True), ("0000-0002-1694-233X", True), ("0000-0002-1825-009X", False)]
    + [("0000000218250097", False), ("0000-0002-1825-00970", False)],
)
def test_the_check_digit_is_that_of_iso_7064(text, holds):
    assert orcid.has_check_digit(text) is holds
