"""Every mail of an account is a row of the outbox, written with what it tells of."""

import re
from datetime import timedelta

import pytest
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.db import transaction
from django.utils.timezone import now

from portal.accounts.models import User
from portal.outbox import sending
from portal.outbox.models import Message

WORD = "a-long-password-7"
SIGN_UP = {"email": "new@uni.example", "password1": WORD, "password2": WORD}


@pytest.fixture
def down(settings, monkeypatch):
    """A mail server that is not there."""
    settings.MAIL_IS_LOCAL = False

    def refuse(self, messages):
        raise ConnectionRefusedError("nobody listens")

    monkeypatch.setattr(EmailBackend, "send_messages", refuse)


def test_signing_up_while_the_mail_server_is_down_loses_nothing(client, db, down, monkeypatch):
    assert client.post("/account/signup/", SIGN_UP).status_code == 302
    assert sending.send_due(now()) == 0
    monkeypatch.undo()
    assert sending.send_due(now() + timedelta(hours=1)) == 1
    (sent,) = mail.outbox
    assert sent.to == ["new@uni.example"]
    link = re.search(r"http://\S+/account/confirm-email/\S+/", sent.body).group()
    client.post(link.replace("http://testserver", ""))
    assert User.objects.get().evidence.filter(kind="email").exists()


def test_no_account_is_made_without_its_mail(client, db, monkeypatch):
    def full(*arguments, **named):
        raise OSError("the disk is full")

    monkeypatch.setattr("portal.accounts.adapter.post", full)
    client.raise_request_exception = False
    assert client.post("/account/signup/", SIGN_UP).status_code == 500
    assert not User.objects.exists()


@pytest.mark.parametrize(
    ("place", "sent", "kind"),
    [
        ("/account/password/reset/", {"email": "applicant@uni.example"}, "password_reset_key"),
        ("/account/password/reset/", {"email": "nobody@uni.example"}, "unknown_account"),
        ("/account/signup/", SIGN_UP | {"email": "applicant@uni.example"}, "account_already"),
    ],
)
def test_each_mail_of_an_account_lies_in_the_outbox(client, applicant, place, sent, kind):
    client.post(place, sent)
    message = Message.objects.get()
    assert kind in message.kind and message.recipient == sent["email"]
    assert mail.outbox == []  # it waits for the commit, which a test's transaction never reaches


def test_a_link_that_opens_something_is_kept_no_longer_than_needed(client, applicant, settings):
    settings.MAIL_IS_LOCAL = False
    client.post("/account/password/reset/", {"email": applicant.email})
    assert "/account/password/reset/key/" in Message.objects.get().body
    sending.send_due(now())
    assert Message.objects.get().body == ""
    assert "/account/password/reset/key/" in mail.outbox[0].body


def test_a_changed_password_is_told_to_its_owner(client, applicant):
    client.force_login(applicant)
    words = {"oldpassword": "weighbridge-test", "password1": WORD, "password2": WORD}
    client.post("/account/password/change/", words)
    assert "password_changed" in Message.objects.get(to=applicant).kind


def test_a_message_to_nobody_is_refused_by_the_database(db, at):
    from django.db import IntegrityError

    with pytest.raises(IntegrityError), transaction.atomic():
        sending.post(None, kind="t", about="x:1", subject="S", body="B", at=at)
