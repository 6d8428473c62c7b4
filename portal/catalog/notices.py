"""Recall a checkpoint version: say to everyone who verifies it that it should not be used."""

from datetime import datetime

from django.db import transaction

from portal.audit.chain import record
from portal.catalog.models import Checkpoint, Notice


class RecallError(Exception):
    """Nothing was recalled; the message says why."""


@transaction.atomic
def recall(
    checkpoint: Checkpoint,
    *,
    reason: str,
    replacement: Checkpoint | None = None,
    by: str,
    at: datetime,
) -> Notice:
    """Recall ``checkpoint`` with a reason, and the version to be used instead, if there is one.

    Raises:
        RecallError: no reason is given, or it would replace itself.
    """
    if not reason.strip():
        raise RecallError("Say why it is recalled; everyone who verifies it will read it.")
    if replacement == checkpoint:
        raise RecallError(f"{checkpoint} cannot replace itself; name another version.")
    notice = Notice.objects.create(
        checkpoint=checkpoint, reason=reason.strip()[:300], replacement=replacement, at=at, by=by
    )
    record(
        "checkpoint.recalled",
        subject=checkpoint.subject,
        actor=by,
        at=at,
        reason=notice.reason,
        replacement=replacement.name if replacement else None,
    )
    return notice
