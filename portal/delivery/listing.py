"""What is published, as data for anyone: names, digests of files, addresses of manifests."""

import hashlib
from typing import Any
from urllib.parse import quote, urlencode

from django.conf import settings
from django.db.models import Prefetch
from django.http import HttpRequest
from django.urls import reverse

from portal.catalog.models import Checkpoint, Shard

PAGE, LARGEST_PAGE = 20, 100
LAST = (1 << 63) - 1  # the largest id that a database knows


def page(*, name: str | None, after: int, limit: int) -> dict[str, Any]:
    """Return up to ``limit`` checkpoints that were published after the one with id ``after``.

    Raises:
        CheckpointNameError: ``name`` is not of the form.
    """
    found = Checkpoint.objects.named(name) if name is not None else Checkpoint.objects.all()
    rows = list(
        found.filter(pk__gt=after)
        .select_related("family")
        .prefetch_related(Prefetch("shards", Shard.objects.current()))
        .order_by("pk")[: limit + 1]
    )
    more = len(rows) > limit
    return {
        "checkpoints": [_as_json(checkpoint) for checkpoint in rows[:limit]],
        "next": _next(rows[limit - 1], limit) if more else None,
    }


def etag_of(request: HttpRequest, **arguments: Any) -> str:
    """Return the strong validator of a page: it changes when anything is published or signed again.

    A checkpoint's files never change, so that what was signed tells all.
    """
    signed = Checkpoint.objects.order_by("pk").values_list("pk", "revision", "statement_sha256")
    digest = hashlib.sha256(f"{settings.PUBLIC_URL} {request.get_full_path()}".encode())
    for row in signed.iterator():
        digest.update(repr(row).encode())
    return f'"{digest.hexdigest()[:32]}"'


def _as_json(checkpoint: Checkpoint) -> dict[str, Any]:
    shards = list(checkpoint.shards.all())
    files = [_digest(shard) for shard in shards if not shard.is_manifest]
    return {
        "name": checkpoint.name,
        "revision": checkpoint.revision,
        "published_at": checkpoint.published_at,
        "size": sum(file["size"] for file in files),
        "statement_sha256": checkpoint.statement_sha256,
        "signed_by": checkpoint.signed_by,
        "weights_sha256": checkpoint.weights_sha256,
        "files": files,
        "manifest": [
            _digest(shard) | {"url": _address(checkpoint, shard)}
            for shard in shards
            if shard.is_manifest
        ],
    }


def _digest(shard: Shard) -> dict[str, Any]:
    return {"path": shard.path, "size": shard.size, "sha256": shard.sha256}


def _address(checkpoint: Checkpoint, shard: Shard) -> str:
    return f"{settings.PUBLIC_URL}{reverse('manifest', args=[checkpoint.name, quote(shard.path)])}"


def _next(last: Checkpoint, limit: int) -> str:
    query = urlencode({"after": last.pk, "limit": limit})
    return f"{settings.PUBLIC_URL}{reverse('api:list_checkpoints')}?{query}"
