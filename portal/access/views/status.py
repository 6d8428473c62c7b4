"""Where a request is, what has happened to it, and what comes next."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.timezone import now
from django.views.decorators.http import require_POST, require_safe

from portal.access import applications
from portal.access.attachments import attached_to
from portal.access.forms import questions_of
from portal.access.models import AccessRequest, Decision, Grant
from portal.access.questions.words import in_words
from portal.access.views.steps import own

LATELY = 50  # decisions


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
    application = own(request, pk)
    decisions = list(application.decisions.all())
    grants = list(
        Grant.objects.filter(decision__request=application).select_related("checkpoint__family")
    )
    before = AccessRequest.objects.waiting().filter(
        submitted_at__lt=application.submitted_at or now()
    )
    said = in_words(questions_of(application), application.answers, attached_to(application))
    context = {
        "application": application,
        "said": said,
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
    application = own(request, pk)
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
