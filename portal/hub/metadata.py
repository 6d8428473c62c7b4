"""What is there, for the Hub's clients: models, revisions, files, and who asks.

Names and digests are open, as everywhere in the portal, so that anybody can verify a copy; a token
that is sent must be good, and has its person told how they stand.
"""

from datetime import datetime
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.timezone import now

from portal.access import policy
from portal.accounts.models import ApiToken
from portal.accounts.people import has_confirmed_address
from portal.catalog.models import Checkpoint
from portal.hub import repositories, standing
from portal.hub.answers import NO_ENTRY, NO_REPOSITORY, Refusal, answer, hub_view
from portal.hub.callers import ANY, caller, required
from portal.hub.repositories import MAIN, Repository, commit_of

PAGE = 1000
MOST_PATHS = 1000


def as_time(at: datetime) -> str:
    """Return a moment as the Hub writes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _found(request: HttpRequest, repo: str, revision: str) -> tuple[Repository, str]:
    """Return what is asked for, and what its asker is to be told."""
    token = caller(request, *ANY)
    found = repositories.find(repo, revision)
    return found, _told(token, found.checkpoint)


def _told(token: ApiToken | None, checkpoint: Checkpoint) -> str:
    # without a token nothing is said: a client's anonymous probe would show a false refusal
    if token is None or token.checkpoint not in ("", checkpoint.name):
        return ""
    at = now()
    access = policy.decide(token.user, checkpoint, at)
    return standing.warning(
        checkpoint.name,
        standing.recall_of(checkpoint),
        standing.access_of(token.user, checkpoint, access, at),
    )


def _model(checkpoint: Checkpoint, commit: str) -> dict[str, Any]:
    family = checkpoint.family.slug
    published = as_time(checkpoint.published_at)
    return {
        "_id": f"{checkpoint.pk:024x}",
        "id": f"{family}/{checkpoint.variant}",
        "modelId": f"{family}/{checkpoint.variant}",
        "author": family,
        "sha": commit,
        "createdAt": published,
        "lastModified": published,
        "private": False,
        "gated": "manual",
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [f"version:{checkpoint.version}"],
    }


@hub_view("GET", "HEAD")
def info_view(request: HttpRequest, repo: str, revision: str = MAIN) -> HttpResponse:
    """Say what a revision is: its commit, and the names of its files."""
    found, told = _found(request, repo, revision)
    blobs = _flag(request, "blobs")
    entries = found.listing.entries.values()
    model = _model(found.checkpoint, found.commit) | {
        "siblings": [
            {"rfilename": entry.path}
            | ({"size": entry.size, "blobId": entry.as_json()["oid"]} if blobs else {})
            | ({"lfs": _lfs(entry.as_json()["lfs"])} if blobs and not entry.git_sha1 else {})
            for entry in entries
        ],
        "usedStorage": sum(entry.size for entry in entries),
    }
    return answer(model, commit=found.commit, warning=told)


def _lfs(lfs: dict[str, Any]) -> dict[str, Any]:
    """Return the same, under the names that this route has for it."""
    return {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}


def _flag(request: HttpRequest, name: str) -> bool:
    # `True` is what clients before 1.0 send
    return request.GET.get(name, "").lower() in ("1", "true")


def _page_of(request: HttpRequest, rows: list[Any]) -> tuple[list[Any], str]:
    """Return the rows of the page that is asked for, and the address of the next one, if any."""
    limit = min(number(request, "limit", PAGE), PAGE) or PAGE
    start = number(request, "cursor", 0)
    after = start + limit
    if after >= len(rows):
        return rows[start:], ""
    return rows[start:after], following_page(request, after)


def following_page(request: HttpRequest, cursor: int) -> str:
    """Return the address of the page that begins at ``cursor``."""
    query = request.GET.copy()
    query["cursor"] = str(cursor)
    return f"{settings.PUBLIC_URL}{quote(request.path)}?{query.urlencode()}"


def number(request: HttpRequest, name: str, default: int) -> int:
    text = request.GET.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else default


def _words(request: HttpRequest, name: str) -> str:
    # PostgreSQL takes no NUL in a text
    return request.GET.get(name, "")[:100].replace("\0", " ")


def linked(response: HttpResponse, following: str) -> HttpResponse:
    if following:
        response.headers["Link"] = f'<{following}>; rel="next"'
    return response


@hub_view("GET", "HEAD")
def tree_view(request: HttpRequest, repo: str, revision: str, folder: str = "") -> HttpResponse:
    """List the files of a revision, in pages."""
    found, told = _found(request, repo, revision)
    folder = folder.strip("/")
    try:
        rows = found.listing.tree(folder, recursive=_flag(request, "recursive"))
    except KeyError:
        raise _no_entry(found, folder) from None
    page, following = _page_of(request, rows)
    if _flag(request, "expand"):
        last = {"lastCommit": _commit(found.checkpoint, found.commit)}
        page = [row | last for row in page]
    return linked(answer(page, commit=found.commit, warning=told), following)


def _no_entry(found: Repository, path: str) -> Refusal:
    what = f"{found.checkpoint} has no {path[:200]!r}."
    return Refusal(what, 404, NO_ENTRY, commit=found.commit)


@hub_view("POST")
def paths_view(request: HttpRequest, repo: str, revision: str) -> HttpResponse:
    """List those of the paths asked for that are there; nothing is changed by asking."""
    found, told = _found(request, repo, revision)
    paths = request.POST.getlist("paths")
    if len(paths) > MOST_PATHS:
        raise Refusal(f"paths: ask for at most {MOST_PATHS} at once.", 422)
    rows = {row["path"]: row for row in found.listing.tree("", recursive=True)}
    chosen = [rows[path] for path in dict.fromkeys(paths) if path in rows]
    return answer(chosen, commit=found.commit, warning=told)


@hub_view("GET", "HEAD")
def refs_view(request: HttpRequest, repo: str) -> HttpResponse:
    """List the revisions: `main`, and each version as a tag."""
    caller(request, *ANY)
    versions = list(repositories.versions_of(repo)[:PAGE])
    if not versions:
        raise repositories.missing(repo)
    newest = {"name": MAIN, "ref": "refs/heads/main", "targetCommit": commit_of(versions[0])}
    tags = [
        {
            "name": each.version,
            "ref": f"refs/tags/{each.version}",
            "targetCommit": commit_of(each),
        }
        for each in versions
    ]
    return answer({"branches": [newest], "tags": tags, "converts": [], "pullRequests": []})


def _commit(checkpoint: Checkpoint, commit: str) -> dict[str, Any]:
    title = f"Publish {checkpoint}, revision {checkpoint.revision} of its manifest"
    return {"id": commit, "title": title, "date": as_time(checkpoint.published_at)}


@hub_view("GET", "HEAD")
def commits_view(request: HttpRequest, repo: str, revision: str) -> HttpResponse:
    """List what was published up to a revision, the newest first."""
    found, told = _found(request, repo, revision)
    upto = repositories.versions_of(repo).filter(published_at__lte=found.checkpoint.published_at)
    rows = [
        _commit(each, commit_of(each)) | {"message": "", "authors": [{"user": each.family.slug}]}
        for each in upto[:PAGE]
    ]
    return answer(rows, commit=found.commit, warning=told)


@hub_view("GET", "HEAD")
def models_view(request: HttpRequest) -> HttpResponse:
    """List the repositories, the newest first, in pages."""
    caller(request, *ANY)
    found = repositories.newest()
    if author := _words(request, "author"):
        found = found.filter(family__slug=author)
    if words := _words(request, "search"):
        found = repositories.matching(found, words)
    limit = min(number(request, "limit", 100), PAGE) or 100
    start = number(request, "cursor", 0)
    rows = list(found[start : start + limit + 1])
    response = answer([_model(each, commit_of(each)) for each in rows[:limit]])
    return linked(response, following_page(request, start + limit) if rows[limit:] else "")


@hub_view("GET", "HEAD")
def whoami_view(request: HttpRequest) -> HttpResponse:
    """Say whose token it is and what it may do; never its secret."""
    token = required(request, *ANY)
    user = token.user
    return answer(
        {
            "type": "user",
            "id": str(user.pk),
            "name": user.email,
            "fullname": user.name or user.email,
            "email": user.email,
            "emailVerified": has_confirmed_address(user),
            "isPro": False,
            "canPay": False,
            "orgs": [],
            "auth": {
                "type": "access_token",
                "accessToken": {
                    "displayName": token.name or str(token),
                    "role": "write" if token.allows("review") else "read",
                    "createdAt": as_time(token.created_at),
                },
            },
        }
    )


@hub_view("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH")
def unknown_view(request: HttpRequest, rest: str = "") -> HttpResponse:
    """Say that this portal has no such place, as the clients understand it."""
    raise Refusal("This portal has no such repository, or does not do this.", 404, NO_REPOSITORY)
