from django.contrib import admin

from portal.audit.admin import ReadOnlyAdmin
from portal.delivery.models import Download


@admin.register(Download)
class DownloadAdmin(ReadOnlyAdmin):
    """Facts: written once, shown here."""
