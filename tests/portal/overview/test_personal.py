"""Everything of mine is given to me; deleted, nothing of me is left but what the audit must keep."""

import io
import json
import zipfile

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.core import mail
from django.db import connection

from portal.access import policy
from portal.accounts import people, referrals, tokens
from portal.accounts.models import User
from portal.audit import chain
from portal.audit.models import Event
from portal.delivery.issuing import IssueError, issue
from portal.delivery.models import Download
from portal.outbox import sending
from portal.outbox.models import Message as Mail
from portal.overview import personal
from portal.storage.stores import store
from portal.verification.models import Verification
from tests.conftest import sign_in

# what a person brought here, in words that occur nowhere else
TRACES = [
    "applicant@uni.example",
    "Zelda Unusual",
    "Institute of Rare Words",
    "prof.rare@uni.example",
]
TRACES += [
    "rare-file.pdf",
    "Rare message",
    "Rare appeal",
    "203.0.113.77",
    "RareAgent/9",
    "rare-host.example",
    "rare token",
    "Rare praise",
]


@pytest.fixture
def lived(grant, application, applicant, checkpoint, operator, at):
    """An applicant who has left a trace in every app."""
    from portal.access.models import Acceptance, AccessRequest, Appeal, Attachment, Message

    people.confirm_address(
        applicant, applicant.email, source="link", by="x", asserted_by="system", at=at
    )
    people.describe(applicant, name="Zelda Unusual", affiliation="Institute of Rare Words", at=at)
    LogEntry.objects.log_actions(operator.pk, User.objects.filter(pk=applicant.pk), CHANGE)
    asked = referrals.ask(
        applicant, name="Prof", address="prof.rare@uni.example", relation="supervisor", at=at
    )
    referrals.answer(asked, confirmed=True, words="Rare praise", words_open=False, at=at)
    AccessRequest.objects.update(answers={"name": "Zelda Unusual"})
    key = f"attachments/{application.pk}/rare"
    store().put_bytes(key, b"%PDF-rare")
    Attachment.objects.create(
        request=application, question="plan", name="rare-file.pdf", size=9, sha256="0" * 64,
        media_type="application/pdf", store_key=key, added_at=at,
    )  # fmt: skip
    Message.objects.create(
        request=application, by=applicant, from_reviewer=False, body="Rare message", at=at
    )
    Appeal.objects.create(decision=grant.decision, reason="Rare appeal", at=at)
    Acceptance.objects.update(address="203.0.113.77", agent="RareAgent/9")
    token, _ = tokens.make(applicant, scopes=["download"], by="x", at=at, name="rare token")
    Verification.objects.create(
        asked_by=applicant, source="urls", what=["https://rare-host.example/"], created_at=at
    )
    Download.objects.create(
        grant=grant, user=applicant, token=token, at=at, expires_at=at,
        address="203.0.113.77", agent="RareAgent/9",
    )  # fmt: skip
    applicant.refresh_from_db()
    yield applicant
    store().delete(key)


def everything_in_the_database():
    """Return every text of every row of every table."""
    with connection.cursor() as cursor:
        told = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            told += [str(row) for row in cursor.fetchall()]
    return "\n".join(told)


def test_everything_of_mine_comes_in_one_zip(client, lived):
    sign_in(client, lived)
    answer = client.post("/account/data/export/")
    archive = zipfile.ZipFile(io.BytesIO(answer.getvalue()))
    told = json.loads(archive.read("weighbridge.json"))
    text = json.dumps(told)
    assert [trace for trace in TRACES if trace not in text] == ["Rare praise"]
    (file,) = [name for name in archive.namelist() if name.startswith("files/")]
    assert file.endswith("rare-file.pdf") and archive.read(file) == b"%PDF-rare"
    assert told["schema"] == "weighbridge.personal/1"
    assert told["access"]["grants"][0]["checkpoint"] == "llama/7b@1"
    assert told["account"]["email"] == lived.email and told["sessions"] and told["audit"]
    assert "digest" not in text and "password" not in json.dumps(told["account"])
    assert Event.objects.filter(action="data.exported", actor=lived.actor).exists()


def test_nothing_of_a_stranger_is_in_it(client, lived, stranger, at):
    text = json.dumps(personal.everything_of(stranger, at=at), default=str)
    assert not [trace for trace in TRACES if trace in text]


def test_after_deletion_no_trace_is_left_and_the_chain_holds(
    lived, application, at, settings, django_capture_on_commit_callbacks
):
    settings.MAIL_IS_LOCAL = False
    before = everything_in_the_database()
    assert [trace for trace in TRACES if trace not in before] == []
    with django_capture_on_commit_callbacks(execute=True):
        personal.delete(lived, at=at)
    assert store().head(f"attachments/{application.pk}/rare") is None
    sending.send_due(at)
    (farewell,) = [m for m in mail.outbox if "is deleted" in m.subject]
    assert farewell.to == ["applicant@uni.example"]
    left = everything_in_the_database()
    assert [trace for trace in TRACES if trace in left] == []
    assert list(chain.breaks()) == []


def test_what_the_audit_must_keep_stays(lived, grant, checkpoint, application, at):
    events = Event.objects.count()
    personal.delete(lived, at=at)
    grant.refresh_from_db()
    assert grant.revoke_reason == "The account was deleted by its person."
    assert grant.grantee == lived and grant.decision.reason == "Sound."
    assert Download.objects.filter(user=lived, grant=grant).exists()
    assert lived.acceptances.get().text_sha256 == checkpoint.family.terms.sha256
    assert Event.objects.count() > events
    actions = set(Event.objects.filter(actor=lived.actor).values_list("action", flat=True))
    assert {"account.deleted", "grant.revoked", "token.revoked"} <= actions


def test_nothing_opens_after_a_deletion(client, lived, checkpoint, at):
    from django.utils.timezone import now

    _, secret = tokens.make(lived, scopes=["download"], by="x", at=at)
    sign_in(client, lived)
    personal.delete(lived, at=now())
    assert client.get("/access/").status_code == 302
    with pytest.raises(tokens.TokenError):
        tokens.authenticate(secret, scope="download", at=now())
    assert not policy.decide(User.objects.get(pk=lived.pk), checkpoint, now()).allowed
    with pytest.raises(IssueError, match="account is closed"):
        issue(lived, checkpoint, at=now())
    assert "login" in sign_in(client, lived).wsgi_request.path


def test_an_open_request_is_withdrawn_and_a_waiting_check_given_up(application, applicant, at):
    check = Verification.objects.create(
        asked_by=applicant, source="urls", what=["https://a.example/"], created_at=at
    )
    personal.delete(applicant, at=at)
    application.refresh_from_db()
    check.refresh_from_db()
    assert (application.status, application.answers) == ("withdrawn", {})
    assert (check.status, check.what) == ("failed", [])


def test_the_last_operator_stays(operator, at):
    with pytest.raises(personal.DeletionError, match="only operator"):
        personal.delete(operator, at=at)
    assert User.objects.get(pk=operator.pk).is_active


def test_the_page_deletes_only_who_types_their_address(client, lived):
    sign_in(client, lived)
    page = client.post("/account/data/", {"email": "yes"})
    assert "This is not your address" in page.text
    assert User.objects.get(pk=lived.pk).is_active
    gone = client.post("/account/data/", {"email": "Applicant@uni.example"}, follow=True)
    assert "Your account is deleted" in gone.text
    assert not User.objects.get(pk=lived.pk).is_active


def test_deleting_and_exporting_ask_again_who_it_is(client, lived):
    client.force_login(lived)
    for place in ("/account/data/", "/account/data/export/"):
        answer = client.post(place, {"email": lived.email})
        assert answer.url.startswith("/account/reauthenticate/")
    assert User.objects.get(pk=lived.pk).is_active


def test_the_address_is_free_again(client, lived, at):
    personal.delete(lived, at=at)
    assert User.objects.create_user("applicant@uni.example").pk != lived.pk
    assert not Mail.objects.filter(to=lived).exclude(kind="account.deleted").exists()
