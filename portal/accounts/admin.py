"""People, and the tokens made for them."""

from typing import Any

from allauth.account.decorators import secure_admin_login
from allauth.mfa.utils import is_mfa_enabled
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.admin import UserAdmin
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils.timezone import now

from portal.accounts import sessions
from portal.accounts.evidence import apply_entry
from portal.accounts.models import ApiToken, DomainEntry, IdentityEvidence, Referral, User
from portal.accounts.people import signed_in
from portal.audit.admin import ReadOnlyAdmin
from portal.audit.chain import record


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


def sign_in(request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
    """Sign in to the admin, through the site's own page where staff need a second factor."""
    view = _of_the_site if settings.STAFF_MFA else _of_django
    was = request.user.is_authenticated
    answer: HttpResponse = view(request, extra_context)
    if not was and request.user.is_authenticated:  # Django's own page, which tells nobody
        sessions.begin(request)
        UserSession.objects.create_from_request(request)
    return answer


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


@admin.register(IdentityEvidence, ApiToken, Referral)
class FactAdmin(ReadOnlyAdmin):
    """Facts: written once, shown here."""

    exclude = ("digest",)


@admin.register(DomainEntry)
class DomainEntryAdmin(admin.ModelAdmin):
    """Which domains are of institutions, of free mail services, or denied; ours to edit."""

    list_display = ("domain", "standing", "note")
    list_filter = ("standing",)
    search_fields = ("domain",)
    actions = None  # each change is one event, so none is made in bulk

    @transaction.atomic
    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        self._record("domain.changed" if change else "domain.added", request, obj)
        apply_entry(obj, brought_by=signed_in(request).actor, at=now())

    @transaction.atomic
    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self._record("domain.removed", request, obj)
        super().delete_model(request, obj)

    @staticmethod
    def _record(action: str, request: HttpRequest, entry: DomainEntry) -> None:
        record(
            action,
            subject=f"domain:{entry.domain}"[:200],
            actor=signed_in(request).actor,
            standing=entry.standing,
        )
