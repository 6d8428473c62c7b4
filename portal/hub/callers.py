"""Who asks: the person of the token in the Authorization header, or nobody."""

import contextlib
import re

from django.conf import settings
from django.http import HttpRequest
from django.utils.timezone import now

from portal.accounts import tokens
from portal.accounts.addresses import address_of
from portal.accounts.models import ApiToken
from portal.catalog.models import Checkpoint
from portal.hub.answers import BAD_TOKEN, GATED, Refusal

BEARER = re.compile(r"Bearer +(\S{1,300})", re.IGNORECASE)
ANY = ("read", "verify", "review", "apply")


def caller(request: HttpRequest, *scopes: str) -> ApiToken | None:
    """Return the token that was sent, if it is good for one of ``scopes``; None where none was sent.

    Raises:
        Refusal: it is not known here, or was made for something else.
    """
    sent = request.headers.get("Authorization", "")
    if not sent:
        return None
    match, at, address = BEARER.fullmatch(sent.strip()), now(), address_of(request)
    try:
        if match is None:
            raise tokens.TokenError("Send it as “Authorization: Bearer hf_…”.")
        *others, last = scopes
        for scope in others:
            with contextlib.suppress(tokens.ScopeError):
                return tokens.authenticate(match[1], scope=scope, at=at, address=address)
        return tokens.authenticate(match[1], scope=last, at=at, address=address)
    except tokens.ScopeError as error:
        raise made_for_less(error) from None
    except tokens.TokenError as error:
        raise Refusal(BAD_TOKEN, 401, warning=f"token; {error} {_where()}") from None


def required(request: HttpRequest, *scopes: str) -> ApiToken:
    """Return the token that was sent.

    Raises:
        Refusal: none was, or it opens nothing here.
    """
    token = caller(request, *scopes)
    if token is None:
        raise Refusal(f"This needs a token. {_where()}", 401)
    return token


def require_scope(token: ApiToken, scope: str) -> None:
    """Refuse a token that was not made for ``scope``.

    Raises:
        Refusal: it was not.
    """
    if not token.allows(scope):
        said = f"This token was not made for “{scope}”; make one that includes it."
        raise made_for_less(tokens.ScopeError(said))


def require_checkpoint(token: ApiToken, checkpoint: Checkpoint) -> None:
    """Refuse a token that was made for another checkpoint.

    Raises:
        Refusal: it was.
    """
    try:
        tokens.require_checkpoint(token, checkpoint.name)
    except tokens.ScopeError as error:
        raise made_for_less(error) from None


def made_for_less(error: tokens.ScopeError) -> Refusal:
    """Say that a token holds, but not for this."""
    return Refusal(f"{error} {_where()}", 403, GATED, warning=f"token; {error} {_where()}")


def _where() -> str:
    return f"Tokens are made at {settings.PUBLIC_URL}/account/tokens/ ; send yours as HF_TOKEN."
