"""Who somebody is, and how we know: users, identity evidence, API tokens."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from datetime import datetime
from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils.timezone import now

TOKEN_ALPHABET = string.ascii_letters + string.digits
TOKEN_PREFIX = "hf_"  # noqa: S105 - the shape that every Hugging Face client sends unchanged
TOKEN_LENGTH = 40
# How the catalogue names a checkpoint, which a token may be bound to before it is published.
CHECKPOINT_NAME = re.compile(r"[a-z0-9._-]{1,63}/[a-z0-9._-]{1,63}@[a-z0-9._-]{1,63}")


class UserManager(BaseUserManager["User"]):
    """Makes people, known by their e-mail address."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        """Make a user; without ``password`` they can sign in only after resetting it.

        Raises:
            ValueError: ``email`` is empty.
        """
        if not email:
            raise ValueError("A user needs an e-mail address.")
        user = self.model(email=self.normalize_email(email), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        """Make an operator of this portal. Being one opens no checkpoint.

        Who may make one vouches for the address, so that signing in asks for no confirmation.
        """
        from allauth.account.models import EmailAddress  # a model, which needs this one first

        user = self.create_user(email, password, is_staff=True, is_superuser=True, **fields)
        EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
        return user

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email__iexact=username)


class User(AbstractBaseUser, PermissionsMixin):
    """A person, known by e-mail."""

    email = models.EmailField(unique=True, error_messages={"unique": "This address is in use."})
    name = models.CharField(max_length=200, blank=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False, help_text="May sign in to the admin.")
    joined_at = models.DateTimeField(default=now)

    USERNAME_FIELD: ClassVar[str] = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects = UserManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(Lower("email"), name="one_user_per_address_in_any_case")
        ]

    def __str__(self) -> str:
        return self.email

    @property
    def actor(self) -> str:
        """The opaque id by which the audit knows this person."""
        return f"user:{self.pk}"


class IdentityEvidenceQuerySet(models.QuerySet["IdentityEvidence"]):
    def in_force(self, at: datetime) -> IdentityEvidenceQuerySet:
        """Rows asserted by ``at`` that have not expired then."""
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=at), asserted_at__lte=at)


class IdentityEvidence(models.Model):
    """One thing that is known of a person's identity, and where it comes from.

    The facts of a row are those of a GA4GH visa: asserted, value, source, by, expires.
    """

    class Kind(models.TextChoices):
        EMAIL = "email", "e-mail address confirmed"
        INSTITUTION = "institution", "address of an institution"
        ORCID = "orcid", "ORCID iD"
        OPENID = "openid", "account of an institution"
        REFEREE = "referee", "confirmed by a referee"
        AFFILIATION = "affiliation", "affiliation"
        OPERATOR = "operator", "attested by an operator"

    class By(models.TextChoices):
        SELF = "self", "the person"
        PEER = "peer", "a colleague or supervisor"
        SYSTEM = "system", "a system"
        SO = "so", "who signs for the institution"
        DAC = "dac", "the portal's operators"

    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="evidence")
    kind = models.CharField(max_length=20, choices=Kind)
    value = models.CharField(max_length=300)
    source = models.CharField(max_length=300)
    by = models.CharField(max_length=10, choices=By, help_text="who asserts it")
    brought_by = models.CharField(max_length=100, help_text="the audit's id of who brought it here")
    note = models.CharField(max_length=300, blank=True)
    asserted_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    objects = IdentityEvidenceQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "identity evidence"

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.value}"


class DomainEntry(models.Model):
    """One domain of which the operators say what an address there is worth."""

    class Standing(models.TextChoices):
        INSTITUTION = "institution", "of an institution"
        FREE = "free", "of a free mail service"
        DENIED = "denied", "denied"

    domain = models.CharField(
        max_length=253,
        unique=True,
        validators=[RegexValidator(r"^[a-z0-9-]+(\.[a-z0-9-]+)*$", "Small letters: uni.example.")],
        help_text="such as uni.example; it covers the domains below it",
    )
    standing = models.CharField(max_length=20, choices=Standing)
    note = models.CharField(max_length=300, blank=True, help_text="who asked for it, and why")

    class Meta:
        ordering = ["domain"]
        verbose_name_plural = "domain entries"

    def __str__(self) -> str:
        return f"{self.domain}: {self.get_standing_display()}"


class ReferralQuerySet(models.QuerySet["Referral"]):
    def waiting(self, at: datetime) -> ReferralQuerySet:
        """Referrals whose link is good at ``at``."""
        return self.filter(answered_at=None, withdrawn_at=None, expires_at__gt=at)


class Referral(models.Model):
    """Somebody who is asked, by a link in a mail, whether a person is who they say.

    Only the SHA-256 of the link's key is kept. What they write is for reviewers, and for the person
    only where ``words_open``.
    """

    class Relation(models.TextChoices):
        SUPERVISOR = "supervisor", "supervisor"
        COLLEAGUE = "colleague", "colleague"
        OFFICIAL = "official", "somebody who signs for the institution"

    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="referrals")
    name = models.CharField(max_length=200)
    address = models.EmailField()
    relation = models.CharField(max_length=20, choices=Relation)
    digest = models.CharField(max_length=64, unique=True)
    asked_at = models.DateTimeField()
    sent_at = models.DateTimeField(help_text="when the newest link went out")
    sent_count = models.PositiveSmallIntegerField(default=1)
    expires_at = models.DateTimeField()
    withdrawn_at = models.DateTimeField(null=True, blank=True)
    answered_at = models.DateTimeField(null=True, blank=True)
    confirmed = models.BooleanField(null=True, blank=True)
    words = models.TextField(blank=True)
    words_open = models.BooleanField(default=False, help_text="The person may read them too.")
    evidence = models.OneToOneField(
        IdentityEvidence, on_delete=models.PROTECT, null=True, blank=True, related_name="referral"
    )
    objects = ReferralQuerySet.as_manager()

    class Meta:
        ordering = ["-asked_at"]
        constraints = [
            models.CheckConstraint(
                condition=Q(answered_at=None, confirmed=None)
                | Q(answered_at__isnull=False, confirmed__isnull=False),
                name="an_answer_has_its_time",
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} <{self.address}>"

    @property
    def subject(self) -> str:
        """The audit's id of this referral."""
        return f"referral:{self.pk}"

    @property
    def by(self) -> str:
        """Who asserts what this referral says, in GA4GH's words."""
        official = self.relation == self.Relation.OFFICIAL
        return IdentityEvidence.By.SO if official else IdentityEvidence.By.PEER

    def state(self, at: datetime) -> str:
        """Return where it stands: one of `confirmed, declined, withdrawn, expired, waiting`."""
        if self.answered_at:
            return "confirmed" if self.confirmed else "declined"
        if self.withdrawn_at:
            return "withdrawn"
        return "waiting" if self.expires_at > at else "expired"


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def in_force(self, at: datetime) -> ApiTokenQuerySet:
        """Tokens that open something at ``at``: neither expired nor revoked, of an active user."""
        return self.filter(
            Q(expires_at=None) | Q(expires_at__gt=at), revoked_at=None, user__is_active=True
        )

    def of_secret(self, secret: str) -> ApiTokenQuerySet:
        """The token whose secret is ``secret``, as at most one row."""
        return self.filter(digest=ApiToken.digest_of(secret))


class ApiToken(models.Model):
    """A bearer token: only its SHA-256 is kept; the secret is shown once, when it is made."""

    class Scope(models.TextChoices):
        APPLY = "apply", "apply for access, and see how your requests stand"
        READ = "read", "read what a download needs, without the bytes"
        DOWNLOAD = "download", "download checkpoints under a grant"
        VERIFY = "verify", "ask for checks of copies"
        REVIEW = "review", "list access requests and decide on them, for reviewers"

    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="tokens")
    name = models.CharField(max_length=100, blank=True)
    digest = models.CharField(max_length=64, unique=True)
    hint = models.CharField(
        max_length=12, help_text="the secret's first letters, to tell tokens apart"
    )
    scopes = models.JSONField(default=list)
    checkpoint = models.CharField(
        max_length=200, blank=True, help_text="the only one that it opens, such as llama/7b@1"
    )
    ranges = models.JSONField(
        default=list, blank=True, help_text="addresses it may be used from, in CIDR notation"
    )
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_why = models.CharField(max_length=100, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    objects = ApiTokenQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "API token"

    def __str__(self) -> str:
        return f"{self.hint}…"

    @property
    def subject(self) -> str:
        """The audit's id of this token."""
        return f"token:{self.pk}"

    def allows(self, scope: str) -> bool:
        """Whether this token was made for ``scope``; `download` includes `read`."""
        return scope in self.scopes or (scope == "read" and "download" in self.scopes)

    @staticmethod
    def new_secret() -> str:
        """Draw a secret: `hf_` and 40 letters and digits, 238 bits."""
        return TOKEN_PREFIX + "".join(secrets.choice(TOKEN_ALPHABET) for _ in range(TOKEN_LENGTH))

    @staticmethod
    def digest_of(secret: str) -> str:
        """Return what is stored of ``secret``. It is drawn at random, so it needs no slow hash."""
        return hashlib.sha256(secret.encode()).hexdigest()


class DeviceCodeQuerySet(models.QuerySet["DeviceCode"]):
    def waiting(self, at: datetime) -> DeviceCodeQuerySet:
        """Questions that a person can still answer at ``at``."""
        return self.filter(decided_at=None, expires_at__gt=at)


class DeviceCode(models.Model):
    """A command that asks for a token, and what a person said to it (RFC 8628)."""

    device_mac = models.CharField(max_length=64, unique=True)
    user_mac = models.CharField(max_length=64, unique=True)
    client = models.CharField(max_length=60)
    scopes = models.JSONField()
    address = models.GenericIPAddressField(null=True, blank=True)
    asked_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    interval = models.PositiveIntegerField(help_text="seconds between two questions")
    polled_at = models.DateTimeField(null=True, blank=True)
    user = models.ForeignKey(
        User, on_delete=models.PROTECT, null=True, blank=True, related_name="device_codes"
    )
    approved = models.BooleanField(null=True, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)
    given_at = models.DateTimeField(null=True, blank=True)
    objects = DeviceCodeQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(approved=None, decided_at=None, user=None, given_at=None)
                | Q(approved__isnull=False, decided_at__isnull=False, user__isnull=False),
                name="an_answer_has_its_person_and_time",
            )
        ]

    def __str__(self) -> str:
        return f"{self.client}, {self.asked_at:%Y-%m-%d %H:%M}"
