"""What the outbox holds of a person: their mails, which go with their account."""

from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser

from portal.outbox.models import Message


def export(user: AbstractBaseUser) -> list[dict[str, Any]]:
    """Return the mails written to ``user``, the oldest first."""
    mails = Message.objects.filter(to_id=user.pk).order_by("created_at", "pk")
    return [dict(row) for row in mails.values("kind", "subject", "body", "created_at", "sent_at")]


def erase(user: AbstractBaseUser) -> None:
    """Delete the mails written to ``user``; what they told of is kept where it happened."""
    Message.objects.filter(to_id=user.pk).delete()
