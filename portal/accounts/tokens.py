"""API tokens: made, used, revoked."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q

from portal.accounts.addresses import RangeError, read_ranges, within
from portal.accounts.models import CHECKPOINT_NAME, ApiToken, User
from portal.audit.chain import record

# `last_used_at` is for people; writing it at every request would make each a write.
USE_NOTED_EVERY = timedelta(minutes=5)
MOST_IN_FORCE = 100


class TokenError(Exception):
    """A token opens nothing; the message says why and what to do."""


class ScopeError(TokenError):
    """A token holds, but was made for something, some checkpoint or some place else."""


@transaction.atomic
def make(
    user: User,
    *,
    scopes: Sequence[str],
    by: str,
    at: datetime,
    expires_at: datetime | None = None,
    name: str = "",
    checkpoint: str = "",
    ranges: Sequence[str] = (),
) -> tuple[ApiToken, str]:
    """Make a token and return it with its secret, which is not kept and cannot be shown again.

    It opens ``checkpoint`` only where one is named, and only to requests out of ``ranges``, in CIDR
    notation, where there are any.

    Raises:
        TokenError: one of these cannot be, or the person has too many tokens in force.
    """
    unknown = sorted(set(scopes) - set(ApiToken.Scope.values))
    if unknown or not scopes:
        raise TokenError(
            f"{', '.join(unknown) or 'No scope'} is not a scope; "
            f"say one or more of {', '.join(ApiToken.Scope.values)}."
        )
    if checkpoint and not CHECKPOINT_NAME.fullmatch(checkpoint):
        raise TokenError(f"{checkpoint[:80]!r} is no checkpoint's name, such as llama/7b@1.")
    try:
        networks = read_ranges(ranges)
    except RangeError as error:
        raise TokenError(str(error)) from None
    if user.tokens.in_force(at).count() >= MOST_IN_FORCE:
        raise TokenError(f"There are {MOST_IN_FORCE} tokens in force; revoke one first.")
    secret = ApiToken.new_secret()
    token = ApiToken.objects.create(
        user=user,
        name=name,
        digest=ApiToken.digest_of(secret),
        hint=secret[:7],
        scopes=sorted(set(scopes)),
        checkpoint=checkpoint,
        ranges=networks,
        created_at=at,
        expires_at=expires_at,
    )
    record(
        "token.made",
        subject=token.subject,
        actor=by,
        at=at,
        user=user.actor,
        scopes=token.scopes,
        checkpoint=checkpoint,
        ranges=networks,
        expires_at=expires_at.isoformat() if expires_at else None,
    )
    return token, secret


def authenticate(secret: str, *, scope: str, at: datetime, address: str | None = None) -> ApiToken:
    """Return the token with this secret, if it opens ``scope`` at ``at`` to ``address``.

    Which checkpoint it opens is asked of :func:`require_checkpoint` once that is known.

    Raises:
        ScopeError: it was made for something else, or for other addresses.
        TokenError: it is unknown, ended or revoked.
    """
    token = ApiToken.objects.in_force(at).of_secret(secret).select_related("user").first()
    if token is None:
        raise TokenError("This token is not known here, has ended or was revoked; make a new one.")
    if token.ranges and not within(address, token.ranges):
        raise ScopeError(
            f"This token may not be used from {address or 'an address that is not known'}; "
            "make one that includes it."
        )
    if not token.allows(scope):
        raise ScopeError(f"This token was not made for “{scope}”; make one that includes it.")
    ApiToken.objects.filter(
        Q(last_used_at=None) | Q(last_used_at__lt=at - USE_NOTED_EVERY), pk=token.pk
    ).update(last_used_at=at)
    return token


def require_checkpoint(token: ApiToken, name: str) -> None:
    """Refuse where ``token`` was made for another checkpoint than ``name``.

    Raises:
        ScopeError: it was.
    """
    if token.checkpoint and token.checkpoint != name:
        raise ScopeError(
            f"This token was made for {token.checkpoint} only; make one that includes {name}."
        )


@transaction.atomic
def revoke(token: ApiToken, *, by: str, at: datetime, why: str = "", **detail: Any) -> bool:
    """End ``token`` now and return whether it was in force; again, it changes nothing."""
    changed = ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(
        revoked_at=at, revoked_why=why
    )
    if changed:
        record("token.revoked", subject=token.subject, actor=by, at=at, why=why, **detail)
    return bool(changed)
