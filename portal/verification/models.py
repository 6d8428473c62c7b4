"""One check of a copy, from the asking to the report. The row is the truth; the queue only wakes."""

from __future__ import annotations

import uuid
from datetime import datetime

from django.db import models
from django.db.models import Q
from django.urls import reverse

from portal.accounts.models import User
from portal.catalog.models import Checkpoint


class VerificationQuerySet(models.QuerySet["Verification"]):
    def claimable(self, at: datetime) -> VerificationQuerySet:
        """Checks that a worker may take at ``at``: queued, or running with a lease that ran out."""
        return self.filter(
            Q(status=Verification.Status.QUEUED)
            | Q(status=Verification.Status.RUNNING, lease_until__lt=at),
            attempt__lt=Verification.ATTEMPTS,
        )

    def visible_to(self, user: User) -> VerificationQuerySet:
        """Checks that ``user`` may see: their own, and all of them for who may review."""
        if user.has_perm("verification.view_verification"):
            return self
        return self.filter(asked_by=user)


class Verification(models.Model):
    """One check of one copy against a checkpoint (or against all, where none is named)."""

    class Status(models.TextChoices):
        QUEUED = "queued", "waiting for a worker"
        RUNNING = "running", "running"
        DONE = "done", "done"
        FAILED = "failed", "could not be run"

    class Source(models.TextChoices):
        FOLDER = "folder", "a folder under the drop folder"
        URLS = "urls", "a list of addresses"
        UPLOAD = "upload", "an upload"
        CHALLENGE = "challenge", "an answer to a challenge"

    ATTEMPTS = 8

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    asked_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="verifications")
    checkpoint = models.ForeignKey(
        Checkpoint, on_delete=models.PROTECT, null=True, blank=True, related_name="verifications"
    )
    source = models.CharField(max_length=10, choices=Source)
    what = models.JSONField(help_text="folder name, list of addresses, or uploaded file names")
    status = models.CharField(max_length=10, choices=Status, default=Status.QUEUED)
    created_at = models.DateTimeField()
    # who runs it: a lease that is renewed while the worker lives, and fenced by its owner
    owner = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    attempt = models.PositiveSmallIntegerField(default=0)
    woken_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    stage = models.CharField(max_length=20, blank=True)
    bytes_done = models.BigIntegerField(default=0)
    bytes_total = models.BigIntegerField(default=0)
    # the result
    verdict = models.CharField(max_length=20, blank=True)
    exit_status = models.SmallIntegerField(null=True, blank=True)
    sentence = models.TextField(blank=True)
    report = models.JSONField(null=True, blank=True)
    objects = VerificationQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        permissions = [("check_drop_folder", "Can check folders under the drop folder")]
        indexes = [models.Index(fields=["status", "lease_until"])]

    def __str__(self) -> str:
        return f"Verification {str(self.pk)[:8]}"

    def get_absolute_url(self) -> str:
        return reverse("verification", args=[self.pk])

    @property
    def subject(self) -> str:
        """The opaque id by which the audit knows this check."""
        return f"verification:{self.pk}"


class ChallengeQuerySet(models.QuerySet["Challenge"]):
    def visible_to(self, user: User) -> ChallengeQuerySet:
        """Challenges that ``user`` may see: those that they drew."""
        return self.filter(drawn_by=user)

    def open(self, at: datetime) -> ChallengeQuerySet:
        """Challenges that can still be answered at ``at``."""
        return self.filter(answered_at=None, expires_at__gt=at)


class Challenge(models.Model):
    """Questions for the holder of a copy, drawn once and answered once.

    A row without ``drawn_by`` lies in stock: nobody has seen its seed. Each of the later facts is
    filled in once, by a conditional update.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    checkpoint = models.ForeignKey(Checkpoint, on_delete=models.PROTECT, related_name="challenges")
    seed = models.CharField(max_length=64, help_text="hexadecimal; secret until it is drawn")
    positions = models.PositiveSmallIntegerField()
    made_at = models.DateTimeField()
    official = models.TextField(blank=True, help_text="what the official weights answer, cached")
    drawn_by = models.ForeignKey(
        User, on_delete=models.PROTECT, null=True, blank=True, related_name="challenges"
    )
    drawn_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    answered_at = models.DateTimeField(null=True, blank=True)
    answer = models.TextField(blank=True)
    verification = models.OneToOneField(
        Verification, on_delete=models.PROTECT, null=True, blank=True, related_name="challenge"
    )
    objects = ChallengeQuerySet.as_manager()

    class Meta:
        ordering = ["-made_at"]
        constraints = [
            models.UniqueConstraint(fields=["seed"], name="a_seed_asks_once"),
            models.CheckConstraint(
                condition=Q(drawn_by=None, drawn_at=None, expires_at=None)
                | Q(drawn_by__isnull=False, drawn_at__isnull=False, expires_at__isnull=False),
                name="a_challenge_is_drawn_by_somebody_until_it_expires",
            ),
        ]

    def __str__(self) -> str:
        return f"Challenge {str(self.pk)[:8]}"

    def get_absolute_url(self) -> str:
        return reverse("challenge", args=[self.pk])

    @property
    def subject(self) -> str:
        """The opaque id by which the audit knows this challenge."""
        return f"challenge:{self.pk}"

    def is_open(self, at: datetime) -> bool:
        """Whether it can still be answered at ``at``."""
        return not self.answered_at and bool(self.expires_at and at < self.expires_at)
