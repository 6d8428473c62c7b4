"""What the checks hold of a person: what they gave to be checked, which goes with their account."""

from typing import Any

from portal.accounts.models import User
from portal.verification.models import Verification

Status = Verification.Status


def export(user: User) -> list[dict[str, Any]]:
    """Return the checks that ``user`` asked for, with their reports, the oldest first."""
    checks = Verification.objects.filter(asked_by=user).order_by("created_at")
    return [
        dict(row)
        for row in checks.values(
            "id", "source", "what", "status", "created_at", "verdict", "sentence", "report"
        )
    ]


def erase(user: User) -> None:
    """Give up the checks of ``user`` that are not done, and forget what was checked.

    That a copy of a checkpoint was checked, when, and with which verdict, stays.
    """
    mine = Verification.objects.filter(asked_by=user)
    mine.filter(status__in=(Status.QUEUED, Status.RUNNING)).update(
        status=Status.FAILED, owner=None, lease_until=None
    )
    mine.update(what=[], report=None, sentence="")
