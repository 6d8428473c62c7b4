"""One portal over HTTP: questions in JSON, files in ranges of bytes.

The token goes to the portal's own origin and nowhere else, whatever redirects say. Answers that
pass (429, 502, 503, 504, lost connections) are asked for again, later each time; Retry-After is
obeyed (RFC 9110, section 10.2.3). Errors are problem details (RFC 9457), told in one sentence.
"""

import contextlib
import email.utils
import functools
import http.client
import ipaddress
import json
import random
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from verifier.names import shown

from .errors import BrokenOffError, PortalError, RefusedError

TIMEOUT = 30.0  # seconds without a byte
TRIES = 5
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds
REDIRECTS = 5
MAX_JSON_BYTES = 64 << 20
MAX_REASON = 500
BLOCK = 256 << 10
AGENT = "weighbridge-client/1"
PASSING = (429, 502, 503, 504)
REDIRECTING = (301, 302, 303, 307, 308)

Response = http.client.HTTPResponse


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: to whom a token may be shown (RFC 6454)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> "Origin":
        """Take the origin out of ``url``.

        Raises:
            PortalError: it is not an address of http or https, or holds a name and password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
        except ValueError:
            raise PortalError(f"{shown(url)[:200]!r} is not an address.") from None
        good = parts.scheme in ("http", "https") and parts.hostname and port
        if not (good and url.isascii() and url.isprintable()):
            raise PortalError(
                f"{shown(url)[:200]!r} is not an address such as https://portal.example."
            )
        if "@" in parts.netloc:
            raise PortalError("An address holds no name and password; give it without them.")
        return cls(parts.scheme, str(parts.hostname).lower(), port)

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass
class Site:
    """A portal, and the token of who asks.

    Without ``insecure_http`` plain http is only spoken with a portal on this machine.
    """

    url: str
    token: str | None = None
    insecure_http: bool = False
    sleep: Callable[[float], None] = time.sleep
    origin: Origin = field(init=False)

    def __post_init__(self) -> None:
        self.url = self.url.strip().rstrip("/")
        self.origin = Origin.of(self.url)
        parts = urlsplit(self.url)
        if parts.query or parts.fragment:
            raise PortalError(f"{self.url}: give the portal's address without ? and #.")
        self._check(self.url)

    def get_json(self, place: str) -> Any:
        """Return the JSON at ``place``, a path below the portal or a full address."""
        url = f"{self.url}{place}" if place.startswith("/") else place
        return self._json("GET", url, None)

    def post_json(self, place: str, content: Any) -> Any:
        """Send ``content`` as JSON to a path below the portal; return the JSON of the answer."""
        return self._json("POST", f"{self.url}{place}", json.dumps(content).encode())

    def post_form(self, place: str, fields: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        """Send ``fields`` as a form; return status and JSON of an answer of OAuth (RFC 6749).

        A refusal of OAuth, 400 or 401 with an `error`, is an answer here; others are raised.
        """
        url = f"{self.url}{place}"
        body = urlencode(fields).encode()
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        for attempt in self._attempts():
            with attempt, contextlib.closing(self._send("POST", url, headers, body)) as response:
                kind = response.headers.get_content_type()
                if response.status not in (200, 400, 401) or kind != "application/json":
                    raise _refusal(response, url)
                status, data = response.status, _read(response, MAX_JSON_BYTES)
        answer = self._parsed(data)
        if not isinstance(answer, dict) or (status != 200 and "error" not in answer):
            raise PortalError(f"{self.origin.host} did not answer as OAuth does.")
        return status, answer

    def get_bytes(self, url: str, limit: int) -> bytes:
        """Return what lies at ``url``, at most ``limit`` bytes."""
        for attempt in self._attempts():
            with attempt, self.open(url) as response:
                return _read(response, limit)
        raise AssertionError("the last attempt raises")

    @contextlib.contextmanager
    def open(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[Response]:
        """Ask for ``url`` and give the answer, 200 or 206; read it with :func:`pieces`.

        Raises:
            RefusedError: the answer is another.
            BrokenOffError: nothing came; asking again may help.
            PortalError: it cannot be asked at all.
        """
        response = self._send("GET", url, headers or {}, None)
        with contextlib.closing(response):
            if response.status not in (200, 206):
                raise _refusal(response, url)
            yield response

    def _json(self, method: str, url: str, body: bytes | None) -> Any:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        for attempt in self._attempts():
            with attempt, contextlib.closing(self._send(method, url, headers, body)) as response:
                if not 200 <= response.status < 300:
                    raise _refusal(response, url)
                data = _read(response, MAX_JSON_BYTES)
        return self._parsed(data)

    def _parsed(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise PortalError(
                f"{self.origin.host} did not answer in JSON: is {self.url} a Weighbridge portal?"
            ) from None

    def _attempts(self) -> Iterator["Attempt"]:
        """Give attempts until one holds; the last lets its error through."""
        for number in range(TRIES):
            attempt = Attempt(self, number)
            yield attempt
            if attempt.error is None:
                return

    def pause(self, number: int, error: BrokenOffError) -> None:
        """Wait before attempt ``number + 1``, as long as the answer asked or longer each time."""
        asked = error.retry_after
        backoff = min(FIRST_WAIT * 2**number, LONGEST_WAIT)
        spread = backoff * random.uniform(0.5, 1.0)  # noqa: S311 - so that clients do not march
        self.sleep(spread if asked is None else asked)

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Response:
        """Send one request, following redirects; what passes comes as BrokenOffError."""
        for _ in range(REDIRECTS + 1):
            self._check(url)
            request = urllib.request.Request(url, body, dict(headers), method=method)
            request.add_header("User-Agent", AGENT)
            request.add_header("Accept-Encoding", "identity")
            if self.token and Origin.of(url) == self.origin:
                request.add_unredirected_header("Authorization", f"Bearer {self.token}")
            response = self._open(request)
            if response.status not in REDIRECTING:
                return self._unless_passing(response, url)
            with contextlib.closing(response):
                target = _joined(url, response.headers.get("Location", ""))
            if body is not None:
                raise PortalError(
                    f"{self.origin.host} sends on to {shown(target)[:200]}; "
                    "give that portal's address with --portal."
                )
            if self.origin.scheme == "https" and urlsplit(target).scheme != "https":
                raise PortalError(f"{_host(url)} sends on to an address without encryption.")
            url = target
        raise PortalError(f"{_host(url)} sends on more than {REDIRECTS} times.")

    def _open(self, request: urllib.request.Request) -> Response:
        host = _host(request.full_url)
        try:
            response: Response = _opener().open(request, timeout=TIMEOUT)
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise PortalError(
                    f"{host} does not prove who it is: {error.reason.verify_message}."
                ) from None
            raise BrokenOffError(f"{host} cannot be reached: {_reason(error.reason)}.") from None
        except (OSError, http.client.HTTPException) as error:
            raise BrokenOffError(f"{host} cannot be reached: {_reason(error)}.") from None
        except ValueError as error:
            raise PortalError(f"{host} cannot be asked: {error}.") from None
        return response

    def _unless_passing(self, response: Response, url: str) -> Response:
        if response.status not in PASSING:
            return response
        with contextlib.closing(response):
            refusal = _refusal(response, url)
        wait = _retry_after(response.headers.get("Retry-After", ""))
        if wait is not None and wait > LONGEST_WAIT:
            raise PortalError(f"{_host(url)} asks to wait {wait:,.0f} seconds: {refusal}")
        raise BrokenOffError(str(refusal), wait)

    def _check(self, url: str) -> None:
        """Refuse an address that is not encrypted, unless the portal is this machine."""
        origin = Origin.of(url)
        if origin.scheme == "https" or self.insecure_http:
            return
        if not (origin.is_loopback and self.origin.is_loopback):
            raise PortalError(
                f"{origin.host} would be asked without encryption; give an https address, "
                "or --insecure-http where the network is your own."
            )


class Attempt:
    """One try: an answer that was broken off is forgiven, with a pause, unless it was the last."""

    def __init__(self, site: Site, number: int) -> None:
        self.site, self.number = site, number
        self.error: Exception | None = None

    def __enter__(self) -> None:
        self.error = None

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> bool:
        if not isinstance(error, BrokenOffError) or self.number + 1 >= TRIES:
            return False
        self.error = error
        self.site.pause(self.number, error)
        return True


def pieces(response: Response) -> Iterator[bytes]:
    """Give what comes, until the announced end.

    Raises:
        BrokenOffError: it ended before, or nothing came for a while.
    """
    try:
        while piece := response.read1(BLOCK):
            yield piece
    except (OSError, http.client.HTTPException) as error:
        raise BrokenOffError(f"The answer broke off: {_reason(error)}.") from None
    if response.length:
        raise BrokenOffError(f"The answer broke off, {response.length:,} bytes before its end.")


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    """Return what opens addresses: with proxies from the environment and the system's
    certificates, without redirects, and with every answer given as it is."""

    class AsItIs(urllib.request.HTTPErrorProcessor):
        def http_response(self, request: Any, response: Any) -> Any:
            return response

        https_response = http_response

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        AsItIs(),
    ):
        opener.add_handler(handler)
    return opener


def _read(response: Response, limit: int) -> bytes:
    data = bytearray()
    for piece in pieces(response):
        data += piece
        if len(data) > limit:
            raise PortalError(f"An answer is larger than {limit:,} bytes and was not read.")
    return bytes(data)


def _refusal(response: Response, url: str) -> RefusedError:
    """Return the reason that a portal gives, as one sentence."""
    data = b""
    with contextlib.suppress(OSError, http.client.HTTPException):
        data = response.read(MAX_REASON * 8)
    kind = response.headers.get_content_type()
    reason = ""
    if kind == "application/problem+json":
        with contextlib.suppress(ValueError, RecursionError, AttributeError):
            reason = str(json.loads(data).get("detail") or "")
    elif kind == "text/plain":
        reason = data.decode(errors="replace").strip()
    reason = shown(" ".join(reason.split()))[:MAX_REASON]
    if not reason:
        try:
            phrase = HTTPStatus(response.status).phrase
        except ValueError:
            phrase = "an unknown status"
        reason = f"{_host(url)} answered {response.status} ({phrase})."
    return RefusedError(reason, response.status)


def _retry_after(header: str) -> float | None:
    """Return the seconds that Retry-After asks to wait, as a number or until a date."""
    if header.strip().isdecimal() and len(header) < 12:
        return float(header)
    with contextlib.suppress(ValueError, TypeError):
        until = email.utils.parsedate_to_datetime(header)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())
    return None


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError:
        raise PortalError(f"{_host(url)} sends on to what is not an address.") from None


def _host(url: str) -> str:
    return urlsplit(url).hostname or "the address"


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came for {TIMEOUT:.0f} seconds"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return shown(str(error))[:200] or type(error).__name__
