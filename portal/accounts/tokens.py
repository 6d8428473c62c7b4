"""API tokens: made, used, revoked."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q

from portal.accounts.models import ApiToken, User
from portal.audit.chain import record

# `last_used_at` is for people; writing it at every request would make each a write.
USE_NOTED_EVERY = timedelta(minutes=5)


class TokenError(Exception):
    """A token opens nothing; the message says why and what to do."""


class ScopeError(TokenError):
    """A token holds, but was made for something else."""


@transaction.atomic
def make(
    user: User,
    *,
    scopes: Sequence[str],
    by: str,
    at: datetime,
    expires_at: datetime | None = None,
    name: str = "",
) -> tuple[ApiToken, str]:
    """Make a token and return it with its secret, which is not kept and cannot be shown again.

    Raises:
        TokenError: a scope is not known, or there is none.
    """
    unknown = sorted(set(scopes) - set(ApiToken.Scope.values))
    if unknown or not scopes:
        raise TokenError(
            f"{', '.join(unknown) or 'No scope'} is not a scope; "
            f"say one or more of {', '.join(ApiToken.Scope.values)}."
        )
    secret = ApiToken.new_secret()
    token = ApiToken.objects.create(
        user=user,
        name=name,
        digest=ApiToken.digest_of(secret),
        hint=secret[:7],
        scopes=sorted(set(scopes)),
        created_at=at,
        expires_at=expires_at,
    )
    record(
        "token.made",
        subject=f"token:{token.pk}",
        actor=by,
        at=at,
        user=user.actor,
        scopes=token.scopes,
        expires_at=expires_at.isoformat() if expires_at else None,
    )
    return token, secret


def authenticate(secret: str, *, scope: str, at: datetime) -> ApiToken:
    """Return the token with this secret, if it opens ``scope`` at ``at``.

    Raises:
        TokenError: it is unknown, ended or revoked, or was made for something else.
    """
    token = ApiToken.objects.in_force(at).of_secret(secret).select_related("user").first()
    if token is None:
        raise TokenError("This token is not known here, has ended or was revoked; make a new one.")
    if not token.allows(scope):
        raise ScopeError(f"This token was not made for “{scope}”; make one that includes it.")
    ApiToken.objects.filter(
        Q(last_used_at=None) | Q(last_used_at__lt=at - USE_NOTED_EVERY), pk=token.pk
    ).update(last_used_at=at)
    return token


@transaction.atomic
def revoke(token: ApiToken, *, by: str, at: datetime) -> None:
    """End ``token`` now; revoking it again changes nothing."""
    if ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=at):
        record("token.revoked", subject=f"token:{token.pk}", actor=by, at=at)
