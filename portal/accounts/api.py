"""The part of the API that is about accounts; `portal.delivery.api` takes it in."""

import contextlib
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.utils.timezone import now
from ninja import Field, Form, Router, Schema, Status
from ninja.security import HttpBearer

from portal.accounts import devices, leaked, tokens
from portal.accounts.addresses import address_of
from portal.accounts.models import ApiToken
from portal.accounts.rates import count


class Bearer(HttpBearer):
    """A token of ours in the Authorization header, good for one of ``scopes``."""

    def __init__(self, *scopes: str) -> None:
        super().__init__()
        self.scopes = scopes

    def authenticate(self, request: HttpRequest, token: str) -> ApiToken:
        """Return the token that belongs to this secret.

        Raises:
            TokenError: it opens nothing here.
        """
        *others, last = self.scopes
        at, address = now(), address_of(request)
        for scope in others:
            with contextlib.suppress(tokens.ScopeError):
                return tokens.authenticate(token, scope=scope, at=at, address=address)
        return tokens.authenticate(token, scope=last, at=at, address=address)


router = Router()

MOST_TOKENS = 100
REPORTS_PER_MINUTE = 30
CODES_PER_MINUTE = 10
# what a command asks for that names nothing
ALL_SCOPES = "apply download read verify"


class FoundIn(Schema):
    """One token that was found in the open, and where; type and source are read by nobody here."""

    token: str = Field(max_length=200)
    type: str = Field("", max_length=200)
    url: str = Field("", max_length=2000)
    source: str = Field("", max_length=200)


class ReceivedOut(Schema):
    """How many entries the report had. It says nothing of what they were."""

    received: int


@router.post("/tokens/leaked", auth=None, response={202: ReceivedOut})
def report_leaked(request: HttpRequest, found: list[FoundIn]) -> Any:
    """Take a report of leaked tokens: each of ours is revoked at once and its owner told."""
    count("leaked", address_of(request) or "unknown", most=REPORTS_PER_MINUTE, seconds=60)
    leaked.report([(one.token, one.url) for one in found[:MOST_TOKENS]], at=now())
    return Status(202, {"received": min(len(found), MOST_TOKENS)})


def _oauth(body: dict[str, Any], status: int = 200) -> HttpResponse:
    """Answer as OAuth does (RFC 6749, sections 5.1 and 5.2); nothing of it may be kept by a cache."""
    return JsonResponse(
        body, status=status, headers={"Cache-Control": "no-store", "Pragma": "no-cache"}
    )


def _refused(error: devices.OAuthError) -> HttpResponse:
    return _oauth({"error": error.error, "error_description": str(error)}, 400)


@router.post("/device/code", auth=None, response={200: None})
def ask_device_code(
    request: HttpRequest, client_id: str = Form(""), scope: str = Form(ALL_SCOPES)
) -> Any:
    """Begin a device authorization (RFC 8628, section 3.1)."""
    address = address_of(request)
    count("device-code", address or "unknown", most=CODES_PER_MINUTE, seconds=60)
    try:
        begun = devices.begin(client_id, scope.split(), address=address, at=now())
    except devices.OAuthError as error:
        return _refused(error)
    place = f"{settings.PUBLIC_URL}{reverse('device')}"
    return _oauth(
        {
            "device_code": begun.device_code,
            "user_code": begun.user_code,
            "verification_uri": place,
            "verification_uri_complete": f"{place}?code={begun.user_code}",
            "expires_in": begun.seconds,
            "interval": begun.interval,
        }
    )


@router.post("/device/token", auth=None, response={200: None})
def ask_device_token(
    request: HttpRequest,
    grant_type: str = Form(""),
    device_code: str = Form(""),
    client_id: str = Form(""),
) -> Any:
    """Give the token of a device authorization, once it is approved (RFC 8628, section 3.4)."""
    at = now()
    try:
        if grant_type != devices.GRANT_TYPE:
            raise devices.OAuthError("unsupported_grant_type", f"Send {devices.GRANT_TYPE}.")
        token, secret = devices.redeem(device_code[:200], client_id, at=at)
    except devices.OAuthError as error:
        return _refused(error)
    return _oauth(
        {
            "access_token": secret,
            "token_type": "Bearer",
            "expires_in": int(devices.TOKEN_LASTS.total_seconds()),
            "scope": " ".join(token.scopes),
        }
    )
