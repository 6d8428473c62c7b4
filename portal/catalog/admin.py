"""The catalogue. Checkpoints come in by `manage.py publish` and never change."""

from django.contrib import admin

from portal.audit.admin import ReadOnlyAdmin
from portal.catalog.models import Checkpoint, Family, Notice, Shard


@admin.register(Family)
class FamilyAdmin(admin.ModelAdmin):
    """What a family is called, and how it is described."""

    fields = ("slug", "title", "description")
    readonly_fields = ("slug",)

    def has_add_permission(self, request, obj=None) -> bool:
        """Families are made by publishing."""
        return False

    def has_delete_permission(self, request, obj=None) -> bool:
        """What was published stays."""
        return False


@admin.register(Checkpoint, Shard, Notice)
class FactAdmin(ReadOnlyAdmin):
    """Facts: written once, shown here."""
