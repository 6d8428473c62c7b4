"""Post mail with the change that it tells of, and send what is due."""

import logging
from datetime import datetime, timedelta
from smtplib import SMTPException

from django.conf import settings
from django.core.mail import send_mail
from django.db import connection, transaction
from django.utils.timezone import now

from portal.accounts.models import User
from portal.outbox.models import Message

log = logging.getLogger(__name__)
# How long one attempt may take before another process takes the message over.
CLAIM = timedelta(minutes=2)
FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(hours=6)


def post(to: User, *, kind: str, about: str, subject: str, body: str, at: datetime) -> Message:
    """Put a mail into the outbox, inside the transaction of what it tells of.

    Where mail is a file or a console it is sent as soon as the transaction is committed, so that
    the embedded default needs no worker for it; otherwise the worker sends it.
    """
    if not connection.in_atomic_block:
        raise RuntimeError(f"“{kind}” was to be posted outside the transaction it tells of.")
    message = Message.objects.create(
        to=to, kind=kind, about=about, subject=subject, body=body, created_at=at, next_try_at=at
    )
    if settings.MAIL_IS_LOCAL:
        transaction.on_commit(lambda: send(message, at=now()))
    return message


def send_due(at: datetime) -> int:
    """Send every message that is due at ``at``; return how many went out."""
    return sum(send(message, at=at) for message in Message.objects.due(at).order_by("created_at"))


def send(message: Message, *, at: datetime) -> bool:
    """Send ``message`` if nobody else is sending it; on failure it is tried again later."""
    wait = min(FIRST_WAIT * 2**message.attempts, LONGEST_WAIT)
    claimed = (
        Message.objects.due(max(at, message.next_try_at))
        .filter(pk=message.pk, attempts=message.attempts)
        .update(attempts=message.attempts + 1, next_try_at=at + max(wait, CLAIM))
    )
    if not claimed:
        return False
    try:
        send_mail(message.subject, message.body, settings.DEFAULT_FROM_EMAIL, [message.to.email])
    except (OSError, SMTPException) as error:
        # The address and the text stay out of the log; the row says which message it is.
        log.warning("message %s was not sent: %s", message.pk, type(error).__name__)
        Message.objects.filter(pk=message.pk).update(error=f"{type(error).__name__}: {error}"[:300])
        return False
    Message.objects.filter(pk=message.pk).update(sent_at=at, error="")
    return True
