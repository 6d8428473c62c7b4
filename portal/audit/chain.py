"""Append to the audit chain, and find any break in it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.utils.timezone import now

from portal.audit.models import GENESIS, Event

DOMAIN = b"wb-event-v1\0"
# Any number serves, as long as nothing else in this database takes the same advisory lock.
POSTGRES_LOCK = 0x77656967


class AuditError(Exception):
    """The event could not be written; whatever it was about must not happen."""


@dataclass(frozen=True, slots=True)
class Break:
    """A place where the chain does not hold."""

    seq: int
    message: str


def canonical(value: Any) -> str:
    """Return ``value`` as JSON with sorted keys and no spaces, the form that is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def event_hash(event: Event) -> str:
    """Return the hash that ``event`` must carry, as hexadecimal digits."""
    fields = {
        "seq": event.seq,
        "at": event.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "actor": event.actor,
        "action": event.action,
        "subject": event.subject,
        "detail": event.detail,
        "prev": event.prev,
    }
    return hashlib.sha256(DOMAIN + canonical(fields).encode()).hexdigest()


def record(
    action: str, *, subject: str, actor: str, at: datetime | None = None, **detail: Any
) -> Event:
    """Append an event, inside the transaction of the change that it describes.

    Raises:
        AuditError: no transaction is open: the event could be kept without its change, or lost.
    """
    if not connection.in_atomic_block:
        raise AuditError(f"{action} was to be recorded outside a transaction.")
    if connection.vendor == "postgresql":
        # On SQLite the open write transaction is the lock.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [POSTGRES_LOCK])
    head = Event.objects.order_by("-seq").values_list("seq", "hash").first()
    seq, prev = (head[0] + 1, head[1]) if head else (1, GENESIS)
    event = Event(
        seq=seq,
        at=at or now(),
        actor=actor,
        action=action,
        subject=subject,
        detail=canonical(detail),
        prev=prev,
    )
    event.hash = event_hash(event)
    event.save(force_insert=True)
    return event


def breaks() -> Iterator[Break]:
    """Yield every place where the chain does not hold, against itself and the heads noted earlier."""
    noted = dict(noted_heads())
    seq, prev = 0, GENESIS
    for event in Event.objects.order_by("seq").iterator(chunk_size=2000):
        if event.seq != seq + 1:
            yield Break(event.seq, f"events {seq + 1} to {event.seq - 1} are missing")
        if event.prev != prev:
            yield Break(event.seq, "it does not follow from the event before it")
        if event_hash(event) != event.hash:
            yield Break(event.seq, "its content does not give its hash: it was edited")
        if noted.pop(event.seq, event.hash) != event.hash:
            yield Break(event.seq, "it is not the event that was noted as the head of the chain")
        seq, prev = event.seq, event.hash
    for missing in sorted(noted):
        yield Break(missing, "it was noted as the head of the chain, and is gone")


def note_head(at: datetime | None = None) -> tuple[int, str]:
    """Write the chain's head to a file beside the database and return it.

    No trigger stops the owner of a database file from cutting the end of the chain off; a head
    that was noted elsewhere shows it.
    """
    with transaction.atomic():
        head = Event.objects.order_by("-seq").values_list("seq", "hash").first() or (0, GENESIS)
    line = canonical({"seq": head[0], "hash": head[1], "at": (at or now()).isoformat()})
    if head[0]:
        settings.AUDIT_HEADS.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with settings.AUDIT_HEADS.open("a") as file:
            file.write(line + "\n")
    return head


def noted_heads() -> Iterator[tuple[int, str]]:
    """Yield (seq, hash) of every head noted so far."""
    try:
        with settings.AUDIT_HEADS.open() as file:
            for line in file:
                head = json.loads(line)
                yield head["seq"], head["hash"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError) as error:
        raise AuditError(
            f"{settings.AUDIT_HEADS} is not a list of noted heads: {error}."
        ) from error
