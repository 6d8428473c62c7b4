"""The audit: one append-only chain of events, each bound to the one before it.

An event holds opaque ids and facts, no names and no addresses of people: those are looked up when
an event is shown, so that the chain may be kept for ever. The database itself refuses to change or
delete a row (migrations/0002_append_only.py).

    hash = SHA-256("wb-event-v1\\0" ‖ canonical JSON of {seq, at, actor, action, subject, detail, prev})
"""

from django.db import models

GENESIS = "0" * 64


class Event(models.Model):
    """One thing that happened: who did what to what, and when."""

    seq = models.BigIntegerField(primary_key=True)
    at = models.DateTimeField()
    actor = models.CharField(
        max_length=100, help_text="user:12, command:publish, worker, anonymous"
    )
    action = models.CharField(max_length=60, help_text="noun.verb, in the past: grant.revoked")
    subject = models.CharField(max_length=200, help_text="request:5, checkpoint:llama/7b@1")
    detail = models.TextField(default="{}", help_text="canonical JSON")
    prev = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)

    class Meta:
        ordering = ["-seq"]
        indexes = [
            models.Index(fields=["subject", "seq"]),
            models.Index(fields=["actor", "seq"]),
        ]

    def __str__(self) -> str:
        return f"{self.seq} {self.action} {self.subject}"
