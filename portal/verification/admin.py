from django.contrib import admin

from portal.audit.admin import ReadOnlyAdmin
from portal.verification.models import Challenge, Verification


@admin.register(Verification)
class VerificationAdmin(ReadOnlyAdmin):
    """Facts: written once, shown here."""


@admin.register(Challenge)
class ChallengeAdmin(ReadOnlyAdmin):
    """Facts: each filled in once. Seeds in stock stay secret, official answers too."""

    exclude = ("seed", "official", "answer")
