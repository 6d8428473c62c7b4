"""Log in without a browser here: by device authorization (RFC 8628), the token kept in a file.

The person opens an address on any device and types the code that is shown; meanwhile we ask the
portal again and again, no more often than it says.
"""

import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from verifier.names import shown

from . import tokens
from .errors import ClientError, PortalError
from .site import Site

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
SLOWER_BY = 5  # seconds, RFC 8628, section 3.5
LONGEST_WAIT, LONGEST_INTERVAL = 3600, 60
SCOPES = "apply download read verify"


class LoginError(ClientError):
    """No token was given; the message says why."""


@dataclass(frozen=True, slots=True)
class Code:
    """What a portal says at the beginning."""

    device_code: str
    user_code: str
    address: str
    seconds: int
    interval: int


def log_in(
    site: Site,
    say: Callable[[str], None],
    *,
    scope: str = SCOPES,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Get a token of ``site``, keep it, and return the sentence that says so.

    ``say`` is told what the person must do.

    Raises:
        LoginError: the person said no, or nobody answered in time.
        ClientError: the portal cannot be asked, or the token cannot be kept.
    """
    client = client_name()
    code = _begin(site, client, scope)
    say(f"Open {code.address} on any device, sign in, and type the code {code.user_code}")
    until, interval = clock() + code.seconds, code.interval
    while clock() < until:
        site.sleep(interval)
        status, answer = site.post_form(
            "/api/v1/device/token",
            {"grant_type": GRANT_TYPE, "device_code": code.device_code, "client_id": client},
        )
        error = answer.get("error") if status != 200 else None
        if error == "slow_down":
            interval = min(interval + SLOWER_BY, LONGEST_INTERVAL)
        elif error == "access_denied":
            raise LoginError("You said no at the portal; nothing was kept.")
        elif error == "expired_token":
            break
        elif error and error != "authorization_pending":
            raise LoginError(f"The portal gives no token: {_text(answer, 'error_description')}")
        elif not error:
            path = tokens.keep(site.url, _text(answer, "access_token"))
            return f"Logged in to {site.url}; the token is in {path}, for you alone to read."
    raise LoginError("Nobody answered in time; run login again.")


def client_name() -> str:
    """Return the name that the person sees at the portal: this program on this machine."""
    host = re.sub(r"[^A-Za-z0-9._-]", "", socket.gethostname())[:40]
    return f"weighbridge on {host}" if host else "weighbridge"


def _begin(site: Site, client: str, scope: str) -> Code:
    status, answer = site.post_form("/api/v1/device/code", {"client_id": client, "scope": scope})
    if status != 200:
        raise LoginError(f"The portal does not begin: {_text(answer, 'error_description')}")
    return Code(
        _text(answer, "device_code"),
        _text(answer, "user_code"),
        _text(answer, "verification_uri"),
        _number(answer, "expires_in", LONGEST_WAIT),
        _number(answer, "interval", LONGEST_INTERVAL, otherwise=5),
    )


def _text(answer: Any, name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 1000:
        raise PortalError(f"The portal's answer holds no {name}; is it a Weighbridge portal?")
    return shown(value)


def _number(answer: Any, name: str, most: int, *, otherwise: int | None = None) -> int:
    value = answer.get(name, otherwise)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise PortalError(f"The portal's answer holds no {name}; is it a Weighbridge portal?")
    return min(value, most)
