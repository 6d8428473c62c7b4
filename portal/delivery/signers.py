"""Our own signature on a portal URL: HMAC-SHA-256 (RFC 2104) over what the URL opens and until when."""

import hashlib
import hmac
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from urllib.parse import urlencode

from django.conf import settings

from portal.storage.keyfiles import read_or_make_secret

DOMAIN = "wb-url-v1"


class UrlError(Exception):
    """A signed URL does not hold; the message says why and what to do."""


@cache
def _key(path: Path) -> bytes:
    return bytes.fromhex(read_or_make_secret(path))


def _signature(grant: int, shard: int, method: str, expires: int) -> str:
    signed = "\n".join((DOMAIN, str(grant), str(shard), method, str(expires)))
    key = _key(settings.DATA / "keys" / "url.key")
    return hmac.new(key, signed.encode(), hashlib.sha256).hexdigest()


def sign(grant: int, shard: int, *, method: str, expires_at: datetime) -> str:
    """Return the query that makes a portal URL good for one method on one shard until then."""
    expires = int(expires_at.timestamp())
    return urlencode({"expires": expires, "signature": _signature(grant, shard, method, expires)})


def check(
    grant: int, shard: int, *, method: str, expires: str, signature: str, at: datetime
) -> None:
    """Check a portal URL at the moment ``at``.

    Raises:
        UrlError: the signature is not ours for exactly this, or the time is over.
    """
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
        raise UrlError("This URL is not complete: copy the whole of it, or get a new one.")
    expected = _signature(grant, shard, method, int(expires))
    if not hmac.compare_digest(expected.encode(), signature.encode()):
        raise UrlError("This URL was changed: its signature does not fit. Get a new one.")
    if at.timestamp() >= int(expires):
        ended = datetime.fromtimestamp(int(expires), UTC)
        raise UrlError(f"This URL ended at {ended:%H:%M:%S on %d %B %Y} UTC. Get a new one.")
