"""Fetch a copy's files from addresses that strangers name, without being led into our own network.

Every address is resolved here, each result is checked to be a public one, and the connection goes
to exactly that one; a redirect begins anew (so DNS cannot answer twice differently).
"""

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from django.conf import settings

REDIRECTS = 5
TIMEOUT = 30  # seconds without a byte
CONNECT_TIMEOUT = 10
MOST_ADDRESSES = 4
SLOWEST = 10_000  # bytes a second, over all but the first GRACE seconds
GRACE = 30
PIECE = 1 << 20
NAT64 = ipaddress.ip_network("64:ff9b::/96")
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
            if response.status not in REDIRECTING:
                return _keep(url, response, target, limit, progress)
            url = urljoin(url, response.headers.get("Location", ""))
        except TimeoutError:
            raise FetchError(f"{_host(url)} sent nothing for {TIMEOUT} seconds.") from None
        except (ssl.SSLError, ConnectionError, http.client.HTTPException) as error:
            raise FetchError(f"{_host(url)} stopped answering: {error}.") from error
        except ValueError as error:
            raise FetchError(f"{_host(url)} redirects to what is not an address.") from error
        finally:
            response.close()
            connection.close()
    raise FetchError(f"{_host(url)} redirects more than {REDIRECTS} times.")


def _host(url: str) -> str:
    return urlsplit(url).hostname or "the address"


def _ask(url: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """Send the request and read the head of the answer, within ``TIMEOUT`` seconds each."""
    try:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
    except ValueError as error:
        raise FetchError(f"{url[:100]!r} is not an address.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchError(f"{_host(url)}: only http and https addresses are fetched.")
    connection = http.client.HTTPConnection(parts.hostname, port, timeout=TIMEOUT)
    connection.default_port = 443 if secure else 80  # what the Host header leaves out
    try:
        connection.sock = _connect(public_addresses(parts.hostname, port), port)
        # a server that sends its headers byte by byte never trips the socket's own timeout
        line = connection.sock.dup()
        timer = threading.Timer(TIMEOUT, _hang_up, [line])
        timer.start()
        try:
            if secure:
                context = ssl.create_default_context()
                connection.sock = context.wrap_socket(
                    connection.sock, server_hostname=parts.hostname
                )
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", path, headers={"Accept-Encoding": "identity"})
            return connection, connection.getresponse()
        finally:
            timer.cancel()
            line.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        connection.close()
        raise FetchError(f"{parts.hostname} cannot be reached: {error}.") from error
    except FetchError:
        connection.close()
        raise


def _hang_up(line: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was closed meanwhile
        line.shutdown(socket.SHUT_RDWR)


def _connect(addresses: Sequence[str], port: int) -> socket.socket:
    """Connect to the first of ``addresses`` that answers."""
    for number, address in enumerate(addresses):
        try:
            line = socket.create_connection((address, port), timeout=CONNECT_TIMEOUT)
            line.settimeout(TIMEOUT)
            return line
        except OSError:
            if number == len(addresses) - 1:
                raise
    raise OSError("it has no address")


def public_addresses(host: str, port: int) -> list[str]:
    """Return the addresses of ``host``, all of which must be public.

    Raises:
        FetchError: one is not, unless the settings allow it.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not settings.FETCH_PRIVATE_ADDRESSES and not all(map(is_public, addresses)):
        raise FetchError(f"{host} is not a public address; nothing is fetched from it.")
    return addresses[:MOST_ADDRESSES]


def is_public(address: str) -> bool:
    """Whether ``address``, and any IPv4 address that a gateway reads in it, is of the Internet.

    IPv4-mapped (RFC 4291), 6to4 (RFC 3056), Teredo (RFC 4380), NAT64 (RFC 6052).
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    meant: list[ipaddress.IPv4Address | ipaddress.IPv6Address | None] = [parsed]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            meant = [parsed.ipv4_mapped]
        meant += [parsed.sixtofour, *(parsed.teredo or ())]
        if parsed in NAT64:
            meant.append(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF))
    return all(one.is_global and not one.is_multicast for one in meant if one is not None)


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
    size, began = 0, time.monotonic()
    with target.open("xb") as file:
        while piece := response.read1(PIECE):  # what is there, without waiting for more
            size += len(piece)
            if size < SLOWEST * (time.monotonic() - began - GRACE):
                raise FetchError(f"{_host(url)} sends {target.name} too slowly.")
            if size > limit:
                raise FetchError(f"{target.name} has more than the {limit:,} bytes left for today.")
            file.write(piece)
            progress(len(piece))
    if announced is not None and size != announced:
        raise FetchError(f"{_host(url)} sent {size:,} of {announced:,} bytes of {target.name}.")
    return size
