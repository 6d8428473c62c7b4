"""Grants in Django admin."""

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.timezone import now

from portal.access import decisions
from portal.access.admin.reasons import ReasonForm
from portal.access.models import Grant
from portal.accounts.people import signed_in
from portal.audit.admin import ReadOnlyAdmin


@admin.register(Grant)
class GrantAdmin(ReadOnlyAdmin):
    """Grants, and the form that revokes one."""

    list_display = ("__str__", "grantee", "checkpoint", "starts_at", "expires_at", "revoked_at")
    list_filter = ("checkpoint__family",)
    search_fields = ("grantee__email",)
    list_select_related = ("grantee", "checkpoint__family")
    readonly_fields = ("revoking",)
    exclude = ()

    @admin.display(description="Revoke")
    def revoking(self, grant: Grant) -> str:
        if grant.revoked_at:
            return "revoked"
        return format_html(
            '<a href="{}">Revoke this grant…</a>',
            reverse("admin:access_grant_revoke", args=[grant.pk]),
        )

    def get_urls(self) -> list[URLPattern]:
        return [
            path(
                "<int:pk>/revoke/",
                self.admin_site.admin_view(self.revoke_view),
                name="access_grant_revoke",
            ),
            *super().get_urls(),
        ]

    def revoke_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Ask for the reason; on POST, revoke and return to the grant."""
        if not request.user.has_perm("access.decide_request"):
            raise PermissionDenied
        grant = get_object_or_404(Grant, pk=pk)
        form = ReasonForm(request.POST or None)
        if form.is_valid():
            try:
                decisions.revoke(grant, by=signed_in(request), at=now(), **form.cleaned_data)
            except decisions.DecisionError as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                self.message_user(request, f"{grant} is revoked.", messages.SUCCESS)
            return redirect("admin:access_grant_change", pk)
        context = self.admin_site.each_context(request) | {
            "title": f"Revoke {grant} for {grant.checkpoint}",
            "button": "Revoke",
            "form": form,
            "chosen": [grant],
            "opts": self.model._meta,
            "media": self.media,
        }
        return TemplateResponse(request, "admin/access/decide.html", context)
