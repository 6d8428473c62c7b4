"""People, and the tokens made for them."""

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin

from portal.accounts.models import ApiToken, IdentityEvidence, User
from portal.audit.admin import ReadOnlyAdmin


@admin.register(User)
class PersonAdmin(UserAdmin):
    """People, known by e-mail; who reviews is put into the group of reviewers here."""

    ordering = ("email",)
    list_display = ("email", "name", "is_active", "is_staff", "joined_at")
    search_fields = ("email", "name")
    fieldsets = (
        (None, {"fields": ("email", "password", "name")}),
        (
            "May",
            {"fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions")},
        ),
        ("When", {"fields": ("last_login", "joined_at")}),
    )
    add_fieldsets = ((None, {"classes": ("wide",), "fields": ("email", "password1", "password2")}),)


@admin.register(IdentityEvidence, ApiToken)
class FactAdmin(ReadOnlyAdmin):
    """Facts: written once, shown here."""

    exclude = ("digest",)
