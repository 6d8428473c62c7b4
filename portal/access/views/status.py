"""Where a request is, what has happened to it, who has it, and what comes next."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.timezone import now
from django.views.decorators.http import require_POST, require_safe

from portal.access import applications, conversation
from portal.access.attachments import attached_to
from portal.access.forms import Step, form_of, questions_of, steps_of
from portal.access.models import AccessRequest, Attachment, Decision, Grant, Message
from portal.access.questions.words import in_words
from portal.access.views.lost_sessions import sign_in_first, take_up
from portal.access.views.steps import own
from portal.audit.models import Event

LATELY = 50  # decisions
Status = AccessRequest.Status


class WriteForm(forms.Form):
    """A message, or the reason of an appeal."""

    body = forms.CharField(
        label="Your message",
        max_length=conversation.LONGEST,
        widget=forms.Textarea(attrs={"rows": 5}),
        error_messages={"required": "Write something first."},
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["body"].widget.attrs.pop("maxlength", None)  # browsers cut there, silently


class AppealForm(WriteForm):
    """Why another reviewer should look at it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, prefix="appeal", **options)
        self.fields["body"].label = "What did the reviewer overlook?"
        self.fields["body"].help_text = "Another reviewer reads this, and decides."


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened to a request: what, by whom, when, and the words if there are some."""

    at: datetime
    what: str
    who: str
    why: str = ""


# what the audit keeps of the life of a request that no row of its own tells
EVENTS = {
    "request.submitted": "Submitted",
    "request.made_by_operator": "Made",
    "request.withdrawn": "Taken back",
}


def timeline(
    application: AccessRequest,
    decisions: Iterable[Decision],
    grants: Iterable[Grant],
    written: Iterable[Message],
) -> list[Fact]:
    """Return what happened after the request was begun, in its order."""
    facts = [
        Fact(each.at, each.get_outcome_display().capitalize(), "by a reviewer", each.reason)
        for each in decisions
    ]
    facts += [
        Fact(each.appeal.at, "Appealed", "by you", each.appeal.reason)
        for each in decisions
        if hasattr(each, "appeal")
    ]
    who = "by an operator" if application.by_operator else "by you"
    events = Event.objects.filter(subject=application.subject, action__in=EVENTS).order_by("seq")
    facts += [Fact(event.at, EVENTS[event.action], who) for event in events]
    facts += [
        Fact(one.at, "Message", "from a reviewer" if one.from_reviewer else "from you", one.body)
        for one in written
    ]
    for grant in grants:
        until = f"until {grant.expires_at.day} {grant.expires_at:%B %Y}"
        facts.append(Fact(grant.starts_at, f"Access to {grant.checkpoint} begun", until))
        if grant.revoked_at:
            what = f"Access to {grant.checkpoint} revoked"
            facts.append(Fact(grant.revoked_at, what, "by a reviewer", grant.revoke_reason))
    return sorted(facts, key=lambda fact: fact.at)


def holder_of(application: AccessRequest, decisions: list[Decision]) -> str:
    """Say who has the request now: a role, never a name."""
    if application.status in AccessRequest.EDITABLE:
        return "You have it."
    if application.status == Status.SUBMITTED:
        if any(hasattr(each, "appeal") for each in decisions):
            return "A reviewer other than the one who rejected it has it."
        return "The reviewers have it."
    return "Nobody: it is closed."


def missing_of(
    application: AccessRequest, attached: dict[str, list[Attachment]]
) -> list[tuple[Step, list[str]]]:
    """Return each step with a question that is not answered yet, or not well, and those questions."""
    if not application.is_editable:
        return []
    found = []
    for step in steps_of(application):
        form = form_of(application, step, check=True, attached=attached)
        if not form.is_valid():
            found.append((step, [str(form.fields[name].label) for name in form.errors]))
    return found


def _shown(
    request: HttpRequest,
    application: AccessRequest,
    *,
    writing: WriteForm | None = None,
    appealing: AppealForm | None = None,
) -> HttpResponse:
    decisions = list(application.decisions.select_related("appeal"))
    grants = list(
        Grant.objects.filter(decision__request=application).select_related("checkpoint__family")
    )
    attached = attached_to(application)
    written = list(application.messages.all())
    last = decisions[-1] if decisions else None
    context = {
        "application": application,
        "said": in_words(questions_of(application), application.answers, attached),
        "place": place_in_queue(application),
        "lately": time_to_decision(),
        "holder": holder_of(application, decisions),
        "missing": missing_of(application, attached),
        "waits_for_answer": application.status in AccessRequest.OPEN
        and bool(written)
        and written[-1].from_reviewer,
        "timeline": timeline(application, decisions, grants, written),
        "last": last,
        "grants": grants,
        "now": now(),
        "may_appeal": conversation.may_appeal(application, decisions),
        "writing": writing or WriteForm(),
        "appealing": appealing or AppealForm(),
        "form": writing or appealing,
    }
    wrong = (writing and writing.errors) or (appealing and appealing.errors)
    return render(request, "access/status.html", context, status=422 if wrong else 200)


@login_required
@require_safe
def status_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Show where the request is, what was decided and why, and what comes next."""
    application = own(request, pk)
    wrote = take_up(request, pk, "message")
    appealed = take_up(request, pk, "appeal")
    if wrote or appealed:
        messages.info(request, "You were signed out. What you typed is below, and not sent yet.")
    return _shown(
        request,
        application,
        writing=WriteForm(initial=wrote.dict()) if wrote else None,
        appealing=AppealForm(initial={"body": appealed["appeal-body"]})
        if appealed and "appeal-body" in appealed
        else None,
    )


def place_in_queue(application: AccessRequest) -> int:
    """Return the place of a waiting request, 1 for the next."""
    before = AccessRequest.objects.waiting().filter(
        submitted_at__lt=application.submitted_at or now()
    )
    return before.count() + 1


def time_to_decision() -> tuple[timedelta, int] | None:
    """Return the median time from submission to decision lately, and over how many."""
    times: list[tuple[datetime, datetime | None]] = list(
        Decision.objects.filter(request__by_operator=False, asked_at__isnull=False)
        .order_by("-at")
        .values_list("at", "asked_at")[:LATELY]
    )
    waits = [(decided - asked).total_seconds() for decided, asked in times if asked]
    return (timedelta(seconds=median(waits)), len(waits)) if waits else None


@sign_in_first("request", keeps="message")
@require_POST
def message_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Write to the reviewers."""
    application = own(request, pk)
    form = WriteForm(request.POST)
    if form.is_valid():
        try:
            conversation.write(
                application, by=application.applicant, body=form.cleaned_data["body"], at=now()
            )
        except conversation.ConversationError as error:
            form.add_error("body", str(error))
        else:
            messages.success(request, "Your message went to the reviewers.")
            return redirect(application)
    return _shown(request, application, writing=form)


@sign_in_first("request", keeps="appeal")
@require_POST
def appeal_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask that another reviewer looks at a rejection."""
    application = own(request, pk)
    form = AppealForm(request.POST)
    if form.is_valid():
        try:
            conversation.appeal(application, reason=form.cleaned_data["body"], at=now())
        except conversation.ConversationError as error:
            form.add_error("body", str(error))
        else:
            messages.success(request, "Your appeal waits for another reviewer.")
            return redirect(application)
    return _shown(request, application, appealing=form)


@sign_in_first("request")
@require_POST
def copy_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Begin a new request with the answers of this one."""
    application = own(request, pk)
    try:
        made = applications.copy(application, at=now())
    except applications.ApplicationError as error:
        messages.error(request, str(error))
        return redirect(application)
    messages.success(request, "Your answers are copied. Check that they are still right.")
    return redirect("request-edit", made.pk)


@sign_in_first("request")
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
