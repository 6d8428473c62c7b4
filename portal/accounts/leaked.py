"""Tokens that somebody found where others can read them: ended at once, their owners told.

The report has the shape of GitHub's secret scanning partner programme: a list of
`{"token": …, "type": …, "url": …, "source": …}`. Who holds a token shows by it that it leaked, so a
report needs no signature; and it is answered alike whether or not a token was one of ours.
"""

from collections.abc import Sequence
from datetime import datetime
from urllib.parse import urlsplit

from django.conf import settings
from django.db import transaction
from django.urls import reverse

from portal.accounts import tokens
from portal.accounts.models import ApiToken
from portal.outbox.sending import post

REPORTER = "anonymous"


def report(found: Sequence[tuple[str, str]], *, at: datetime) -> int:
    """Revoke each token in force of ``found``, pairs of secret and place; return how many were."""
    places = {ApiToken.digest_of(secret.strip()): place for secret, place in found}
    known = ApiToken.objects.in_force(at).filter(digest__in=places).select_related("user")
    return sum(_end(token, places[token.digest], at) for token in known)


@transaction.atomic
def _end(token: ApiToken, place: str, at: datetime) -> bool:
    if not tokens.revoke(token, by=REPORTER, at=at, why="reported as leaked", host=_host(place)):
        return False
    post(
        token.user,
        kind="token.leaked",
        about=f"token:{token.pk}",
        subject="A token of yours was found in the open and has been revoked",
        body=(
            f"Your token {token.hint}…{f' ({token.name})' if token.name else ''} was reported to "
            f"us as readable by others, and opens nothing any more.\n\n"
            "What you can do: look at what it was used for, take it out of the place where you "
            "kept it, and make a new one where you need one:\n\n"
            f"{settings.PUBLIC_URL}{reverse('tokens')}\n"
        ),
        at=at,
    )
    return True


def _host(place: str) -> str:
    """Return the host that a report names; the whole address may hold names of people."""
    try:
        return (urlsplit(place).hostname or "")[:100]
    except ValueError:
        return ""
