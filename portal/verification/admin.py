from django.contrib import admin

from portal.audit.admin import ReadOnlyAdmin
from portal.verification.models import Verification


@admin.register(Verification)
class VerificationAdmin(ReadOnlyAdmin):
    """Facts: written once, shown here."""
