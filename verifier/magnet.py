"""Magnet links: an infohash, and what whoever wrote the link says about it (BEP 9, BEP 53).

magnet:?xt=urn:btih:<40 hex or 32 base32>     SHA-1 of info (v1 and hybrid)
       &xt=urn:btmh:1220<64 hex>              SHA-256 of info (v2 and hybrid)
       &dn=<name>&xl=<bytes>&tr=<tracker>…    claims; no tracker is ever asked
"""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .errors import TorrentError
from .names import shown
from .walk import MAX_FILE_BYTES

MAX_CHARACTERS = 64 << 10
MAX_FIELDS = 1000
_SHA256_MULTIHASH = "1220"


@dataclass(frozen=True, slots=True)
class Magnet:
    """What a link says; ``v1`` and ``v2`` are infohashes in hex, ``length`` is in bytes."""

    v1: str | None
    v2: str | None
    name: str | None
    length: int | None
    trackers: int

    @property
    def plain(self) -> str:
        """The link without what is not an infohash: trackers' addresses may hold secrets."""
        topics = [f"xt=urn:btih:{self.v1}"] if self.v1 else []
        topics += [f"xt=urn:btmh:{_SHA256_MULTIHASH}{self.v2}"] if self.v2 else []
        return f"magnet:?{'&'.join(topics)}"

    def as_json(self) -> dict[str, Any]:
        """Return the link as a report shows it."""
        return {
            "name": self.name,
            "infohash_v1": self.v1,
            "infohash_v2": self.v2,
            "bytes": self.length,
            "trackers": self.trackers,
        }


def parse(uri: str) -> Magnet:
    """Read the magnet link ``uri``.

    Raises:
        TorrentError: it is no magnet link, has no infohash or two of a kind, or is over a limit.
    """
    if len(uri) > MAX_CHARACTERS:
        raise _bad(f"it has more than {MAX_CHARACTERS:,} characters")
    try:
        split = urlsplit(uri)
        fields = parse_qsl(split.query, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise _bad(f"it is not an address, or has more than {MAX_FIELDS:,} fields") from None
    if split.scheme != "magnet":
        raise _bad("it does not begin with `magnet:?`")
    topics = [value for key, value in fields if re.fullmatch(r"xt(\.\d+)?", key)]
    v1 = _only({_btih(t[9:]) for t in topics if t.lower().startswith("urn:btih:")})
    v2 = _only({_btmh(t[9:]) for t in topics if t.lower().startswith("urn:btmh:")})
    if v1 is None and v2 is None:
        raise _bad("it has no `xt=urn:btih:` and no `xt=urn:btmh:`")
    named = dict(reversed(fields))  # the first of each counts
    return Magnet(
        v1, v2, named.get("dn"), _length(named.get("xl")), sum(key == "tr" for key, _ in fields)
    )


def _btih(text: str) -> str:
    if re.fullmatch("[0-9a-fA-F]{40}", text):
        return text.lower()
    try:
        found = base64.b32decode(text.upper()) if len(text) == 32 else b""
    except (binascii.Error, ValueError):
        found = b""
    if not found:
        raise _bad("`btih` is neither 40 hex digits nor 32 of base32")
    return found.hex()


def _btmh(text: str) -> str:
    if not re.fullmatch(f"{_SHA256_MULTIHASH}[0-9a-fA-F]{{64}}", text):
        raise _bad("`btmh` is not `1220` and 64 hex digits, a SHA-256 multihash")
    return text.removeprefix(_SHA256_MULTIHASH).lower()


def _only(found: set[str]) -> str | None:
    if len(found) > 1:
        raise _bad("it has two infohashes of one kind")
    return next(iter(found), None)


def _length(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,16}", text) or int(text) > MAX_FILE_BYTES:
        raise _bad(f"`xl` is {shown(text)[:80]!r}, not a length between 0 and 2^50 bytes")
    return int(text)


def _bad(reason: str) -> TorrentError:
    return TorrentError(f"The magnet link cannot be judged: {reason}.")
