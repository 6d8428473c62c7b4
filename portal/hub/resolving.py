"""The bytes, for the Hub's clients: HEAD says what a file is, GET sends on to a signed URL.

HEAD is answered 200 and only GET 302: a client whose connection drops asks here again, so that the
policy is asked again and a new signature given.
"""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.timezone import now

from portal.access import policy
from portal.accounts.addresses import address_of
from portal.accounts.models import ApiToken
from portal.delivery.issuing import IssueError, issue
from portal.delivery.views import open_file
from portal.hub import repositories, standing
from portal.hub.answers import GATED, NO_ENTRY, Refusal, answer, hub_view, warn
from portal.hub.callers import ANY, caller, require_checkpoint, require_scope
from portal.hub.repositories import MAIN, Repository

URL_SECONDS = 300


@hub_view("GET", "HEAD")
def resolve_view(request: HttpRequest, repo: str, revision: str, path: str) -> HttpResponseBase:
    """Answer for one file of a revision: to anyone if it is of the manifest, else under a grant."""
    token = caller(request, *ANY)
    found = repositories.find(repo, revision)
    entry = found.listing.entries.get(path)
    if entry is None:
        what = f"{found.checkpoint} has no file {path[:200]!r}."
        raise Refusal(what, 404, NO_ENTRY, commit=found.commit)
    is_head = request.method == "HEAD"
    if entry.is_manifest:
        response: HttpResponseBase = (
            HttpResponse() if is_head else open_file(request, found.shard(path))
        )
    else:
        response = _gated(request, found, path, token)
    response.headers["X-Repo-Commit"] = found.commit
    response.headers["X-Linked-Size"] = str(entry.size)
    response.headers["X-Linked-Etag"] = f'"{entry.etag}"'
    if is_head:
        response.headers["ETag"] = f'"{entry.etag}"'
        response.headers["Content-Length"] = str(entry.size)
        response.headers["Content-Type"] = "application/octet-stream"
        response.headers["Accept-Ranges"] = "bytes"
        response.headers["Cache-Control"] = "private, no-cache"
    return response


def _gated(
    request: HttpRequest, found: Repository, path: str, token: ApiToken | None
) -> HttpResponseBase:
    """Answer under the grant in force; a GET is an issue of one URL, recorded before it is answered.

    Raises:
        Refusal: there is no such grant; it says why.
    """
    # HEAD gives no bytes, so that a token for reading is enough
    token, said = _allowed(found, token, "read" if request.method == "HEAD" else "download")
    if request.method == "HEAD":
        response = HttpResponse()
    else:
        try:
            _, (file,) = issue(
                token.user,
                found.checkpoint,
                at=now(),
                paths=[path],
                expires_in=URL_SECONDS,
                address=address_of(request),
                agent=request.headers.get("User-Agent", ""),
                token=token,
            )
        except IssueError as error:  # the grant ended since it was asked for
            raise _no(found, str(error), status=error.status) from None
        response = HttpResponse(status=302, headers={"Location": file.url})
        response.headers["Cache-Control"] = "no-store"
    recall = standing.recall_of(found.checkpoint)
    warn(response, standing.warning(found.checkpoint.name, recall, said))
    return response


def _allowed(found: Repository, token: ApiToken | None, scope: str) -> tuple[ApiToken, str]:
    """Return the token that has access for ``scope``, and until when.

    Raises:
        Refusal: it has none; it says why.
    """
    checkpoint = found.checkpoint
    if token is None:
        page = f"{settings.PUBLIC_URL}{reverse('family', args=[checkpoint.family.slug])}"
        made = f"{settings.PUBLIC_URL}{reverse('tokens')}"
        raise _no(
            found,
            f"{checkpoint} is given to those whose request was approved. Apply at {page} , then "
            f"make a token at {made} and send it as HF_TOKEN.",
            status=401,
        )
    require_scope(token, scope)
    require_checkpoint(token, checkpoint)
    at = now()
    access = policy.decide(token.user, checkpoint, at)
    said = standing.access_of(token.user, checkpoint, access, at)
    if not access.allowed:
        raise _no(found, said)
    return token, said


def _no(found: Repository, message: str, *, status: int = 403) -> Refusal:
    topic = f"{found.checkpoint} refused"
    warning = standing.warning(topic, standing.recall_of(found.checkpoint), message)
    code = GATED if status in (401, 403) else ""
    return Refusal(message, status, code, warning=warning, commit=found.commit)


@hub_view("GET", "HEAD")
def check_view(request: HttpRequest, repo: str) -> HttpResponse:
    """Say whether the caller would get the bytes of the newest version, or why not."""
    found = repositories.find(repo, MAIN)
    _, said = _allowed(found, caller(request, *ANY), "read")
    recall = standing.recall_of(found.checkpoint)
    return answer({}, warning=standing.warning(found.checkpoint.name, recall, said))
