"""What the audit holds of a person: it is theirs to read, and stays, for it names nobody."""

from typing import Any

from django.db.models import Q

from portal.audit.models import Event


def export(actor: str) -> list[dict[str, Any]]:
    """Return the events that ``actor`` caused or is the subject of, the oldest first."""
    events = Event.objects.filter(Q(actor=actor) | Q(subject=actor)).order_by("seq")
    return [dict(row) for row in events.values("seq", "at", "actor", "action", "subject", "detail")]
