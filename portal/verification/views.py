"""Ask for a check of a copy, watch it run, read its report."""

import uuid
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.safestring import mark_safe
from django.utils.timezone import now
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods, require_safe

from portal.accounts.people import signed_in
from portal.catalog.models import Checkpoint
from portal.verification import asking
from portal.verification.models import Challenge, Verification
from verifier import report_html

FORM_BYTES = 1_000_000  # what a form has besides the files


class CheckForm(forms.Form):
    """What is to be checked, and against what."""

    checkpoint = forms.ChoiceField(
        required=False,
        label="Which checkpoint should it be?",
        help_text="If you do not know, each one is tried.",
    )
    urls = forms.CharField(
        required=False,
        label="Addresses of the files",
        help_text="http or https, one a line. The portal fetches them.",
        widget=forms.Textarea(attrs={"rows": 4}),
        max_length=100_000,
    )
    folder = forms.CharField(
        required=False,
        label="Folder under the drop folder",
        help_text="For reviewers: a folder that an operator put there.",
        max_length=500,
    )

    def __init__(self, *args: Any, may_drop: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        names = [str(one) for one in Checkpoint.objects.select_related("family")]
        field = self.fields["checkpoint"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [("", "I do not know"), *((name, name) for name in names)]
        if not may_drop:
            del self.fields["folder"]

    def clean_checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint of this name."""
        name = self.cleaned_data["checkpoint"]
        return Checkpoint.objects.named(name).select_related("family").first() if name else None


@csrf_exempt  # the check of the token reads the body, so it comes after what is known without
@require_http_methods(["GET", "HEAD", "POST"])
def verify_view(request: HttpRequest) -> HttpResponse:
    """Say how anyone checks a copy, and take requests from people with a confirmed address.

    Nothing of an upload is read from who is not signed in, or beyond what anyone may send.
    """
    if request.method == "POST":
        if not request.user.is_authenticated:
            return redirect_to_login(request.path)
        announced = int(request.META.get("CONTENT_LENGTH") or 0)
        if announced > settings.CHECK_BYTES_PER_DAY + FORM_BYTES:
            return HttpResponse(status=413)
    return _verify(request)


@csrf_protect
def _verify(request: HttpRequest) -> HttpResponse:
    may_drop = request.user.has_perm("verification.check_drop_folder")
    form = CheckForm(request.POST or None, may_drop=may_drop)
    if request.method == "POST" and form.is_valid():
        try:
            return redirect(_ask(request, form.cleaned_data))
        except asking.AskError as error:
            form.add_error(None, str(error))
    context = {"form": form, "checkpoints": Checkpoint.objects.select_related("family")}
    return render(request, "verification/ask.html", context, status=422 if form.errors else 200)


def _ask(request: HttpRequest, asked: dict[str, Any]) -> Verification:
    at, user, checkpoint = now(), signed_in(request), asked["checkpoint"]
    files = request.FILES.getlist("files")
    if asked.get("folder"):
        return asking.ask_folder(user, asked["folder"], checkpoint, at=at)
    if files:
        return asking.ask_upload(user, files, checkpoint, at=at)
    return asking.ask_urls(user, asked["urls"].splitlines(), checkpoint, at=at)


def _visible(request: HttpRequest, pk: uuid.UUID) -> Verification:
    """Return a check that this person may see; any other is not found."""
    seen = Verification.objects.visible_to(signed_in(request)).select_related("checkpoint__family")
    return get_object_or_404(seen, pk=pk)


@login_required
@require_safe
def verifications_view(request: HttpRequest) -> HttpResponse:
    """List one's own checks."""
    mine = Verification.objects.filter(asked_by=request.user.pk).select_related(
        "checkpoint__family"
    )
    drawn = Challenge.objects.visible_to(signed_in(request)).select_related("checkpoint__family")
    context = {"checks": mine[:200], "challenges": drawn[:200], "at": now()}
    return render(request, "verification/list.html", context)


@login_required
@require_safe
def verification_view(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Show how far a check is, or what came of it."""
    check = _visible(request, pk)
    context: dict[str, Any] = {"check": check}
    if check.report:
        # the renderer escapes every text of the report
        context["report"] = mark_safe(report_html.fragment(check.report))  # noqa: S308
    elif check.status in (check.Status.QUEUED, check.Status.RUNNING):
        context["refresh"] = True
        fetching = check.stage == "fetching"  # how much there is, is known at the end
        if check.bytes_total and check.started_at and not fetching:
            context["percent"] = min(100, check.bytes_done * 100 // check.bytes_total)
            spent = (now() - check.started_at).total_seconds()
            context["rate"] = int(check.bytes_done / spent) if spent > 0 else 0
    return render(request, "verification/check.html", context)


@login_required
@require_safe
def report_json_view(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Return the report as the verifier wrote it."""
    check = _visible(request, pk)
    if not check.report:
        raise Http404
    return JsonResponse(check.report, json_dumps_params={"indent": 1})


@login_required
@require_safe
def report_html_view(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Return the report as one self-contained file."""
    check = _visible(request, pk)
    if not check.report:
        raise Http404
    response = HttpResponse(report_html.render(check.report))
    response["Content-Disposition"] = f'attachment; filename="report-{str(check.pk)[:8]}.html"'
    return response


@require_safe
def report_css_view(request: HttpRequest) -> HttpResponse:
    """Serve the style sheet of reports, which the verifier owns."""
    return HttpResponse(
        report_html.STYLE_SHEET.read_bytes(),
        content_type="text/css; charset=utf-8",
        headers={"Cache-Control": "public, max-age=3600"},
    )
