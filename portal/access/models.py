"""May they? Five facts in five places: the application, the decision, the acceptance of the terms,
the grant, and (in `delivery`) the issue of URLs. Access is computed from them by `policy.py`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import F, Q
from django.urls import reverse

from portal.access.questions import schema
from portal.accounts.models import User
from portal.catalog.models import Checkpoint, Family, Terms


class FormMistake(Exception):
    """The questions make no form; ``mistakes`` has a sentence for each reason."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__(" ".join(mistakes))
        self.mistakes = mistakes


class FormVersion(models.Model):
    """One version of a family's form, its questions as data (`questions` says which).

    Written once: other questions are another version, and old answers keep their own.
    """

    family = models.ForeignKey(Family, on_delete=models.PROTECT, related_name="form_versions")
    version = models.PositiveIntegerField()
    questions = models.JSONField()
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["family", "version"], name="one_form_per_version")
        ]

    def __str__(self) -> str:
        return f"{self.family} form, version {self.version}"

    def save(self, *args: Any, **options: Any) -> None:
        """Write a new version.

        Raises:
            FormMistake: the questions have mistakes, or this version is published already.
        """
        if not self._state.adding:
            raise FormMistake(["A published form is not changed; publish another version."])
        if found := schema.mistakes(self.questions):
            raise FormMistake(found)
        super().save(*args, **options)


class AccessRequestQuerySet(models.QuerySet["AccessRequest"]):
    def waiting(self) -> AccessRequestQuerySet:
        """Requests that wait for a reviewer, the oldest first."""
        return self.filter(status=AccessRequest.Status.SUBMITTED).order_by("submitted_at", "pk")

    def open(self) -> AccessRequestQuerySet:
        """Requests on which somebody, applicant or reviewer, still has something to do."""
        return self.filter(status__in=AccessRequest.OPEN)


class AccessRequest(models.Model):
    """One person's application for checkpoints of one family."""

    class Status(models.TextChoices):
        DRAFT = "draft", "draft"
        SUBMITTED = "submitted", "waiting for a reviewer"
        RETURNED = "returned", "returned to you"
        APPROVED = "approved", "approved"
        REJECTED = "rejected", "rejected"
        WITHDRAWN = "withdrawn", "withdrawn"

    EDITABLE = (Status.DRAFT, Status.RETURNED)
    OPEN = (Status.DRAFT, Status.SUBMITTED, Status.RETURNED)

    applicant = models.ForeignKey(User, on_delete=models.PROTECT, related_name="requests")
    family = models.ForeignKey(Family, on_delete=models.PROTECT, related_name="requests")
    checkpoints = models.ManyToManyField(Checkpoint, related_name="requests")
    form_version = models.ForeignKey(
        FormVersion, on_delete=models.PROTECT, null=True, blank=True, related_name="requests"
    )
    answers = models.JSONField(default=dict, help_text="by the question's id")
    meanwhile = models.JSONField(
        default=dict,
        help_text="by the question's id: the window that typed last, what another typed before",
    )
    status = models.CharField(max_length=12, choices=Status, default=Status.DRAFT)
    by_operator = models.BooleanField(default=False, help_text="made by `manage.py grant`")
    created_at = models.DateTimeField()
    saved_at = models.DateTimeField()
    submitted_at = models.DateTimeField(null=True, blank=True)
    objects = AccessRequestQuerySet.as_manager()

    class Meta:
        ordering = ["submitted_at", "pk"]
        permissions = [("decide_request", "Can decide on access requests and revoke grants")]
        constraints = [
            models.UniqueConstraint(
                fields=["applicant", "family"],
                condition=Q(status__in=["draft", "submitted", "returned"], by_operator=False),
                name="one_open_request_per_person_and_family",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["draft", "withdrawn"]) | Q(submitted_at__isnull=False),
                name="what_left_draft_was_submitted",
            ),
        ]

    def __str__(self) -> str:
        return f"Request {self.pk}"

    def get_absolute_url(self) -> str:
        return reverse("request", args=[self.pk])

    @property
    def subject(self) -> str:
        """The opaque id by which the audit knows this request."""
        return f"request:{self.pk}"

    @property
    def is_editable(self) -> bool:
        """Whether the applicant may still change the answers."""
        return self.status in self.EDITABLE


class Attachment(models.Model):
    """One file of an application, the answer to one question. Its bytes lie in the store."""

    request = models.ForeignKey(AccessRequest, on_delete=models.PROTECT, related_name="attachments")
    question = models.CharField(max_length=40)
    name = models.CharField(max_length=120)
    size = models.PositiveIntegerField(help_text="bytes")
    sha256 = models.CharField(max_length=64)
    media_type = models.CharField(max_length=100)
    store_key = models.CharField(max_length=100, unique=True)
    added_at = models.DateTimeField()
    removed_at = models.DateTimeField(
        null=True, blank=True, help_text="by the applicant, after a reviewer could see it"
    )

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("attachment", args=[self.request_id, self.pk])


class Acceptance(models.Model):
    """Who accepted which words, when and from where. Written once."""

    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="acceptances")
    terms = models.ForeignKey(Terms, on_delete=models.PROTECT, related_name="acceptances")
    text_sha256 = models.CharField(max_length=64)
    at = models.DateTimeField()
    address = models.GenericIPAddressField(null=True, blank=True)
    agent = models.CharField(max_length=300, blank=True)
    attested_by = models.ForeignKey(
        User,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="who says that it was made on paper",
    )

    def __str__(self) -> str:
        return f"{self.terms} accepted"


class Decision(models.Model):
    """What a reviewer decided, and the reason that the applicant reads. Written once."""

    class Outcome(models.TextChoices):
        APPROVED = "approved", "approved"
        RETURNED = "returned", "returned"
        REJECTED = "rejected", "rejected"

    request = models.ForeignKey(AccessRequest, on_delete=models.PROTECT, related_name="decisions")
    outcome = models.CharField(max_length=10, choices=Outcome)
    reason = models.TextField()
    by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="decisions")
    at = models.DateTimeField()
    asked_at = models.DateTimeField(
        null=True, blank=True, help_text="when what it answers was submitted"
    )
    apply_again_at = models.DateTimeField(
        null=True, blank=True, help_text="when a rejected applicant may apply again"
    )

    class Meta:
        ordering = ["at", "pk"]

    def __str__(self) -> str:
        return f"{self.request} {self.outcome}"


class Appeal(models.Model):
    """An applicant's asking that another reviewer looks at a rejection. Written once."""

    decision = models.OneToOneField(Decision, on_delete=models.PROTECT, related_name="appeal")
    reason = models.TextField()
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"Appeal against decision {self.decision_id}"


class Message(models.Model):
    """What an applicant and the reviewers write to one another about a request. Written once."""

    request = models.ForeignKey(AccessRequest, on_delete=models.PROTECT, related_name="messages")
    by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    from_reviewer = models.BooleanField()
    body = models.TextField()
    at = models.DateTimeField()

    class Meta:
        ordering = ["at", "pk"]

    def __str__(self) -> str:
        return f"Message about {self.request}"


class GrantQuerySet(models.QuerySet["Grant"]):
    def active(self, at: datetime) -> GrantQuerySet:
        """Grants in force at ``at``: started, not expired, not revoked."""
        return self.filter(
            Q(revoked_at=None) | Q(revoked_at__gt=at), starts_at__lte=at, expires_at__gt=at
        )


class Grant(models.Model):
    """A time-limited, revocable right to one checkpoint. Revoking fills ``revoked_at``."""

    grantee = models.ForeignKey(User, on_delete=models.PROTECT, related_name="grants")
    checkpoint = models.ForeignKey(Checkpoint, on_delete=models.PROTECT, related_name="grants")
    decision = models.ForeignKey(Decision, on_delete=models.PROTECT, related_name="grants")
    terms = models.ForeignKey(Terms, on_delete=models.PROTECT, related_name="grants")
    starts_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_by = models.ForeignKey(
        User, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    revoke_reason = models.TextField(blank=True)
    objects = GrantQuerySet.as_manager()

    class Meta:
        ordering = ["-starts_at", "pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(expires_at__gt=F("starts_at")), name="a_grant_ends_after_it_starts"
            ),
            models.CheckConstraint(
                condition=Q(revoked_at=None, revoked_by=None, revoke_reason="")
                | Q(revoked_at__isnull=False, revoked_by__isnull=False) & ~Q(revoke_reason=""),
                name="a_revocation_has_time_person_and_reason",
            ),
        ]

    def __str__(self) -> str:
        return f"Grant {self.pk}"

    @property
    def subject(self) -> str:
        """The opaque id by which the audit knows this grant."""
        return f"grant:{self.pk}"

    def is_active(self, at: datetime) -> bool:
        """Whether this grant is in force at ``at``; asks the same question as the queryset."""
        return Grant.objects.active(at).filter(pk=self.pk).exists()
