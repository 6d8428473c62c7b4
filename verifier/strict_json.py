"""JSON from strangers: bounded in size, count and depth, without duplicate keys (RFC 8259, 4).

Python's own parser keeps the last of two equal keys, and other parsers keep the first: a signed
text that two readers understand differently is refused. NaN and Infinity are not JSON, and half of
a surrogate pair is not a character: no name holds one (RFC 8259, 8.2).
"""

import itertools
import json
import re
from typing import Any, NoReturn

from .errors import ManifestError

MAX_BYTES = 16 << 20
MAX_ITEMS = 700_000
"""Commas and opening brackets together; it bounds the memory and time of what the parser makes."""
_WIDE = 4
"""Bytes that Python takes for every character of a text with one outside the first plane."""

# An escaped backslash, a whole pair, or half of one: whatever begins first is taken.
_SURROGATE = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F])"
)


def loads(data: bytes, what: str, *, max_bytes: int = MAX_BYTES, max_items: int = MAX_ITEMS) -> Any:
    """Parse ``data`` and return its value; ``what`` names the text in errors.

    Text outside ASCII may have a quarter of ``max_bytes``, since it takes up to four times as much.

    Raises:
        ManifestError: it is too large, not UTF-8, not JSON, too deep, or repeats a key.
    """
    limit = max_bytes if data.isascii() else max_bytes // _WIDE
    if len(data) > limit:
        raise ManifestError(f"{what} is larger than {limit >> 20} MiB and was not read.")
    if data.count(b",") + data.count(b"[") + data.count(b"{") > max_items:
        raise ManifestError(f"{what} has more than {max_items:,} items and was not read.")
    if b"\\u" in data and any(found[1] for found in _SURROGATE.finditer(data)):
        raise ManifestError(f"{what} holds half of a surrogate pair, which is no character.")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            keys = sorted(key for key, _ in pairs)
            twice = next(one for one, next_ in itertools.pairwise(keys) if one == next_)
            raise ManifestError(f"{what} repeats the key {twice[:80]!a}; ask for a new one.")
        return result

    def refuse(constant: str) -> NoReturn:
        raise ManifestError(f"{what} holds {constant}, which is not JSON.")

    try:
        return json.loads(data.decode(), object_pairs_hook=unique, parse_constant=refuse)
    except RecursionError:
        raise ManifestError(f"{what} is nested too deeply to be honest and was not read.") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{what} is not UTF-8 text.") from None
    except json.JSONDecodeError as error:
        raise ManifestError(f"{what} is not JSON: {error}.") from None
    except ValueError:  # Python's own limit on the digits of a number
        raise ManifestError(
            f"{what} is not JSON that can be read: a number has thousands of digits."
        ) from None


def brief(value: object, width: int = 40) -> str:
    """Return at most ``width`` characters that show a parsed value, however large or deep it is."""
    if isinstance(value, str):
        return value[:width]
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return json.dumps(value)[:width]
