"""Mail to people, written in the transaction that it tells of and sent after it."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import Q


class MessageQuerySet(models.QuerySet["Message"]):
    def due(self, at: datetime) -> MessageQuerySet:
        """Messages to be tried at ``at``."""
        return self.filter(sent_at=None, next_try_at__lte=at, attempts__lt=Message.ATTEMPTS)


class Message(models.Model):
    """One mail, to a person's address of now or, with ``address``, to the one that is meant.

    Where the text is ``private`` it holds a link that opens something: nobody is shown it here,
    and it goes as soon as it is sent or given up.
    """

    ATTEMPTS = 12

    to = models.ForeignKey(
        "accounts.User", on_delete=models.PROTECT, related_name="messages", null=True, blank=True
    )
    address = models.EmailField(blank=True, help_text="where it goes, if not to the person's own")
    kind = models.CharField(max_length=40)
    about = models.CharField(max_length=100, help_text="the audit's id of what it tells of")
    subject = models.CharField(max_length=200)
    body = models.TextField(blank=True)
    private = models.BooleanField(default=False)
    created_at = models.DateTimeField()
    next_try_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    error = models.CharField(max_length=300, blank=True)
    objects = MessageQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["sent_at", "next_try_at"])]
        constraints = [
            models.CheckConstraint(
                condition=Q(to__isnull=False) | ~Q(address=""), name="a_message_goes_somewhere"
            )
        ]

    def __str__(self) -> str:
        return self.subject

    @property
    def recipient(self) -> str:
        """The address that it goes to."""
        return self.address or (self.to.email if self.to else "")
