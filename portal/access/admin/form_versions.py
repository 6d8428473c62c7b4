"""Forms in Django admin: read a published version, write the next one and look at it first."""

import json
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.timezone import now

from portal.access.form_versions import publish_form
from portal.access.forms import PageForm
from portal.access.models import FormVersion
from portal.access.questions import schema
from portal.access.questions.asking import pages_of
from portal.access.questions.defaults import DEFAULT_QUESTIONS
from portal.accounts.people import signed_in
from portal.audit.admin import ReadOnlyAdmin
from portal.catalog.models import Family


class VersionForm(forms.Form):
    """A family and the questions of its next form, as JSON."""

    family = forms.ModelChoiceField(Family.objects.all())
    questions = forms.CharField(
        label="Questions",
        max_length=schema.LARGEST_FORM,
        widget=forms.Textarea(attrs={"rows": 30, "cols": 90, "spellcheck": "false"}),
        help_text="A list in JSON, one object a question; what may be in one is listed below.",
    )

    def clean_questions(self) -> Any:
        """Return the questions; each mistake in them is an error of its own."""
        try:
            questions = json.loads(self.cleaned_data["questions"])
        except json.JSONDecodeError as error:
            raise forms.ValidationError(
                f"This is not JSON: {error.msg}, in line {error.lineno}, column {error.colno}."
            ) from None
        except RecursionError:
            raise forms.ValidationError("This is nested too deeply.") from None
        if found := schema.mistakes(questions):
            raise forms.ValidationError(found)
        return questions


@admin.register(FormVersion)
class FormVersionAdmin(ReadOnlyAdmin):
    """Published versions are shown and never changed; a new one is added beside them."""

    list_display = ("__str__", "family", "version", "created_at")
    list_filter = ("family",)
    list_select_related = ("family",)
    ordering = ("family", "-version")
    fields = ("family", "version", "created_at", "as_json", "successor")
    readonly_fields = ("as_json", "successor")

    class Media:
        css = {"all": ("admin.css",)}

    @admin.display(description="Questions")
    def as_json(self, version: FormVersion) -> str:
        return format_html('<pre class="json" tabindex="0">{}</pre>', pretty(version.questions))

    @admin.display(description="Next version")
    def successor(self, version: FormVersion) -> str:
        return format_html('<a href="../../add/?from={}">Write the next version…</a>', version.pk)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("access.add_formversion")

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Check and show the questions typed; publish them when that is asked for."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = VersionForm(request.POST or None, initial=_starting_from(request.GET.get("from")))
        preview = None
        if form.is_valid():
            family, questions = form.cleaned_data["family"], form.cleaned_data["questions"]
            if "publish" in request.POST:
                made = publish_form(family, questions, by=signed_in(request), at=now())
                self.message_user(request, f"{made} is published.", messages.SUCCESS)
                return redirect("admin:access_formversion_change", made.pk)
            preview = preview_of(questions)
        context = self.admin_site.each_context(request) | {
            "title": "Write the next version of a form",
            "form": form,
            "preview": preview,
            "keys": sorted((kind, sorted(keys)) for kind, keys in schema.KEYS.items()),
            "opts": self.model._meta,
            "media": self.media,
        }
        return TemplateResponse(request, "admin/access/form_version.html", context)


def pretty(questions: Any) -> str:
    """Return questions as JSON for people to edit."""
    return json.dumps(questions, indent=2, ensure_ascii=False)


def preview_of(questions: list[dict[str, Any]]) -> list[tuple[Any, PageForm]]:
    """Return each page with a form in which every question is shown."""
    every = {question["id"] for question in questions}
    return [
        (page, PageForm(page.questions, every, None, {}, prefix="preview"))
        for page in pages_of(questions)
    ]


def _starting_from(pk: str | None) -> dict[str, Any]:
    """Return what the page starts with: the questions of a version, or the default ones."""
    version = None
    if pk and pk.isascii() and pk.isdigit() and len(pk) < 19:
        version = FormVersion.objects.filter(pk=int(pk)).first()
    if version is None:
        return {"questions": pretty(DEFAULT_QUESTIONS)}
    return {"family": version.family_id, "questions": pretty(version.questions)}
