"""Serve one object of the folder store: whole or one range (RFC 9110, sections 13 and 14).

Django's FileResponse knows no ranges. What is answered here is a file object that ends where the
range ends, so that gunicorn hands it to sendfile(2). Where nginx stands in front, it is told the
name of the file (X-Accel-Redirect) and answers ranges and conditions by itself.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import quote

from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header

from portal.catalog.models import Shard
from portal.storage.stores import StoreError, store

NGINX_PLACE = "/_weights/"  # internal there: see docs/deploy/nginx.conf
BLOCK = 1 << 20
ONE_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))", re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes [start, end) of an object."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


class Window:
    """A file that ends where a span ends, for sendfile(2) or reading in blocks."""

    def __init__(self, file: BinaryIO, span: Span) -> None:
        file.seek(span.start)
        self._file, self._end = file, span.end
        self.fileno, self.tell, self.close = file.fileno, file.tell, file.close

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes, never past the span."""
        left = max(self._end - self._file.tell(), 0)
        return self._file.read(left if size < 0 else min(size, left))

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(BLOCK):
            yield block


def etag_of(shard: Shard) -> str:
    """Return the strong validator of a shard: its SHA-256, quoted."""
    return f'"{shard.sha256}"'


def asked_span(header: str, size: int) -> Span | None:
    """Return the span that a Range header asks for, or None where the whole is to be sent.

    Other units, several ranges and malformed headers are answered with the whole, as RFC 9110
    section 14.2 allows.

    Raises:
        ValueError: the range lies outside an object of ``size`` bytes.
    """
    match = ONE_RANGE.fullmatch(header.strip())
    if not match:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        if int(suffix) == 0 or size == 0:
            raise ValueError(header)
        return Span(max(size - int(suffix), 0), size)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise ValueError(header)
    return Span(start, min(int(last) + 1, size) if last else size)


def headers_of(shard: Shard) -> dict[str, str]:
    """Return what is true of a shard whichever bytes of it are sent."""
    return {
        "ETag": etag_of(shard),
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-transform",
        "Content-Disposition": disposition(shard),
        "X-Content-Type-Options": "nosniff",
    }


def disposition(shard: Shard) -> str:
    """Return the Content-Disposition of a shard: saved under its own name, never shown."""
    return content_disposition_header(True, shard.path.rsplit("/", 1)[-1]) or "attachment"


def headers_behind_redirect(shard: Shard) -> dict[str, str]:
    """Return what HEAD says where GET is answered by a store, which has validators of its own."""
    headers = headers_of(shard) | {
        "Content-Length": str(shard.size),
        "Content-Type": "application/octet-stream",
    }
    del headers["ETag"]
    return headers


def serve(request: HttpRequest, shard: Shard) -> HttpResponseBase:
    """Answer a GET or HEAD for ``shard`` from the store.

    Raises:
        StoreError: the object is not there.
    """
    if settings.SENDFILE == "nginx":
        return _through_nginx(shard)
    etag, headers = etag_of(shard), headers_of(shard)
    if_match = request.headers.get("If-Match", "")
    if if_match and if_match != "*" and etag not in _listed(if_match):
        return HttpResponse(status=412, headers=headers)
    if_none_match = request.headers.get("If-None-Match", "")
    if if_none_match == "*" or etag in {tag.removeprefix("W/") for tag in _listed(if_none_match)}:
        return HttpResponse(status=304, headers=headers)
    span = None
    # Range is for GET only (RFC 9110, section 14.2)
    if request.method == "GET" and request.headers.get("If-Range", etag) == etag:
        try:
            span = asked_span(request.headers.get("Range", ""), shard.size)
        except ValueError:
            headers["Content-Range"] = f"bytes */{shard.size}"
            return HttpResponse(status=416, headers=headers)
    if span:
        headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{shard.size}"
    status, span = (206, span) if span else (200, Span(0, shard.size))
    headers |= {"Content-Length": str(span.length), "Content-Type": "application/octet-stream"}
    if request.method == "HEAD":
        return HttpResponse(status=status, headers=headers)
    response = FileResponse(
        Window(store().open(shard.store_key, shard.store_version), span), status=status
    )
    response.block_size = BLOCK
    for name, value in headers.items():
        response[name] = value
    return response


def _through_nginx(shard: Shard) -> HttpResponse:
    """Let nginx send the file; it keeps these headers and adds validators of its own."""
    if store().head(shard.store_key) is None:
        raise StoreError(f"{shard.store_key} is not in the store.")
    headers = headers_of(shard) | {
        "Content-Type": "application/octet-stream",
        # quoted: nginx takes off one layer, and a name may hold "?", "%" or "#"
        "X-Accel-Redirect": f"{NGINX_PLACE}{quote(shard.store_key)}",
    }
    del headers["ETag"]
    return HttpResponse(headers=headers)


def _listed(header: str) -> set[str]:
    """Return the tags of a header; a weak one keeps its ``W/``, which If-Match never matches
    and If-None-Match overlooks (RFC 9110, sections 13.1.1 and 13.1.2)."""
    return {tag.strip() for tag in header.split(",")}
