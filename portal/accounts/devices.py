"""Device authorization (RFC 8628): a command gets a token without ever seeing a password.

The command asks for a code and shows it; its person, signed in to a browser, types the code, sees
what would be given, and says yes or no; meanwhile the command asks again and again for its token.
Codes are kept as HMACs under the portal's secret, because the short one could be guessed from a hash.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.utils.crypto import salted_hmac

from portal.accounts import tokens
from portal.accounts.models import ApiToken, DeviceCode, User
from portal.audit.chain import record

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
LASTS = timedelta(minutes=10)
TOKEN_LASTS = timedelta(days=90)
FIRST_INTERVAL, SLOWER_BY = 5, 5  # seconds between two questions; and more for who asks too soon
KEPT = timedelta(days=1)
# No vowels, so that no word comes out: RFC 8628, section 6.1. 20 letters, 8 of them: 34 bits.
LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,59}")


class OAuthError(Exception):
    """A command's question is refused; ``error`` is the code that RFC 6749 and RFC 8628 name."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error


class CodeError(Exception):
    """A code that somebody typed opens nothing; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What a command is told when it begins."""

    device_code: str
    user_code: str
    seconds: int
    interval: int


@transaction.atomic
def begin(client: str, scopes: Sequence[str], *, address: str | None, at: datetime) -> Begun:
    """Keep the question of a command that calls itself ``client``, and return its two codes.

    Raises:
        OAuthError: `invalid_request` or `invalid_scope`.
    """
    if not CLIENT.fullmatch(client):
        raise OAuthError("invalid_request", "Give a client_id of letters, digits and ._@- only.")
    unknown = sorted(set(scopes) - set(ApiToken.Scope.values))
    if unknown or not scopes:
        known = " ".join(ApiToken.Scope.values)
        raise OAuthError("invalid_scope", f"Ask for one or more of: {known}.")
    DeviceCode.objects.filter(expires_at__lt=at - KEPT).delete()
    device_code = secrets.token_urlsafe(32)
    user_code = "".join(secrets.choice(LETTERS) for _ in range(8))
    DeviceCode.objects.create(
        device_mac=_mac(device_code),
        user_mac=_mac(user_code),
        client=client,
        scopes=sorted(set(scopes)),
        address=address,
        asked_at=at,
        expires_at=at + LASTS,
        interval=FIRST_INTERVAL,
    )
    shown = f"{user_code[:4]}-{user_code[4:]}"
    return Begun(device_code, shown, int(LASTS.total_seconds()), FIRST_INTERVAL)


def typed(code: str, *, at: datetime) -> DeviceCode:
    """Return the waiting question whose short code is ``code``, however it is spaced and cased.

    Raises:
        CodeError: there is none.
    """
    letters = re.sub(r"[^A-Z]", "", code.upper()[:40])
    found = DeviceCode.objects.waiting(at).filter(user_mac=_mac(letters)).first()
    if found is None:
        raise CodeError(
            "This code is not known or has ended. Look at the terminal again; a code lasts "
            f"{LASTS.seconds // 60} minutes."
        )
    return found


@transaction.atomic
def decide(question: DeviceCode, *, user: User, approved: bool, at: datetime) -> None:
    """Say yes or no to ``question``, once.

    Raises:
        CodeError: it has ended, or was answered before.
    """
    changed = (
        DeviceCode.objects.waiting(at)
        .filter(pk=question.pk)
        .update(user=user, approved=approved, decided_at=at)
    )
    if not changed:
        raise CodeError("This code was answered or has ended; start again in the terminal.")
    record(
        "device.approved" if approved else "device.denied",
        subject=f"device:{question.pk}",
        actor=user.actor,
        at=at,
        scopes=question.scopes,
    )


def redeem(device_code: str, client: str, *, at: datetime) -> tuple[ApiToken, str]:
    """Return the token that a command waits for, with its secret, once.

    Raises:
        OAuthError: `authorization_pending`, `slow_down`, `access_denied`, `expired_token` or
            `invalid_grant` (RFC 8628, section 3.5).
    """
    question = DeviceCode.objects.filter(device_mac=_mac(device_code)).first()
    if question is None or question.client != client or question.given_at:
        raise OAuthError("invalid_grant", "This code is not known or was used; log in again.")
    if question.approved is False:
        raise OAuthError("access_denied", "The person at the portal said no.")
    if question.expires_at <= at:
        raise OAuthError("expired_token", "Nobody answered in time; log in again.")
    if question.approved is None:
        _pace(question, at)
        raise OAuthError("authorization_pending", "Nobody has answered yet.")
    return _give(question, at)


def _pace(question: DeviceCode, at: datetime) -> None:
    """Note when a command asked; one that asks too soon must wait longer from now on."""
    mine = DeviceCode.objects.filter(pk=question.pk)
    last = question.polled_at
    if last and at - last < timedelta(seconds=question.interval):
        mine.update(polled_at=at, interval=question.interval + SLOWER_BY)
        raise OAuthError("slow_down", f"Wait {question.interval + SLOWER_BY} seconds in between.")
    mine.update(polled_at=at)


@transaction.atomic
def _give(question: DeviceCode, at: datetime) -> tuple[ApiToken, str]:
    given = DeviceCode.objects.filter(pk=question.pk, approved=True, given_at=None)
    if not given.update(given_at=at):
        raise OAuthError("invalid_grant", "This code is not known or was used; log in again.")
    user = question.user
    assert user is not None  # whoever approves is noted with it
    try:
        return tokens.make(
            user,
            scopes=question.scopes,
            name=f"{question.client}, by device code"[:100],
            by=user.actor,
            at=at,
            expires_at=at + TOKEN_LASTS,
        )
    except tokens.TokenError as error:
        raise OAuthError("access_denied", str(error)) from None


def _mac(code: str) -> str:
    return salted_hmac("weighbridge device code 1", code, algorithm="sha256").hexdigest()
