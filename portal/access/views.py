"""The applicant's pages: a family, an application in steps, its status."""

from datetime import datetime, timedelta
from statistics import median
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.timezone import now
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.access import applications, policy
from portal.access.forms import AcceptForm, application_form, as_typed, chosen_checkpoints
from portal.access.models import AccessRequest, Decision, Grant
from portal.catalog.models import Family

LATELY = 50  # decisions


@require_safe
def family_view(request: HttpRequest, slug: str) -> HttpResponse:
    """Show what a family is, what its terms ask, and what this person can do next."""
    family = get_object_or_404(Family, slug=slug)
    context: dict[str, Any] = {
        "family": family,
        "checkpoints": family.checkpoints.select_related("family").prefetch_related("shards"),
        "terms": family.terms,
    }
    if request.user.is_authenticated:
        at = now()
        mine = AccessRequest.objects.filter(applicant=request.user.pk, family=family)
        context |= {
            "open_request": mine.open().filter(by_operator=False).first(),
            "last_request": mine.order_by("-pk").first(),
            "may_download": policy.downloadable_by(request.user, at).filter(family=family),
            "why_not": applications.may_apply(request.user, family, at),
        }
    return render(request, "access/family.html", context)


@login_required
@require_POST
def apply_view(request: HttpRequest, slug: str) -> HttpResponse:
    """Begin an application, or go on with the open one."""
    family = get_object_or_404(Family, slug=slug)
    try:
        application = applications.begin(request.user, family, at=now())
    except applications.ApplicationError as error:
        messages.error(request, str(error))
        return redirect(family)
    if application.is_editable:
        return redirect("request-edit", application.pk)
    return redirect(application)


def _own(request: HttpRequest, pk: int) -> AccessRequest:
    """Return one's own application; anybody else's is not found."""
    mine = AccessRequest.objects.select_related("family", "form_version", "applicant")
    return get_object_or_404(mine, pk=pk, applicant=request.user.pk)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def edit_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask the questions. Saving keeps anything; continuing checks all."""
    application = _own(request, pk)
    if not application.is_editable:
        return redirect(application)
    form = application_form(application, request.POST or None)
    if request.method == "POST":
        applications.save(
            application,
            answers=as_typed(form, request.POST),
            checkpoints=chosen_checkpoints(form, request.POST),
            at=now(),
        )
        if "save" in request.POST:
            messages.success(request, "Saved. You can come back to it at any time.")
            return redirect(application)
        if form.is_valid():
            return redirect("request-check", application.pk)
    elif "check" in request.GET:
        saved = application.answers | {
            "checkpoints": list(application.checkpoints.values_list("pk", flat=True))
        }
        form = application_form(application, saved)
    context = {"application": application, "form": form}
    return render(request, "access/edit.html", context, status=422 if form.errors else 200)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def check_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the answers and the terms; on POST, submit."""
    application = _own(request, pk)
    if not application.is_editable:
        return redirect(application)
    saved = application.answers | {
        "checkpoints": list(application.checkpoints.values_list("pk", flat=True))
    }
    if not application_form(application, saved).is_valid():
        return redirect(f"{application.get_absolute_url()}edit/?check=1")
    terms = application.family.terms
    form = AcceptForm(request.POST or None, terms=terms)
    if form.is_valid():
        read = application.family.terms_versions.filter(
            version=form.cleaned_data["version"] or terms.version
        ).first()
        try:
            applications.submit(
                application,
                terms=read or terms,
                at=now(),
                address=request.META.get("REMOTE_ADDR"),
                agent=request.headers.get("User-Agent", ""),
            )
        except applications.ApplicationError as error:
            messages.error(request, str(error))
            return redirect("request-check", application.pk)
        return redirect(application)
    context = {"application": application, "form": form, "terms": terms}
    return render(request, "access/check.html", context, status=422 if form.errors else 200)


@login_required
@require_safe
def status_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Show where the request is, what was decided and why, and what comes next."""
    application = _own(request, pk)
    before = AccessRequest.objects.waiting().filter(submitted_at__lt=application.submitted_at or now())
    context = {
        "application": application,
        "place": before.count() + 1,
        "lately": time_to_decision(),
        "decisions": application.decisions.all(),
        "last": application.decisions.last(),
        "grants": Grant.objects.filter(decision__request=application).select_related(
            "checkpoint__family"
        ),
        "now": now(),
    }
    return render(request, "access/status.html", context)


def time_to_decision() -> tuple[timedelta, int] | None:
    """Return the median time from submission to decision lately, and over how many."""
    times: list[tuple[datetime, datetime | None]] = list(
        Decision.objects.filter(request__by_operator=False)
        .order_by("-at")
        .values_list("at", "request__submitted_at")[:LATELY]
    )
    waits = [decided - submitted for decided, submitted in times if submitted]
    return (median(waits), len(waits)) if waits else None


@login_required
@require_POST
def withdraw_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Take one's request back."""
    application = _own(request, pk)
    try:
        applications.withdraw(application, at=now())
    except applications.ApplicationError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, "Your request is withdrawn.")
    return redirect(application)


@login_required
@require_safe
def requests_view(request: HttpRequest) -> HttpResponse:
    """List one's applications."""
    mine = AccessRequest.objects.filter(applicant=request.user.pk).select_related("family")
    return render(request, "access/requests.html", {"requests": mine.order_by("-pk")})
