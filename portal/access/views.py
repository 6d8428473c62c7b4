"""The applicant's pages: a family, an application in steps, its status."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Count, Q, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.timezone import now
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.access import applications, policy
from portal.access.forms import AcceptForm, application_form, as_typed, chosen_checkpoints
from portal.access.models import AccessRequest, Decision, Grant
from portal.accounts.people import signed_in
from portal.catalog.models import Family

LATELY = 50  # decisions
OF_WEIGHTS = Q(shards__is_manifest=False)


@require_safe
def family_view(request: HttpRequest, slug: str) -> HttpResponse:
    """Show what a family is, what its terms ask, and what this person can do next."""
    family = get_object_or_404(Family, slug=slug)
    context: dict[str, Any] = {
        "family": family,
        "checkpoints": family.checkpoints.select_related("family").annotate(
            file_count=Count("shards", filter=OF_WEIGHTS),
            total_size=Sum("shards__size", filter=OF_WEIGHTS),
        ),
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
        application = applications.begin(signed_in(request), family, at=now())
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
        try:
            applications.save(
                application,
                answers=as_typed(form, request.POST),
                checkpoints=chosen_checkpoints(form, request.POST),
                at=now(),
            )
        except applications.ApplicationError as error:  # submitted meanwhile, in another window
            messages.error(request, str(error))
            return redirect(application)
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
    context = {"application": application, "form": form, "last": application.decisions.last()}
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
        # who was shown a version accepts that one, and `submit` refuses all but the newest
        read = get_object_or_404(
            application.family.terms_versions, version=form.cleaned_data["version"]
        )
        try:
            applications.submit(
                application,
                terms=read,
                at=now(),
                address=request.META.get("REMOTE_ADDR"),
                agent=request.headers.get("User-Agent", ""),
            )
        except applications.ApplicationError as error:
            messages.error(request, str(error))
            return redirect("request-check", application.pk)
        return redirect(application)
    context = {"form": form, "terms": terms} | _answers(application)
    return render(request, "access/check.html", context, status=422 if form.errors else 200)


def answers_in_words(application: AccessRequest) -> list[tuple[str, str]]:
    """Return each question with its answer as a person reads it: labels, not values."""
    questions = application.form_version.questions if application.form_version else []
    said = []
    for question in questions:
        answer = application.answers.get(question["id"], "")
        labels = dict(question.get("options", []))
        values = answer if isinstance(answer, list) else [answer]
        said.append((question["label"], ", ".join(str(labels.get(one, one)) for one in values)))
    return said


def _answers(application: AccessRequest) -> dict[str, Any]:
    """Return what the template of the answers shows."""
    return {
        "application": application,
        "answers": answers_in_words(application),
        "checkpoints": application.checkpoints.select_related("family"),
    }


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened to a request: what, by whom, when, and the reason if there is one."""

    at: datetime
    what: str
    who: str
    why: str = ""


def timeline(
    application: AccessRequest, decisions: Iterable[Decision], grants: Iterable[Grant]
) -> list[Fact]:
    """Return what happened after the request was begun, in its order."""
    facts = [
        Fact(each.at, each.get_outcome_display().capitalize(), "by a reviewer", each.reason)
        for each in decisions
    ]
    if application.submitted_at:
        who = "by an operator" if application.by_operator else "by you"
        facts.append(Fact(application.submitted_at, "Submitted", who))
    for grant in grants:
        until = f"until {grant.expires_at.day} {grant.expires_at:%B %Y}"
        facts.append(Fact(grant.starts_at, f"Access to {grant.checkpoint} begun", until))
        if grant.revoked_at:
            what = f"Access to {grant.checkpoint} revoked"
            facts.append(Fact(grant.revoked_at, what, "by a reviewer", grant.revoke_reason))
    return sorted(facts, key=lambda fact: fact.at)


@login_required
@require_safe
def status_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Show where the request is, what was decided and why, and what comes next."""
    application = _own(request, pk)
    decisions = list(application.decisions.all())
    grants = list(
        Grant.objects.filter(decision__request=application).select_related("checkpoint__family")
    )
    before = AccessRequest.objects.waiting().filter(
        submitted_at__lt=application.submitted_at or now()
    )
    context = _answers(application) | {
        "place": before.count() + 1,
        "lately": time_to_decision(),
        "timeline": timeline(application, decisions, grants),
        "last": decisions[-1] if decisions else None,
        "grants": grants,
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
    waits = [(decided - submitted).total_seconds() for decided, submitted in times if submitted]
    return (timedelta(seconds=median(waits)), len(waits)) if waits else None


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
