"""The base of every page of facts in the admin, and the audit's own."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from portal.audit.models import Event

admin.site.site_header = admin.site.site_title = "Weighbridge"
admin.site.index_title = "The desk"


class ReadOnlyAdmin(admin.ModelAdmin):
    """Shows rows; nobody, superusers included, adds, edits or deletes them here."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    """Who did what, when."""

    list_display = ("seq", "at", "action", "subject", "actor")
    list_filter = ("action",)
    search_fields = ("=subject", "=actor")
    show_full_result_count = False
