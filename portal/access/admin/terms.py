"""Terms in Django admin: every version, and the page that publishes the next."""

from datetime import datetime, time
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils.timezone import make_aware, now

from portal.access import terms as agreements
from portal.accounts.people import signed_in
from portal.audit.admin import ReadOnlyAdmin
from portal.catalog.models import Family, Terms


class TermsForm(forms.Form):
    """The next version of a family's terms."""

    family = forms.ModelChoiceField(Family.objects.all())
    text = forms.CharField(
        max_length=agreements.LONGEST, widget=forms.Textarea(attrs={"rows": 25, "cols": 90})
    )
    accept_by = forms.DateField(
        required=False,
        label="To be accepted by",
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text=(
            "The last day, in UTC, for holders of grants; later their access rests until they "
            "accept. Without a day, only new applications accept this version."
        ),
    )

    def clean_accept_by(self) -> datetime | None:
        """Return the last moment of the day."""
        day = self.cleaned_data["accept_by"]
        return make_aware(datetime.combine(day, time.max)) if day else None


@admin.register(Terms)
class TermsAdmin(ReadOnlyAdmin):
    """Published versions are shown and never changed; a new one is added beside them."""

    list_display = ("__str__", "created_at", "accept_by", "sha256")
    list_filter = ("family",)
    list_select_related = ("family",)
    ordering = ("family", "-version")

    class Media:
        css = {"all": ("admin.css",)}

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("catalog.add_terms")

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show what would change and who would be asked; publish when that is asked for."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = TermsForm(request.POST or None, initial=_starting_from(request.GET.get("family")))
        preview = None
        if form.is_valid():
            family, text = form.cleaned_data["family"], form.cleaned_data["text"]
            at = now()
            if "publish" in request.POST:
                try:
                    made = agreements.publish_terms(
                        family,
                        text,
                        accept_by=form.cleaned_data["accept_by"],
                        by=signed_in(request),
                        at=at,
                    )
                except agreements.TermsError as error:
                    form.add_error(None, str(error))
                else:
                    self.message_user(request, f"{made} is published.", messages.SUCCESS)
                    return redirect("admin:catalog_terms_changelist")
            preview = {
                "changes": list(agreements.changes(family.terms.text, text)),
                "holders": len(agreements.holders(family, at)),
            }
        context = self.admin_site.each_context(request) | {
            "title": "Write the next version of the terms",
            "form": form,
            "preview": preview,
            "opts": self.model._meta,
            "media": self.media,
        }
        return TemplateResponse(request, "admin/access/terms.html", context)


def _starting_from(slug: str | None) -> dict[str, Any]:
    """Return what the page starts with: the newest words of a family, the only one if there is one."""
    families = list(Family.objects.filter(slug=slug) if slug else Family.objects.all()[:2])
    if len(families) != 1:
        return {}
    return {"family": families[0].pk, "text": families[0].terms.text}
