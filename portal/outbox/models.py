"""Mail to people, written in the transaction that it tells of and sent after it."""

from __future__ import annotations

from datetime import datetime

from django.db import models


class MessageQuerySet(models.QuerySet["Message"]):
    def due(self, at: datetime) -> MessageQuerySet:
        """Messages to be tried at ``at``."""
        return self.filter(sent_at=None, next_try_at__lte=at, attempts__lt=Message.ATTEMPTS)


class Message(models.Model):
    """One mail to one person."""

    ATTEMPTS = 12

    to = models.ForeignKey("accounts.User", on_delete=models.PROTECT, related_name="messages")
    kind = models.CharField(max_length=40)
    about = models.CharField(max_length=100, help_text="the audit's id of what it tells of")
    subject = models.CharField(max_length=200)
    body = models.TextField()
    created_at = models.DateTimeField()
    next_try_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    error = models.CharField(max_length=300, blank=True)
    objects = MessageQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["sent_at", "next_try_at"])]

    def __str__(self) -> str:
        return self.subject
