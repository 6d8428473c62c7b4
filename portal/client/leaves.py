"""Fetch leaves of files by Range requests under a grant; each is checked before it is kept.

What a server sends decides nothing: a leaf that does not have its signed digest is asked for once
more and then given up. Signed URLs end; whoever is refused asks for new ones, and is told the
reason if there are none.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from verifier.digests import DIGEST_BYTES, LEAF_BYTES, LeafList, leaf_count, leaf_digest
from verifier.names import shown

from .errors import BrokenOffError, ClientError, PortalError, RefusedError
from .site import TRIES, Response, Site, pieces

DOWNLOADS = "/api/v1/downloads"
AT_ONCE = 1_000  # files, of which one request asks the URLs
RUN_LEAVES = 16  # leaves asked for by one Range request
SENDINGS = 2  # of a leaf with wrong bytes
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)


@dataclass
class Urls:
    """The signed URLs of the files of a checkpoint, asked for when the first is needed."""

    site: Site
    checkpoint: str
    paths: Sequence[str]
    _known: dict[str, str] = field(default_factory=dict)

    def of(self, path: str) -> str:
        """Return a URL of ``path``.

        Raises:
            RefusedError: there is no grant in force; the message says why.
        """
        if path not in self._known:
            start = self.paths.index(path)
            self._ask(self.paths[start : start + AT_ONCE])
        return self._known[path]

    def forget(self) -> None:
        """Ask for new ones next time."""
        self._known.clear()

    def _ask(self, paths: Sequence[str]) -> None:
        if not self.site.token:
            raise ClientError(
                "There is no token: make one of scope “download” on your account's page at "
                f"{self.site.url} and set WEIGHBRIDGE_TOKEN."
            )
        wanted = {"checkpoint": self.checkpoint, "shards": list(paths)}
        answer = self.site.post_json(DOWNLOADS, wanted)
        try:
            self._known |= {str(file["path"]): str(file["url"]) for file in answer["files"]}
            missing = [path for path in paths if path not in self._known]
        except (KeyError, TypeError):
            missing = list(paths)
        if missing:
            raise PortalError(
                f"{self.site.origin.host} gave no URL for {shown(missing[0])}; try again later."
            )


@dataclass(frozen=True, slots=True)
class Wanted:
    """The file whose leaves are fetched: its path at the portal, its size, its signed digests."""

    path: str
    size: int
    leaves: LeafList

    def span(self, leaf: int) -> tuple[int, int]:
        """Return the bytes [start, end) of ``leaf``."""
        return leaf * LEAF_BYTES, min((leaf + 1) * LEAF_BYTES, self.size)

    def holds(self, leaf: int, data: memoryview) -> bool:
        """Tell whether ``data`` has the signed digest of ``leaf``."""
        at = leaf * DIGEST_BYTES
        single = leaf_count(self.size) == 1
        found = leaf_digest(self.leaves.kind, data, single)
        return found == self.leaves.digests[at : at + DIGEST_BYTES]


Keep = Callable[[int, memoryview], Any]


@dataclass
class Fetcher:
    """Fetches leaves of one checkpoint."""

    site: Site
    urls: Urls

    def fetch(self, file: Wanted, leaves: Sequence[int], keep: Keep) -> list[int]:
        """Fetch ``leaves`` of ``file``, in order, and ``keep`` each that is right.

        Returns the leaves that the portal does not have as they were signed.

        Raises:
            RefusedError: the portal says no.
            PortalError: it does not answer, or with something else.
        """
        todo = list(leaves)
        sent: dict[int, int] = {}
        wrong: list[int] = []
        failures, renewed, tag = 0, False, ""
        while todo:
            try:
                headers = _headers(file, todo, tag)
                with self.site.open(self.urls.of(file.path), headers) as response:
                    tag = _strong(response.headers.get("ETag", ""))
                    for leaf, data in _leaves(response, file, list(todo)):
                        if file.holds(leaf, data):
                            keep(leaf, data)
                            failures, renewed = 0, False
                        else:
                            sent[leaf] = sent.get(leaf, 0) + 1
                            if sent[leaf] < SENDINGS:
                                break  # asked for again, by a request of its own
                            wrong.append(leaf)
                        todo.remove(leaf)
            except BrokenOffError as error:
                failures += 1
                if failures >= TRIES:
                    raise
                self.site.pause(failures, error)
            except RefusedError as error:
                if error.status not in (401, 403, 404, 410) or renewed:
                    raise
                self.urls.forget()  # it ended; or else the portal says why there is no other
                renewed = True
        return wrong


def _headers(file: Wanted, todo: Sequence[int], tag: str) -> dict[str, str]:
    """Ask for the first of ``todo`` and those that follow it without a gap."""
    run = 1
    while run < min(len(todo), RUN_LEAVES) and todo[run] == todo[0] + run:
        run += 1
    start, end = file.span(todo[0])[0], file.span(todo[run - 1])[1]
    headers = {"Range": f"bytes={start}-{end - 1}"}
    if tag:
        headers["If-Range"] = tag
    return headers


def _strong(tag: str) -> str:
    """Return a validator that If-Range may use (RFC 9110, section 13.1.5), or nothing."""
    good = tag.startswith('"') and tag.endswith('"') and tag.isascii() and len(tag) < 200
    return tag if good else ""


def _leaves(
    response: Response, file: Wanted, todo: Sequence[int]
) -> Iterator[tuple[int, memoryview]]:
    """Give those of ``todo`` that the answer holds: a range of the file or, as it may, all of it."""
    start, end = _extent(response, file)
    inside = [leaf for leaf in todo if start <= file.span(leaf)[0] and file.span(leaf)[1] <= end]
    if not inside:
        raise PortalError(f"The portal sent another range of {shown(file.path)} than was asked.")
    stream = pieces(response)
    rest, at = memoryview(b""), start
    for leaf in inside:
        first, last = file.span(leaf)
        buffer, filled = bytearray(last - first), 0
        while filled < len(buffer):
            if not rest:
                rest = memoryview(next(stream, b""))
                if not rest:
                    raise BrokenOffError(f"The answer for {shown(file.path)} broke off.")
            skipped = min(max(first - at, 0), len(rest))
            rest, at = rest[skipped:], at + skipped
            taken = min(len(rest), len(buffer) - filled)
            buffer[filled : filled + taken] = rest[:taken]
            rest, at, filled = rest[taken:], at + taken, filled + taken
        yield leaf, memoryview(buffer)


def _extent(response: Response, file: Wanted) -> tuple[int, int]:
    """Return which bytes [start, end) of the file the answer says it holds."""
    if response.status == 200:
        start, end, total = 0, file.size, response.length
    else:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not match:
            raise PortalError(
                f"The portal sent a range of {shown(file.path)} without saying which."
            )
        start, end = int(match[1]), int(match[2]) + 1
        total = None if match[3] == "*" else int(match[3])
    if total is not None and total != file.size:
        raise PortalError(
            f"The portal has another {shown(file.path)}: {total:,} bytes instead of {file.size:,}."
        )
    return start, end
