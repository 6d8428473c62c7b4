"""The API, version 1: what is published, for anyone; signed URLs for whoever has a token.

Errors are problem details (RFC 9457).
"""

import functools
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import URLPattern, URLResolver
from django.utils.timezone import now
from django.views.decorators.cache import cache_control
from django.views.decorators.http import condition
from ninja import NinjaAPI, Query, Schema, Status
from ninja.decorators import decorate_view
from ninja.errors import AuthenticationError, HttpError, ValidationError

from portal.access.api import ApplyError
from portal.access.api import router as access
from portal.accounts import tokens
from portal.accounts.addresses import address_of
from portal.accounts.api import Bearer
from portal.accounts.api import router as accounts
from portal.accounts.models import ApiToken
from portal.accounts.rates import RateError
from portal.catalog.models import Checkpoint, CheckpointNameError
from portal.delivery import listing
from portal.delivery.issuing import IssueError, issue
from portal.delivery.sketches import SketchError, hand_over

MOST_SHARDS = 10_000


api = NinjaAPI(title="Weighbridge", version="1", urls_namespace="api", docs_url=None)
api.add_router("", accounts)
api.add_router("", access)


def problem(status: int, detail: str) -> HttpResponse:
    """Return an error as a problem document."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    # a 401 names the way to sign in (RFC 9110, section 11.6.1)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return JsonResponse(
        body, status=status, content_type="application/problem+json", headers=headers
    )


@api.exception_handler(AuthenticationError)
def _unauthenticated(request: HttpRequest, error: Exception) -> HttpResponse:
    return problem(401, "Send a token: Authorization: Bearer hf_… .")


@api.exception_handler(tokens.TokenError)
def _refused_token(request: HttpRequest, error: Exception) -> HttpResponse:
    return problem(403 if isinstance(error, tokens.ScopeError) else 401, str(error))


@api.exception_handler(RateError)
def _too_often(request: HttpRequest, error: RateError) -> HttpResponse:
    answer = problem(429, str(error))
    answer.headers["Retry-After"] = str(error.wait)
    return answer


@api.exception_handler(IssueError)
def _refused_issue(request: HttpRequest, error: IssueError) -> HttpResponse:
    return problem(error.status, str(error))


@api.exception_handler(ApplyError)
def _refused_application(request: HttpRequest, error: ApplyError) -> HttpResponse:
    return problem(error.status, str(error))


@api.exception_handler(SketchError)
def _refused_sketch(request: HttpRequest, error: SketchError) -> HttpResponse:
    return problem(error.status, str(error))


@api.exception_handler(CheckpointNameError)
def _wrong_name(request: HttpRequest, error: Exception) -> HttpResponse:
    return problem(422, str(error))


@api.exception_handler(HttpError)
def _unreadable(request: HttpRequest, error: HttpError) -> HttpResponse:
    return problem(error.status_code, f"{error}; send JSON such as {{“checkpoint”: “llama/7b@1”}}.")


@api.exception_handler(ValidationError)
def _invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    first = error.errors[0]
    return problem(422, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}.")


class DownloadIn(Schema):
    """What is wanted: a checkpoint, some of its files (all if left out), seconds until the end."""

    checkpoint: str
    shards: list[str] | None = None
    expires_in: int | None = None


class FileOut(Schema):
    """One file and the URL that opens it."""

    path: str
    size: int
    sha256: str
    url: str


class DownloadOut(Schema):
    """One issue of URLs."""

    id: int
    checkpoint: str
    grant: int
    expires_at: datetime
    files: list[FileOut]


@api.post("/downloads", auth=Bearer("download"), response={201: DownloadOut})
def make_download(request: HttpRequest, wanted: DownloadIn) -> Any:
    """Issue a signed URL for each file wanted, under the caller's grant in force."""
    token: ApiToken = request.auth  # type: ignore[attr-defined]  # set by ninja from Bearer
    checkpoint = Checkpoint.objects.named(wanted.checkpoint).select_related("family").first()
    if checkpoint is None:
        raise IssueError(f"{wanted.checkpoint} is not published here.", 404)
    tokens.require_checkpoint(token, checkpoint.name)
    if wanted.shards and len(wanted.shards) > MOST_SHARDS:
        raise IssueError(f"shards: ask for at most {MOST_SHARDS} at once.", 422)
    download, files = issue(
        token.user,
        checkpoint,
        at=now(),
        paths=wanted.shards,
        expires_in=wanted.expires_in,
        address=address_of(request),
        agent=request.headers.get("User-Agent", ""),
        token=token,
    )
    answer = {
        "id": download.pk,
        "checkpoint": checkpoint.name,
        "grant": download.grant_id,
        "expires_at": download.expires_at,
        "files": [
            {
                "path": file.shard.path,
                "size": file.shard.size,
                "sha256": file.shard.sha256,
                "url": file.url,
            }
            for file in files
        ],
    }
    return Status(201, answer)


class DigestOut(Schema):
    """One file of a checkpoint: open to all, its bytes are not."""

    path: str
    size: int
    sha256: str


class CheckpointOut(Schema):
    """A published checkpoint: its files by digest, and where its signed manifest lies."""

    name: str
    revision: int
    published_at: datetime
    size: int
    statement_sha256: str
    signed_by: str
    weights_sha256: str
    files: list[DigestOut]
    manifest: list[FileOut]


class CheckpointsOut(Schema):
    """A page of what is published, oldest first, and the address of the next page."""

    checkpoints: list[CheckpointOut]
    next: str | None


@api.get("/checkpoints", response=CheckpointsOut)
@decorate_view(cache_control(public=True, no_cache=True), condition(etag_func=listing.etag_of))
def list_checkpoints(
    request: HttpRequest,
    name: str | None = None,
    after: int = Query(0, ge=0, le=listing.LAST),
    limit: int = Query(listing.PAGE, ge=1, le=listing.LARGEST_PAGE),
) -> dict[str, Any]:
    """List what is published, to anyone: names, digests, and the addresses of the manifests.

    ``name`` asks for one checkpoint. ``after`` is given by the ``next`` of the page before.
    """
    return listing.page(name=name, after=after, limit=limit)


@api.get("/checkpoints/{path:name}/sketch", auth=Bearer("verify", "read"))
def get_sketch(request: HttpRequest, name: str) -> HttpResponse:
    """Hand over the secret sketch of a checkpoint, to a grantee or a reviewer; it is recorded."""
    token: ApiToken = request.auth  # type: ignore[attr-defined]  # set by ninja from Bearer
    content = hand_over(token, name, at=now())
    return HttpResponse(
        content, content_type="application/json", headers={"Cache-Control": "no-store"}
    )


def urls() -> tuple[list[URLPattern | URLResolver], str, str]:
    """Return the API's addresses; a method that one does not know is a problem like any other."""
    patterns, app_name, namespace = api.urls
    for pattern in patterns:
        if isinstance(pattern, URLPattern):
            pattern.callback = _with_problems(pattern.callback)
    return patterns, app_name, namespace


def _with_problems(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    @functools.wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = view(request, *args, **kwargs)
        if response.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
            return response
        allowed = response.headers["Allow"]
        refusal = problem(405, f"{request.method} is not for this address: send {allowed}.")
        refusal.headers["Allow"] = allowed
        return refusal

    return answer
