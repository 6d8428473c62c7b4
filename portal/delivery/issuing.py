"""Issue signed URLs under a grant in force: recorded first, handed over after."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote

from django.conf import settings
from django.db import transaction
from django.urls import reverse

from portal.access import policy
from portal.accounts.models import ApiToken, User
from portal.audit.chain import record
from portal.catalog.models import Checkpoint, Shard
from portal.delivery.models import Download
from portal.delivery.signers import sign


class IssueError(Exception):
    """No URL is issued; the message says why. ``status`` is the HTTP status that says the same."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class SignedFile:
    """A shard and the URL that opens it."""

    shard: Shard
    url: str


def issue(
    user: User,
    checkpoint: Checkpoint,
    *,
    at: datetime,
    paths: Sequence[str] | None = None,
    expires_in: int | None = None,
    address: str | None = None,
    agent: str = "",
    token: ApiToken | None = None,
) -> tuple[Download, list[SignedFile]]:
    """Return a recorded issue and a URL for each shard asked for (all where ``paths`` is None).

    ``expires_in`` is in seconds, from 1 to 12 hours; no URL outlives its grant or
    its terms. When this returns,
    the issue is committed.

    Raises:
        IssueError: the policy says no, a path is not of this checkpoint, or ``expires_in`` is out
            of bounds.
        AuditError: the issue could not be recorded.
    """
    seconds = settings.URL_SECONDS if expires_in is None else expires_in
    if not 1 <= seconds <= settings.URL_SECONDS_AT_MOST:
        raise IssueError(
            f"expires_in is {seconds}: say 1 to {settings.URL_SECONDS_AT_MOST} seconds.", 422
        )
    with transaction.atomic(durable=True):
        answer = policy.decide(user, checkpoint, at)
        if answer.grant is None:
            raise IssueError(answer.reason, 403)
        shards = _chosen(checkpoint, paths)
        expires_at = min(at + timedelta(seconds=seconds), policy.opens_until(answer.grant, at))
        download = Download.objects.create(
            grant=answer.grant,
            user=user,
            token=token,
            at=at,
            expires_at=expires_at,
            address=address,
            agent=agent[:300],
        )
        download.shards.set(shards)
        record(
            "urls.issued",
            subject=answer.grant.subject,
            actor=user.actor,
            at=at,
            download=download.pk,
            checkpoint=checkpoint.name,
            shards=[shard.pk for shard in shards],
            expires_at=expires_at.isoformat(),
        )
    return download, [SignedFile(shard, _url(download, shard)) for shard in shards]


def _chosen(checkpoint: Checkpoint, paths: Sequence[str] | None) -> list[Shard]:
    if paths is None:
        return list(checkpoint.shards.current())
    by_path = {shard.path: shard for shard in checkpoint.shards.current().filter(path__in=paths)}
    unknown = [path for path in paths if path not in by_path]
    if unknown or not paths:
        what = f"{unknown[0]!r} is not a file of {checkpoint}" if unknown else "shards is empty"
        raise IssueError(f"{what}; leave “shards” out to get all.", 422)
    return [by_path[path] for path in dict.fromkeys(paths)]


def _url(download: Download, shard: Shard) -> str:
    name = quote(shard.path.rsplit("/", 1)[-1])
    place = reverse("shard", args=[download.grant_id, shard.pk, "name"]).removesuffix("name") + name
    query = sign(download.grant_id, shard.pk, method="GET", expires_at=download.expires_at)
    return f"{settings.PUBLIC_URL}{place}?{query}"
