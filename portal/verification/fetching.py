"""Fetch a copy's files from addresses that strangers name, without being led into our own network.

Every address is resolved here, each result is checked to be a public one, and the connection goes
to exactly that one; a redirect begins anew (so DNS cannot answer twice differently).
"""

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from django.conf import settings

REDIRECTS = 5
TIMEOUT = 30  # seconds without a byte
PIECE = 1 << 20
REDIRECTING = (301, 302, 303, 307, 308)


class FetchError(Exception):
    """A file could not be fetched; the message names the host and says why."""


def fetch(url: str, target: Path, *, limit: int, progress: Callable[[int], None]) -> int:
    """Fetch ``url`` into ``target``, at most ``limit`` bytes; return how many it had.

    ``progress`` is called with the number of bytes of each piece.

    Raises:
        FetchError: the host is not public, does not answer, refuses, or sends too much.
    """
    for _ in range(REDIRECTS + 1):
        connection, response = _ask(url)
        try:
            if response.status in REDIRECTING:
                url = urljoin(url, response.headers.get("Location", ""))
                continue
            return _keep(url, response, target, limit, progress)
        except (OSError, http.client.HTTPException) as error:
            raise FetchError(f"{_host(url)} stopped answering: {error}.") from error
        finally:
            connection.close()
    raise FetchError(f"{_host(url)} redirects more than {REDIRECTS} times.")


def _host(url: str) -> str:
    return urlsplit(url).hostname or "the address"


def _ask(url: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchError(f"{parts.scheme or 'an address'}: only http and https are fetched.")
    secure = parts.scheme == "https"
    try:
        port = parts.port or (443 if secure else 80)
        address = public_address(parts.hostname, port)
        raw = socket.create_connection(address[:2], timeout=TIMEOUT)
        if secure:
            raw = ssl.create_default_context().wrap_socket(raw, server_hostname=parts.hostname)
        connection = http.client.HTTPConnection(parts.hostname, port, timeout=TIMEOUT)
        connection.sock = raw
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"Accept-Encoding": "identity"})
        return connection, connection.getresponse()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise FetchError(f"{parts.hostname} cannot be reached: {error}.") from error


def public_address(host: str, port: int) -> tuple[str, int]:
    """Return the first address of ``host``, all of which must be public.

    Raises:
        FetchError: one is not, unless the settings allow it.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [entry[4][0] for entry in found]
    for address in addresses:
        parsed = ipaddress.ip_address(str(address).split("%")[0])
        mapped = getattr(parsed, "ipv4_mapped", None)
        if not (mapped or parsed).is_global and not settings.FETCH_PRIVATE_ADDRESSES:
            raise FetchError(f"{host} is not a public address; nothing is fetched from it.")
    return str(addresses[0]), port


def _keep(
    url: str,
    response: http.client.HTTPResponse,
    target: Path,
    limit: int,
    progress: Callable[[int], None],
) -> int:
    if response.status != http.client.OK:
        raise FetchError(f"{_host(url)} answered {response.status} for {target.name}.")
    announced = response.length
    if announced is not None and announced > limit:
        raise FetchError(
            f"{target.name} has {announced:,} bytes; {limit:,} are left for you today."
        )
    size = 0
    with target.open("xb") as file:
        while piece := response.read(PIECE):
            size += len(piece)
            if size > limit:
                raise FetchError(f"{target.name} has more than the {limit:,} bytes left for today.")
            file.write(piece)
            progress(len(piece))
    if announced is not None and size != announced:
        raise FetchError(f"{_host(url)} sent {size:,} of {announced:,} bytes of {target.name}.")
    return size
