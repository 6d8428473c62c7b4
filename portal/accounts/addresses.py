"""Where a request comes from."""

import ipaddress
from collections.abc import Sequence

from django.conf import settings
from django.http import HttpRequest

MOST_RANGES = 32


class RangeError(Exception):
    """A range of addresses cannot be used; the message says how to write one."""


def address_of(request: HttpRequest) -> str | None:
    """Return the address that asks: behind a proxy, the one that the proxy has seen."""
    said = request.headers.get("X-Forwarded-For", "") if settings.BEHIND_PROXY else ""
    text = said.rsplit(",", 1)[-1].strip() or request.META.get("REMOTE_ADDR", "")
    try:
        return str(plain(text))
    except ValueError:
        return None


def plain(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Read an address; one of IPv4 that comes mapped into IPv6 is the one of IPv4 (RFC 4291)."""
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def read_ranges(texts: Sequence[str]) -> list[str]:
    """Return ranges of addresses in CIDR notation (RFC 4632), each as its network.

    Raises:
        RangeError: one cannot be read, or there are too many.
    """
    if len(texts) > MOST_RANGES:
        raise RangeError(f"Give at most {MOST_RANGES} ranges of addresses.")
    ranges = []
    for text in texts:
        try:
            ranges.append(str(ipaddress.ip_network(text, strict=False)))
        except ValueError:
            raise RangeError(
                f"{text[:60]!r} is no range of addresses: write 192.0.2.0/24 or 2001:db8::/32."
            ) from None
    return list(dict.fromkeys(ranges))


def within(address: str | None, ranges: Sequence[str]) -> bool:
    """Whether ``address`` lies in one of ``ranges``; where it is not known, it does not."""
    if address is None:
        return False
    place = plain(address)
    return any(place in ipaddress.ip_network(one) for one in ranges)
