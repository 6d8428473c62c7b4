from datetime import timedelta

import pytest
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.db import transaction

from portal.outbox import sending
from portal.outbox.models import Message


@pytest.fixture
def message(applicant, at, settings):
    settings.MAIL_IS_LOCAL = False
    with transaction.atomic():
        return sending.post(
            applicant, kind="test", about="request:1", subject="Hello", body="Text", at=at
        )


def test_a_message_is_sent_once(message, at):
    assert sending.send_due(at) == 1
    assert sending.send_due(at + timedelta(days=1)) == 0
    assert [sent.to for sent in mail.outbox] == [["applicant@uni.example"]]


def test_a_message_that_fails_is_tried_again_later_and_says_why(message, at, monkeypatch):
    def refuse(self, messages):
        raise ConnectionRefusedError("nobody listens")

    with monkeypatch.context() as broken:
        broken.setattr(EmailBackend, "send_messages", refuse)
        assert sending.send_due(at) == 0
    message.refresh_from_db()
    assert "nobody listens" in message.error
    assert sending.send_due(at + timedelta(seconds=10)) == 0
    assert sending.send_due(at + timedelta(minutes=3)) == 1


def test_a_message_is_given_up_after_its_last_attempt(message, at):
    Message.objects.update(attempts=Message.ATTEMPTS)
    assert sending.send_due(at + timedelta(days=9)) == 0


def test_two_senders_send_one_mail(message, at):
    other = Message.objects.get()
    assert sending.send(message, at=at)
    assert not sending.send(other, at=at)
    assert len(mail.outbox) == 1


def test_a_mail_waits_for_the_transaction_it_tells_of(committed_db, at):
    from tests.conftest import make_person

    person = make_person("a@uni.example")
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        sending.post(person, kind="t", about="x:1", subject="S", body="B", at=at)
        raise ZeroDivisionError
    assert mail.outbox == [] and not Message.objects.exists()
    with pytest.raises(RuntimeError, match="outside"):
        sending.post(person, kind="t", about="x:1", subject="S", body="B", at=at)
