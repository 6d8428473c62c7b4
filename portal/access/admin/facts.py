from django.contrib import admin

from portal.access.models import Acceptance, Decision
from portal.audit.admin import ReadOnlyAdmin


@admin.register(Decision, Acceptance)
class FactAdmin(ReadOnlyAdmin):
    """Facts: written once, shown here."""
