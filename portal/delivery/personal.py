"""What the downloads hold of a person: where they asked from, which goes with their account."""

from typing import Any

from portal.accounts.models import User
from portal.delivery.models import Download


def export(user: User) -> list[dict[str, Any]]:
    """Return each issue of URLs to ``user``, the oldest first."""
    downloads = Download.objects.filter(user=user).order_by("pk").prefetch_related("shards")
    return [
        {
            "id": one.pk,
            "grant": one.grant_id,
            "at": one.at,
            "expires_at": one.expires_at,
            "address": one.address,
            "agent": one.agent,
            "shards": [shard.path for shard in one.shards.all()],
        }
        for one in downloads
    ]


def erase(user: User) -> None:
    """Forget from where ``user`` downloaded; what and when stays, because grants answer for it."""
    Download.objects.filter(user=user).update(address=None, agent="")
