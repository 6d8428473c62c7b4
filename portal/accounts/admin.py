"""People, and the tokens made for them."""

from typing import Any

from allauth.account.decorators import secure_admin_login
from allauth.mfa.utils import is_mfa_enabled
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.admin import UserAdmin
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from portal.accounts.models import ApiToken, IdentityEvidence, User
from portal.audit.admin import ReadOnlyAdmin


class StaffSignInForm(AdminAuthenticationForm):
    """The admin's own sign-in, for who has no second factor: it would ask for none."""

    def confirm_login_allowed(self, user: Any) -> None:
        """Refuse whoever has a second factor; the site's own sign-in asks for it."""
        super().confirm_login_allowed(user)
        if is_mfa_enabled(user):
            raise ValidationError(
                "You have a second factor: sign in on the site's own page, which asks for it."
            )


_of_django = admin.site.login
_of_the_site = secure_admin_login(_of_django)


def sign_in(request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponseBase:
    """Sign in to the admin, through the site's own page where staff need a second factor."""
    view = _of_the_site if settings.STAFF_MFA else _of_django
    return view(request, extra_context)


admin.site.login_form = StaffSignInForm
admin.site.login = sign_in  # type: ignore[method-assign]  # the hook that allauth names for this


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
