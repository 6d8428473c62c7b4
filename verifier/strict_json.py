"""JSON from strangers: bounded in size, count and depth, without duplicate keys (RFC 8259, 4).

Python's own parser keeps the last of two equal keys, and other parsers keep the first: a signed
text that two readers understand differently is refused. NaN and Infinity are not JSON.
"""

import json
from typing import Any, NoReturn

from .errors import ManifestError

MAX_BYTES = 16 << 20
MAX_ITEMS = 2_000_000
"""Commas and opening brackets together; it bounds the memory of what the parser makes."""


def loads(data: bytes, what: str, *, max_bytes: int = MAX_BYTES) -> Any:
    """Parse ``data`` and return its value; ``what`` names the text in errors.

    Raises:
        ManifestError: it is too large, not UTF-8, not JSON, too deep, or repeats a key.
    """
    if len(data) > max_bytes:
        raise ManifestError(f"{what} is larger than {max_bytes >> 20} MiB and was not read.")
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_ITEMS:
        raise ManifestError(f"{what} has more than {MAX_ITEMS:,} items and was not read.")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise ManifestError(f"{what} repeats the key {key[:80]!a}; ask for a new one.")
            result[key] = value
        return result

    def refuse(constant: str) -> NoReturn:
        raise ManifestError(f"{what} holds {constant}, which is not JSON.")

    try:
        return json.loads(data.decode(), object_pairs_hook=unique, parse_constant=refuse)
    except RecursionError:
        raise ManifestError(f"{what} is nested too deeply to be honest and was not read.") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{what} is not UTF-8 text.") from None
    except ValueError as error:
        raise ManifestError(f"{what} is not JSON: {error}.") from None
