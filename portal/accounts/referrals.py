"""Ask somebody who knows a person: a link by mail, good for two weeks, answered once."""

import hashlib
import secrets
from datetime import datetime, timedelta
from urllib.parse import urlencode

from allauth.account.models import EmailAddress
from django.conf import settings
from django.db import transaction
from django.urls import reverse

from portal.accounts import evidence
from portal.accounts.models import Referral, User
from portal.audit.chain import record
from portal.outbox.sending import post

LASTS = timedelta(days=14)
KEY_BYTES = 32
MOST_WAITING = 3
MOST_IN_A_MONTH = 10
MOST_SENDINGS = 5
BETWEEN_SENDINGS = timedelta(hours=1)


class ReferralError(Exception):
    """A referee cannot be asked, or cannot answer; the message says why and what to do."""


@transaction.atomic
def ask(user: User, *, name: str, address: str, relation: str, at: datetime) -> Referral:
    """Ask ``address`` about ``user``.

    Raises:
        ReferralError: it is the person's own address, was asked already, or they asked too many.
    """
    User.objects.select_for_update().get(pk=user.pk)  # so that two of these count each other
    mine = Referral.objects.filter(user=user)
    own = EmailAddress.objects.filter(user=user, email__iexact=address).exists()
    if own or address.lower() == user.email.lower():
        raise ReferralError("That is your own address; name somebody else.")
    if mine.waiting(at).filter(address__iexact=address).exists():
        raise ReferralError(f"{address} has been asked already; you can send the link again.")
    if mine.waiting(at).count() >= MOST_WAITING:
        raise ReferralError(f"{MOST_WAITING} people have not answered yet; withdraw one first.")
    if mine.filter(asked_at__gt=at - timedelta(days=30)).count() >= MOST_IN_A_MONTH:
        raise ReferralError(
            f"You asked {MOST_IN_A_MONTH} people in a month; write to the operators."
        )
    key = secrets.token_urlsafe(KEY_BYTES)
    referral = Referral.objects.create(
        user=user,
        name=name,
        address=address,
        relation=relation,
        digest=_digest(key),
        asked_at=at,
        sent_at=at,
        expires_at=at + LASTS,
    )
    record("referral.asked", subject=referral.subject, actor=user.actor, at=at, relation=relation)
    _mail(referral, key, at)
    return referral


@transaction.atomic
def resend(referral: Referral, *, at: datetime) -> None:
    """Send a new link, good for two weeks from now; the old one opens nothing any more.

    Raises:
        ReferralError: it was answered or withdrawn, or was sent too lately or too often.
    """
    key = secrets.token_urlsafe(KEY_BYTES)
    changed = Referral.objects.filter(
        pk=referral.pk,
        answered_at=None,
        withdrawn_at=None,
        sent_at__lte=at - BETWEEN_SENDINGS,
        sent_count__lt=MOST_SENDINGS,
    ).update(
        digest=_digest(key),
        sent_at=at,
        sent_count=referral.sent_count + 1,
        expires_at=at + LASTS,
    )
    if not changed:
        raise ReferralError(
            f"A link goes out at most once an hour and {MOST_SENDINGS} times, and not after an "
            "answer; you can name somebody else."
        )
    referral.refresh_from_db()
    record("referral.resent", subject=referral.subject, actor=referral.user.actor, at=at)
    _mail(referral, key, at)


@transaction.atomic
def withdraw(referral: Referral, *, at: datetime) -> None:
    """Take the question back; its link opens nothing any more.

    Raises:
        ReferralError: it was answered or withdrawn before.
    """
    changed = Referral.objects.filter(pk=referral.pk, answered_at=None, withdrawn_at=None).update(
        withdrawn_at=at
    )
    if not changed:
        raise ReferralError("This was answered or withdrawn before; nothing was changed.")
    record("referral.withdrawn", subject=referral.subject, actor=referral.user.actor, at=at)


@transaction.atomic
def replace(
    referral: Referral, *, name: str, address: str, relation: str, at: datetime
) -> Referral:
    """Withdraw one question and ask somebody else, or neither.

    Raises:
        ReferralError: one of the two cannot be.
    """
    withdraw(referral, at=at)
    return ask(referral.user, name=name, address=address, relation=relation, at=at)


def opened_by(key: str, *, at: datetime) -> Referral:
    """Return the referral that the link with ``key`` opens.

    Raises:
        ReferralError: none; the message is for whoever followed the link.
    """
    referral = Referral.objects.filter(digest=_digest(key)).select_related("user").first()
    if referral is None:
        raise ReferralError(
            "This link is not known here; perhaps a newer one was sent to you since."
        )
    sentence = {
        "confirmed": "You have answered this already. Thank you.",
        "declined": "You have answered this already. Thank you.",
        "withdrawn": "This question was taken back; there is nothing to do.",
        "expired": "This link has ended; whoever named you can send a new one.",
        "waiting": "",
    }[referral.state(at)]
    if sentence or not referral.user.is_active:
        raise ReferralError(sentence or "This question was taken back; there is nothing to do.")
    return referral


@transaction.atomic
def answer(
    referral: Referral, *, confirmed: bool, words: str, words_open: bool, at: datetime
) -> None:
    """Keep what a referee says, once; a yes becomes evidence.

    Raises:
        ReferralError: somebody was faster.
    """
    changed = (
        Referral.objects.waiting(at)
        .filter(pk=referral.pk)
        .update(answered_at=at, confirmed=confirmed, words=words, words_open=words_open)
    )
    if not changed:
        raise ReferralError("You have answered this already. Thank you.")
    if confirmed:
        row = evidence.add(
            referral.user,
            evidence.Kind.REFEREE,
            f"{referral.name} <{referral.address}>",
            source=f"{referral.get_relation_display()}, by a link sent by e-mail",
            by=evidence.By(referral.by),
            brought_by=referral.subject,
            at=at,
            expires_at=at + evidence.LASTS,
        )
        Referral.objects.filter(pk=referral.pk, evidence=None).update(evidence=row)
    record(
        "referral.answered",
        subject=referral.subject,
        actor=referral.subject,
        at=at,
        confirmed=confirmed,
    )
    said = "has confirmed that they know you" if confirmed else "answered that they cannot confirm"
    post(
        referral.user,
        kind="referral.answered",
        about=referral.subject,
        subject=f"{referral.name} has answered about you",
        body=(
            f"{referral.name} {said}. What they wrote is for the reviewers"
            f"{', and you may read it too' if words_open and words else ''}.\n\n"
            f"{settings.PUBLIC_URL}{reverse('identity')}\n"
        ),
        at=at,
    )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _mail(referral: Referral, key: str, at: datetime) -> None:
    person = referral.user.name or referral.user.email
    link = f"{settings.PUBLIC_URL}{reverse('refer')}?{urlencode({'key': key})}"
    post(
        None,
        address=referral.address,
        kind="referral.asked",
        about=referral.subject,
        subject=f"Do you know {person}?"[:200],
        body=(
            f"Dear {referral.name},\n\n"
            f"{person} ({referral.user.email}) asks for access to model weights here and names you "
            f"as their {referral.get_relation_display()}. Do you know them? The page behind this "
            "link asks that one question; it takes a minute, needs no account, and can be answered "
            f"once, until {referral.expires_at:%d %B %Y}:\n\n{link}\n\n"
            "What you write is read by the reviewers. If you do not know this person, please say "
            "so there, or leave this mail alone.\n"
        ),
        private=True,
        at=at,
    )
