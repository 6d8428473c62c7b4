"""What the requests and grants hold of a person: given to them, and emptied with their account."""

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from functools import partial
from typing import IO, Any

from django.db import transaction

from portal.access.applications import withdraw
from portal.access.models import (
    Acceptance,
    AccessRequest,
    Appeal,
    Attachment,
    Grant,
    Message,
)
from portal.accounts.models import User
from portal.audit.chain import record
from portal.storage.stores import store

REASON = "The account was deleted by its person."


def export(user: User) -> dict[str, Any]:
    """Return what ``user`` asked for, was told, accepted and was granted."""
    requests = AccessRequest.objects.filter(applicant=user).select_related("family").order_by("pk")
    return {
        "requests": [
            {
                "id": one.pk,
                "family": one.family.slug,
                "status": one.status,
                "answers": one.answers,
                "created_at": one.created_at,
                "submitted_at": one.submitted_at,
                "decisions": list(
                    one.decisions.values("outcome", "reason", "at", "appeal__reason", "appeal__at")
                ),
                "messages": list(one.messages.values("from_reviewer", "body", "at")),
                "files": list(one.attachments.values("name", "size", "sha256", "added_at")),
            }
            for one in requests
        ],
        "acceptances": list(
            Acceptance.objects.filter(user=user)
            .order_by("pk")
            .values("terms_id", "text_sha256", "at", "address", "agent")
        ),
        "grants": [
            {
                "id": one.pk,
                "checkpoint": str(one.checkpoint),
                "starts_at": one.starts_at,
                "expires_at": one.expires_at,
                "revoked_at": one.revoked_at,
                "revoke_reason": one.revoke_reason,
            }
            for one in Grant.objects.filter(grantee=user).select_related("checkpoint__family")
        ],
    }


def files(user: User) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the name, inside the export, and the content of each file that ``user`` attached."""
    mine = Attachment.objects.filter(request__applicant=user).order_by("pk")
    for one in mine:
        with closing(store().open(one.store_key)) as content:
            yield f"files/request-{one.request_id}/{one.pk}-{one.name}", content


def erase(user: User, *, by: str, at: datetime) -> None:
    """End the grants of ``user``, withdraw what is open, and empty what they wrote.

    That there was a request, what was decided and which terms were accepted when, stays.
    """
    for grant in Grant.objects.filter(grantee=user, revoked_at=None, expires_at__gt=at):
        Grant.objects.filter(pk=grant.pk, revoked_at=None).update(
            revoked_at=at, revoked_by=user, revoke_reason=REASON
        )
        record("grant.revoked", subject=grant.subject, actor=by, at=at, reason=REASON)
    for request in AccessRequest.objects.filter(applicant=user).open():
        withdraw(request, at=at)
    AccessRequest.objects.filter(applicant=user).update(answers={}, meanwhile={})
    for file in Attachment.objects.filter(request__applicant=user):
        transaction.on_commit(partial(store().delete, file.store_key))
        file.delete()
    Message.objects.filter(request__applicant=user).update(body="")
    Appeal.objects.filter(decision__request__applicant=user).update(reason="")
    Acceptance.objects.filter(user=user).update(address=None, agent="")
