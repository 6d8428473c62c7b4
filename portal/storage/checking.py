"""Prove a store's configuration end to end: put, look up, read, hand out, refuse, delete.

What is put has a name of its own and is deleted again, whatever happens in between. Browsers follow
the signed URLs as links, so no rules for scripts of other origins (CORS) are asked of a store.
"""

import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import ClassVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from portal.storage.errors import StoreError
from portal.storage.stores import Store, Stored

PREFIX = ".weighbridge-check-"
CONTENT = bytes(range(256)) * 4
SMALLEST_PART = 5 << 20  # of S3: two parts prove that parts may be sent, with little to send
GET_SECONDS = 20
MAX_ANSWER = 1 << 20
MOST_SKEW = 20  # seconds between two clocks, of the sixty that a store's signature lives
SHORT_LIFE = 2
SLACK = 1.5  # after the end of a signature; stores count whole seconds

PUT = "put"
REFUSED = ("tampering refused", "no signature refused", "expiry refused")
REST = ("head", "read", "presign", "get", "range", *REFUSED)

SignUrl = Callable[[str, Stored, int], str]  # key, what the store says of it, seconds


class CheckError(Exception):
    """A step did not hold; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried: whether it held, and what there is to say about it."""

    name: str
    held: bool
    says: str = ""


@dataclass
class Check:
    """One run over one store.

    ``sign`` makes the URLs; ``opens`` says what to look at where a signed URL does not open.
    """

    store: Store
    sign: SignUrl
    opens: str
    shut: Callable[[str], list[str]] = lambda key: []  # further addresses that must not open it
    in_parts: bool = False
    keeps_versions: bool = False
    _made: list[tuple[str, Stored | None]] = field(default_factory=list)
    key: str = field(default_factory=lambda: PREFIX + secrets.token_hex(16))

    def run(self) -> Iterator[Step]:
        """Give the outcome of each step; after one that failed only the clearing up is done."""
        try:
            yield from self._try(self.STEPS_OF_A_BUCKET if self.in_parts else self.STEPS)
        finally:
            failed = self._clear()
        if any(stored for _, stored in self._made):
            yield Step("delete", not failed, failed or "nothing is left behind")

    def _try(self, steps: tuple[str, ...]) -> Iterator[Step]:
        for name in steps:
            method: Callable[[], str] = getattr(self, f"_{name.replace(' ', '_')}")
            try:
                says = method()
            except (CheckError, StoreError) as error:
                yield Step(name, False, str(error))
                return
            yield Step(name, True, says)

    STEPS: ClassVar = (PUT, *REST)
    STEPS_OF_A_BUCKET: ClassVar = (PUT, "put in parts", *REST)

    def _put(self) -> str:
        self._made.append((self.key, None))
        self._stored = self.store.put_bytes(self.key, CONTENT)
        self._made[-1] = (self.key, self._stored)
        return f"{len(CONTENT):,} bytes as {self.key}"

    def _put_in_parts(self) -> str:
        key = f"{self.key}-parts"
        with tempfile.NamedTemporaryFile() as file:
            file.truncate(SMALLEST_PART + 1)
            self._made.append((key, None))
            stored = self.store.put_file(key, Path(file.name))
            self._made[-1] = (key, stored)
        return f"{stored.size:,} bytes; compared by their digests"

    def _head(self) -> str:
        found = self.store.head(self.key)
        if found is None or found.size != len(CONTENT):
            raise CheckError(
                "What was put a moment ago is not found: several stores behind one address?"
            )
        if self.keeps_versions and not found.version:
            return (
                "it is there; the bucket keeps no versions, so an object that is replaced by hand "
                "would be handed out: turn versioning on"
            )
        return f"it is there{f', version {found.version}' if found.version else ''}"

    def _read(self) -> str:
        with self.store.open(self.key, self._stored.version) as file:
            if file.read() != CONTENT:
                raise CheckError("Other bytes came back than were put; do not use this store.")
        return "the same bytes"

    def _presign(self) -> str:
        self._url = self.sign(self.key, self._stored, 60)
        return urlsplit(self._url).netloc

    def _get(self) -> str:
        started = time.time()
        try:
            status, headers, content = _ask(self._url)
        except CheckError as error:
            raise CheckError(f"{error} {self.opens}") from error
        skew = _skew(headers, (started + time.time()) / 2)
        late = f"; the clocks are {skew:.0f} s apart: set this machine's (chrony)" if skew else ""
        if status != 200:
            said = content[:300].decode(errors="replace").strip()
            raise CheckError(
                f"A signed URL was answered {status}{late or f' ({said})'}. {self.opens}"
            )
        if content != CONTENT:
            raise CheckError(f"A signed URL gave {len(content):,} other bytes{late}. {self.opens}")
        if late:
            raise CheckError(f"It works{late}, or signatures end before they are used.")
        return f"{len(content):,} bytes"

    def _range(self) -> str:
        status, _, content = _ask(self._url, Range="bytes=100-199")
        if (status, content) != (206, CONTENT[100:200]):
            raise CheckError(
                f"bytes 100-199 were answered {status} with {len(content):,} bytes: no download "
                "could go on; use a store (or a proxy in front of it) that answers ranges."
            )
        return "206"

    def _tampering_refused(self) -> str:
        return _require_refused(
            {
                "with another object's name": self._url.replace(self.key, f"{self.key}x"),
                "with a changed signature": _flipped(self._url),
            }
        )

    def _no_signature_refused(self) -> str:
        urls = {"without a signature": self._url.partition("?")[0]}
        return _require_refused(urls | {f"such as {url}": url for url in self.shut(self.key)})

    def _expiry_refused(self) -> str:
        url = self.sign(self.key, self._stored, SHORT_LIFE)
        time.sleep(SHORT_LIFE + SLACK)
        return _require_refused({"whose time is over": url})

    def _clear(self) -> str:
        """Delete what was put; say what could not be deleted."""
        failed = []
        for key, stored in self._made:
            try:
                left = stored or self.store.head(key)
                version = left.version if left else ""
                self.store.delete(key, version)
                if left and self.store.head(key, version) is not None:
                    failed.append(f"{key} is still there, version {version}; delete it by hand.")
            except StoreError as error:
                if stored:  # what could not be put need not be deleted
                    failed.append(f"{error} Delete {key} by hand.")
        return " ".join(failed)


class _Stay(HTTPRedirectHandler):
    """Takes a redirect for an answer: a store that sends elsewhere is not set up right."""

    def redirect_request(self, *_: object) -> None:
        return None


def _ask(url: str, **headers: str) -> tuple[int, HTTPMessage, bytes]:
    try:
        answer = build_opener(_Stay).open(Request(url, headers=headers), timeout=GET_SECONDS)
    except HTTPError as error:
        answer = error
    except (URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise CheckError(
            f"Nothing answers at {urlsplit(url).netloc} ({reason}): it must be reachable from here "
            "and from where people download."
        ) from error
    with answer:
        try:
            return answer.status or 0, answer.headers, answer.read(MAX_ANSWER)
        except (HTTPException, OSError) as error:
            raise CheckError(
                f"The answer of {urlsplit(url).netloc} broke off; try again."
            ) from error


def _require_refused(urls: dict[str, str]) -> str:
    answers = []
    for what, url in urls.items():
        status, _, content = _ask(url)
        if CONTENT[:100] in content or not 400 <= status < 500:
            raise CheckError(
                f"A URL {what} was answered {status}: whoever finds an address could fetch the "
                "weights. Shut public access to the store, or do not use it."
            )
        answers.append(str(status))
    return ", ".join(answers)


def _flipped(url: str) -> str:
    """Return the URL with one character changed, in the middle of its signature."""
    name = next(name for name in ("X-Amz-Signature=", "Signature=", "signature=") if name in url)
    at = url.index(name) + len(name) + 10
    return url[:at] + ("1" if url[at] != "1" else "2") + url[at + 1 :]


def _skew(headers: HTTPMessage, at: float) -> float:
    """Return the seconds between the answer's clock and ours, or 0 where they hardly differ."""
    try:
        theirs = parsedate_to_datetime(headers.get("Date", ""))
    except ValueError:
        return 0
    skew = abs((theirs - datetime.fromtimestamp(at, UTC)).total_seconds())
    return skew if skew > MOST_SKEW else 0
