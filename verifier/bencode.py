"""Bencoding from strangers: bounded in size, count and depth, and read strictly (BEP 3).

    integer i42e    text 4:spam    list l…e    dictionary d…e, keys in ascending order of bytes

An integer or length with a leading zero, ``-0``, a repeated key and bytes behind the end have no
meaning that all programs share, and are refused. Keys in another order are read, and noted.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import TorrentError

MAX_BYTES = 64 << 20
MAX_VALUES = 250_000
"""Keys count too."""
MAX_DEPTH = 64

_INTEGER = re.compile(rb"i(0|-?[1-9][0-9]{0,18})e")
_LENGTH = re.compile(rb"(0|[1-9][0-9]{0,18}):")
_LARGEST = (1 << 63) - 1
_LIST, _DICTIONARY, _NUMBER, _END = b"ldie"

Value = int | bytes | list["Value"] | dict[bytes, "Value"]


@dataclass(frozen=True, slots=True)
class Document:
    """A dictionary, the bytes that one of its values was written in, and whether keys ascend.

    ``raw`` looks into the bytes that were read: they may be many.
    """

    fields: Mapping[bytes, Value]
    raw: memoryview | None
    canonical: bool


def decode(data: bytes, what: str, *, keep: bytes = b"info") -> Document:
    """Read the dictionary that is all of ``data``; ``what`` names the text in errors.

    ``keep`` is the key of the value whose own bytes are wanted: an infohash is over them.

    Raises:
        TorrentError: it is too large, too deep, or not bencoded as the standard says.
    """
    if len(data) > MAX_BYTES:
        raise TorrentError(f"{what} is larger than {MAX_BYTES >> 20} MiB and was not read.")
    return _Reader(data, what).document(keep)


def encode(value: Value) -> bytes:
    """Return ``value`` in its canonical form."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, bytes):
        return b"%d:%b" % (len(value), value)
    if isinstance(value, list):
        return b"l%be" % b"".join(map(encode, value))
    return b"d%be" % b"".join(encode(key) + encode(value[key]) for key in sorted(value))


class _Reader:
    """One pass over the bytes; ``at`` is where the next value begins."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.what = what
        self.at = 0
        self.values = 0
        self.canonical = True

    def document(self, keep: bytes) -> Document:
        """Read the outermost dictionary."""
        if self.data[:1] != b"d":
            raise TorrentError(f"{self.what} is not a torrent: it does not begin a dictionary.")
        spans: dict[bytes, slice] = {}
        fields = self._dictionary(1, spans)
        if self.at != len(self.data):
            raise self._broken("bytes lie behind its end")
        raw = memoryview(self.data)[spans[keep]] if keep in spans else None
        return Document(fields, raw, self.canonical)

    def _value(self, depth: int) -> Value:
        if depth > MAX_DEPTH:
            raise TorrentError(f"{self.what} is nested deeper than {MAX_DEPTH}; it was not read.")
        kind = self._next()
        if kind == _LIST:
            return self._list(depth)
        if kind == _DICTIONARY:
            return self._dictionary(depth)
        return self._integer() if kind == _NUMBER else self._text()

    def _next(self) -> int:
        """Return the byte at which the next value, or the end of this one, begins."""
        if self.at >= len(self.data):
            raise self._broken("it ends too early")
        return self.data[self.at]

    def _count(self) -> None:
        self.values += 1
        if self.values > MAX_VALUES:
            raise TorrentError(f"{self.what} has more than {MAX_VALUES:,} values; not read.")

    def _integer(self) -> int:
        self._count()
        found = _INTEGER.match(self.data, self.at)
        number = int(found[1]) if found else _LARGEST + 1
        if found is None or abs(number) > _LARGEST:
            raise self._broken("an integer is not written as the standard says")
        self.at = found.end()
        return number

    def _text(self) -> bytes:
        self._count()
        found = _LENGTH.match(self.data, self.at)
        if found is None:
            raise self._broken("a text does not begin with its length")
        start, length = found.end(), int(found[1])
        if length > len(self.data) - start:
            raise self._broken(f"a text claims {length:,} bytes, more than there are")
        self.at = start + length
        return self.data[start : self.at]

    def _list(self, depth: int) -> list[Value]:
        self._count()
        self.at += 1
        found: list[Value] = []
        while self._next() != _END:
            found.append(self._value(depth + 1))
        self.at += 1
        return found

    def _dictionary(
        self, depth: int, spans: dict[bytes, slice] | None = None
    ) -> dict[bytes, Value]:
        self._count()
        self.at += 1
        found: dict[bytes, Value] = {}
        last: bytes | None = None
        while self._next() != _END:
            key = self._text()
            if key in found:
                raise self._broken(f"it repeats the key {key[:80]!a}")
            self.canonical = self.canonical and (last is None or last < key)
            last, start = key, self.at
            found[key] = self._value(depth + 1)
            if spans is not None:
                spans[key] = slice(start, self.at)
        self.at += 1
        return found

    def _broken(self, reason: str) -> TorrentError:
        return TorrentError(f"{self.what} is broken near byte {self.at:,}: {reason}.")
