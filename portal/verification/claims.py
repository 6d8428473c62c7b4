"""Who runs a check: claimed by one worker, kept by a heartbeat, fenced by its owner.

The queue may lose a message or bring it twice; a worker may be killed at any moment. What is true
stands in the row, and each change of it is one conditional update.
"""

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q

from portal.audit.chain import record
from portal.verification.models import Verification

Status = Verification.Status
WAKE_AGAIN_AFTER = timedelta(seconds=15)


def lease() -> timedelta:
    """Return how long a check stays its worker's without a heartbeat."""
    return timedelta(seconds=settings.CHECK_LEASE_SECONDS)


def claim(check_id: uuid.UUID, *, at: datetime) -> uuid.UUID | None:
    """Take the check for this worker; return the owner's mark, or None if it is not to be had."""
    owner = uuid.uuid4()
    claimed = (
        Verification.objects.claimable(at)
        .filter(pk=check_id)
        .update(
            status=Status.RUNNING,
            owner=owner,
            lease_until=at + lease(),
            attempt=F("attempt") + 1,
            started_at=at,
            stage="",
            bytes_done=0,
        )
    )
    return owner if claimed else None


def _owned(check_id: uuid.UUID, owner: uuid.UUID) -> Any:
    return Verification.objects.filter(pk=check_id, owner=owner, status=Status.RUNNING)


def beat(
    check_id: uuid.UUID, owner: uuid.UUID, *, at: datetime, progress: Mapping[str, Any]
) -> bool:
    """Keep the lease and show the progress; False when the check is no longer this worker's."""
    return bool(_owned(check_id, owner).update(lease_until=at + lease(), **progress))


@transaction.atomic
def finish(
    check_id: uuid.UUID, owner: uuid.UUID, *, at: datetime, status: Status, **result: Any
) -> bool:
    """Write the result down, once; False when the check is no longer this worker's."""
    changed = _owned(check_id, owner).update(
        status=status, finished_at=at, lease_until=None, **result
    )
    if changed:
        record(
            "verification.finished",
            subject=f"verification:{check_id}",
            actor="worker",
            at=at,
            status=status,
            verdict=result.get("verdict", ""),
        )
    return bool(changed)


def due(at: datetime) -> list[uuid.UUID]:
    """Return checks that nobody works on though somebody should, and mark them as woken now."""
    found = []
    waiting = Verification.objects.claimable(at).filter(
        Q(woken_at=None) | Q(woken_at__lt=at - WAKE_AGAIN_AFTER)
    )
    for check_id, woken_at in waiting.values_list("pk", "woken_at"):
        same = Verification.objects.filter(pk=check_id, woken_at=woken_at)
        if same.update(woken_at=at):
            found.append(check_id)
    return found


def give_up(at: datetime) -> None:
    """Fail the checks whose every attempt ended without a result."""
    lost = Verification.objects.filter(
        status=Status.RUNNING, lease_until__lt=at, attempt__gte=Verification.ATTEMPTS
    )
    for check in lost:
        with transaction.atomic():
            gone = Verification.objects.filter(
                pk=check.pk, status=Status.RUNNING, owner=check.owner, lease_until__lt=at
            ).update(
                status=Status.FAILED,
                finished_at=at,
                sentence=f"The worker ended {check.attempt} times without a result; "
                "ask the operators to look into its log.",
            )
            if gone:
                record("verification.given_up", subject=check.subject, actor="worker", at=at)
