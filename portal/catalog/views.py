"""Whom to trust and what is newest, for everyone: root.json, its versions, latest.json."""

import hashlib
import logging

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from django.utils.timezone import now
from django.views.decorators.http import require_safe

from portal.catalog import keyring, newest

logger = logging.getLogger(__name__)

BY = "portal"
FOR_A_MINUTE = "public, max-age=60"
FOR_EVER = "public, max-age=31536000, immutable"


@require_safe
def root_view(request: HttpRequest, version: int | None = None) -> HttpResponseBase:
    """Serve the root in force, or the version asked for; each version is signed once."""
    try:
        in_force = keyring.current(by=BY, at=now()).version
    except keyring.KeyringError as error:
        return _unavailable(error)
    if version is not None and not 1 <= version <= in_force:
        raise Http404
    data = keyring.envelope_of(version or in_force)
    if data is None:
        raise Http404
    return _document(request, data, FOR_EVER if version else FOR_A_MINUTE)


@require_safe
def latest_view(request: HttpRequest) -> HttpResponseBase:
    """Serve what this portal says is newest; where it cannot be signed, nothing is served."""
    try:
        data = newest.current(by=BY, at=now())
    except newest.UnsignedError as error:
        return _unavailable(error)
    return _document(request, data, FOR_A_MINUTE)


def _document(request: HttpRequest, data: bytes, caching: str) -> HttpResponseBase:
    etag = f'"{hashlib.sha256(data).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": caching}
    response = HttpResponse(data, content_type="application/json", headers=headers)
    answer = get_conditional_response(request, etag=etag, response=response)
    return answer or response


def _unavailable(error: Exception) -> HttpResponse:
    """Tell the operators what is wrong, and the visitor that it is not their fault."""
    logger.error("%s", error)
    reason = "This portal cannot sign now: try again later, or write to the operators.\n"
    return HttpResponse(reason, status=503, content_type="text/plain; charset=utf-8")
