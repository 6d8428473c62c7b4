"""Post mail with the change that it tells of, and send what is due."""

import logging
from datetime import datetime, timedelta
from smtplib import SMTPException
from typing import Any

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.mail import send_mail
from django.db import connection, transaction
from django.utils.timezone import now

from portal.outbox.models import Message

log = logging.getLogger(__name__)
# How long one attempt may take before another process takes the message over.
CLAIM = timedelta(minutes=2)
FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(hours=6)


def post(
    to: AbstractBaseUser | None,
    *,
    kind: str,
    about: str,
    subject: str,
    body: str,
    at: datetime,
    address: str = "",
    private: bool = False,
) -> Message:
    """Put a mail into the outbox, inside the transaction of what it tells of.

    It goes to ``address`` where that is given, which need not be anybody's here. ``private`` says
    that the text holds a link that opens something.

    Where mail is a file or a console it is sent as soon as the transaction is committed, so that
    the embedded default needs no worker for it; otherwise the worker sends it.
    """
    if not connection.in_atomic_block:
        raise RuntimeError(f"“{kind}” was to be posted outside the transaction it tells of.")
    message = Message.objects.create(
        to_id=to.pk if to else None,
        address=address,
        kind=kind,
        about=about,
        subject=subject[:200],
        body=body,
        private=private,
        created_at=at,
        next_try_at=at,
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
        send_mail(message.subject, message.body, settings.DEFAULT_FROM_EMAIL, [message.recipient])
    except (OSError, SMTPException) as error:
        # The address and the text stay out of the log; the row says which message it is.
        log.warning("message %s was not sent: %s", message.pk, type(error).__name__)
        what: dict[str, Any] = {"error": f"{type(error).__name__}: {error}"[:300]}
        if message.attempts + 1 >= Message.ATTEMPTS:
            what |= _forgotten(message)
        Message.objects.filter(pk=message.pk).update(**what)
        return False
    Message.objects.filter(pk=message.pk).update(sent_at=at, error="", **_forgotten(message))
    return True


def _forgotten(message: Message) -> dict[str, Any]:
    """Return what a private message loses when nobody will send it any more."""
    if not message.private:
        return {}
    return {"body": "", "address": "" if message.to_id else message.address}
