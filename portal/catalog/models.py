"""What there is: families, checkpoints, their shards, and the terms they are given under."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from django.db import models
from django.db.models import F, Q, Sum
from django.urls import reverse

SLUG = r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?"
FULL_NAME = re.compile(rf"(?P<family>{SLUG})/(?P<variant>{SLUG})@(?P<version>{SLUG})")


class CheckpointNameError(ValueError):
    """A checkpoint's name is not of the form FAMILY/VARIANT@VERSION."""


@dataclass(frozen=True, slots=True)
class Name:
    """A checkpoint's name, `llama/7b@1`."""

    family: str
    variant: str
    version: str

    @classmethod
    def parse(cls, text: str) -> Name:
        """Read a name.

        Raises:
            CheckpointNameError: it is not of the form.
        """
        match = FULL_NAME.fullmatch(text)
        if not match:
            raise CheckpointNameError(
                f"{text!r} is not a checkpoint's name: write FAMILY/VARIANT@VERSION in small "
                "letters, digits, dots, dashes and underscores, such as llama/7b@1."
            )
        return cls(**match.groupdict())

    def __str__(self) -> str:
        return f"{self.family}/{self.variant}@{self.version}"


class Family(models.Model):
    """Checkpoints that are given under the same terms, through the same form."""

    slug = models.CharField(max_length=63, unique=True)
    title = models.CharField(max_length=100)
    description = models.TextField(blank=True)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["slug"]
        verbose_name_plural = "families"

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        return reverse("family", args=[self.slug])

    @property
    def terms(self) -> Terms:
        """The version of the terms that a new application must accept."""
        return self.terms_versions.latest("version")


class Terms(models.Model):
    """One version of a licence text. Its text is never edited: other words are another version."""

    family = models.ForeignKey(Family, on_delete=models.PROTECT, related_name="terms_versions")
    version = models.PositiveIntegerField()
    text = models.TextField()
    sha256 = models.CharField(max_length=64)
    created_at = models.DateTimeField()
    accept_by = models.DateTimeField(
        null=True, blank=True, help_text="from then on grants rest until this version is accepted"
    )

    class Meta:
        verbose_name_plural = "terms"
        constraints = [
            models.UniqueConstraint(fields=["family", "version"], name="one_text_per_terms_version")
        ]

    def __str__(self) -> str:
        return f"{self.family} terms, version {self.version}"

    @staticmethod
    def digest_of(text: str) -> str:
        """Return the hash by which an acceptance says which words were accepted."""
        return hashlib.sha256(text.encode()).hexdigest()


class CheckpointQuerySet(models.QuerySet["Checkpoint"]):
    def named(self, name: str | Name) -> CheckpointQuerySet:
        """The checkpoint with this name, as at most one row.

        Raises:
            CheckpointNameError: the name is not of the form.
        """
        parts = name if isinstance(name, Name) else Name.parse(name)
        return self.filter(family__slug=parts.family, variant=parts.variant, version=parts.version)


class Checkpoint(models.Model):
    """One immutable published set of weights."""

    family = models.ForeignKey(Family, on_delete=models.PROTECT, related_name="checkpoints")
    variant = models.CharField(max_length=63)
    version = models.CharField(max_length=63)
    revision = models.PositiveIntegerField(default=1, help_text="of the manifest; only grows")
    statement_sha256 = models.CharField(max_length=64, help_text="of the signed statement's bytes")
    signed_by = models.CharField(max_length=64, help_text="SHA-256 of the release key's PEM")
    weights_sha256 = models.CharField(
        max_length=64,
        blank=True,
        db_index=True,
        help_text="over the value digests: equal for two layouts of the same weights",
    )
    has_reference = models.BooleanField(default=False)
    published_at = models.DateTimeField()
    published_by = models.CharField(max_length=100)
    objects = CheckpointQuerySet.as_manager()

    class Meta:
        ordering = ["family__slug", "variant", "-published_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["family", "variant", "version"], name="a_published_version_is_one"
            )
        ]

    def __str__(self) -> str:
        return f"{self.family.slug}/{self.variant}@{self.version}"

    @property
    def name(self) -> str:
        """The full name, `llama/7b@1`."""
        return str(self)

    @property
    def subject(self) -> str:
        """The opaque id by which the audit knows this checkpoint."""
        return f"checkpoint:{self}"

    @property
    def size(self) -> int:
        """Bytes of all its files, the manifest's own left out."""
        return self.shards.weights().aggregate(total=Sum("size"))["total"] or 0


class Notice(models.Model):
    """A recall: this version should no longer be used, and why; the newest one counts."""

    checkpoint = models.ForeignKey(Checkpoint, on_delete=models.PROTECT, related_name="notices")
    reason = models.CharField(max_length=300)
    replacement = models.ForeignKey(
        Checkpoint, on_delete=models.PROTECT, null=True, blank=True, related_name="replaces"
    )
    at = models.DateTimeField()
    by = models.CharField(max_length=100)

    class Meta:
        ordering = ["-at"]

    def __str__(self) -> str:
        return f"{self.checkpoint} recalled"


class ShardQuerySet(models.QuerySet["Shard"]):
    def current(self) -> ShardQuerySet:
        """The files as they are now: of the manifest, those of its newest revision."""
        return self.filter(replaced_at=None)

    def weights(self) -> ShardQuerySet:
        """The files that are the checkpoint: all but the manifest's own."""
        return self.filter(is_manifest=False)

    def manifest(self) -> ShardQuerySet:
        """The signed manifest and its side files: open to everyone, so that anyone can verify."""
        return self.current().filter(is_manifest=True)


class Shard(models.Model):
    """One file of a checkpoint, and where it lies in the store."""

    checkpoint = models.ForeignKey(Checkpoint, on_delete=models.PROTECT, related_name="shards")
    path = models.CharField(max_length=1024)
    size = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    store_key = models.CharField(max_length=1300)
    store_version = models.CharField(
        max_length=1024, blank=True, help_text="where the store keeps versions, the one published"
    )
    is_manifest = models.BooleanField(default=False)
    replaced_at = models.DateTimeField(
        null=True, blank=True, help_text="by the same file of a newer revision of the manifest"
    )
    objects = ShardQuerySet.as_manager()

    class Meta:
        ordering = ["checkpoint", F("is_manifest").asc(), "path"]
        constraints = [
            models.UniqueConstraint(
                fields=["checkpoint", "path"],
                condition=Q(replaced_at=None),
                name="one_shard_per_path",
            ),
            models.CheckConstraint(
                condition=Q(replaced_at=None) | Q(is_manifest=True),
                name="only_the_manifest_is_replaced",
            ),
            models.CheckConstraint(condition=Q(size__gte=0), name="a_size_is_not_negative"),
        ]

    def __str__(self) -> str:
        return self.path
