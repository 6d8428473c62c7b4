"""What an applicant and the reviewers write to one another, and the appeal against a rejection."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q

from portal.access.models import AccessRequest, Appeal, Decision, Message
from portal.accounts.models import User
from portal.audit.chain import record
from portal.outbox.sending import post

Status = AccessRequest.Status
LONGEST, MOST_A_DAY, MOST_TOLD = 5000, 20, 20


class ConversationError(Exception):
    """The message or the appeal is not taken; the message says why and what to do."""


def deciders() -> Iterable[User]:
    """Return the people who decide on requests, some of them where there are many."""
    of_group = Q(groups__permissions__codename="decide_request")
    own = Q(user_permissions__codename="decide_request")
    people = User.objects.filter(of_group | own | Q(is_superuser=True))
    return people.filter(is_active=True, is_staff=True).distinct().order_by("pk")[:MOST_TOLD]


def reviewers_of(request: AccessRequest) -> list[User]:
    """Return whom a message of the applicant goes to: who dealt with the request, else all deciders.

    Whoever rejected what is now appealed is not among them.
    """
    barred = set(request.decisions.filter(appeal__isnull=False).values_list("by_id", flat=True))
    decided = request.decisions.values_list("by_id", flat=True)
    wrote = request.messages.filter(from_reviewer=True).values_list("by_id", flat=True)
    known = ({*decided, *wrote} - barred) - {request.applicant_id}
    people = User.objects.filter(pk__in=known, is_active=True, is_staff=True)
    found = list(people) or [one for one in deciders() if one.pk not in barred]
    return [one for one in found if one.pk != request.applicant_id]


@transaction.atomic
def write(request: AccessRequest, *, by: User, body: str, at: datetime) -> Message:
    """Write ``body`` to the other side, who gets it by mail too.

    Raises:
        ConversationError: the request is a draft, ``body`` is empty or too long, or the applicant
            wrote very often today.
    """
    body = body.strip()
    if request.status == Status.DRAFT:
        raise ConversationError("Nobody has seen this draft yet; submit it first.")
    if not body or len(body) > LONGEST:
        raise ConversationError(f"Write a message of 1 to {LONGEST} characters.")
    from_reviewer = by.pk != request.applicant_id
    today = request.messages.filter(from_reviewer=False, at__gt=at - timedelta(days=1))
    if not from_reviewer and today.count() >= MOST_A_DAY:
        raise ConversationError(
            f"You wrote {MOST_A_DAY} messages within a day; write the next one tomorrow."
        )
    made = Message.objects.create(
        request=request, by=by, from_reviewer=from_reviewer, body=body, at=at
    )
    record("message.written", subject=request.subject, actor=by.actor, at=at, message=made.pk)
    if from_reviewer:
        post(
            request.applicant,
            kind="request.message",
            about=request.subject,
            subject=f"A message about your request for {request.family}",
            body=f"A reviewer wrote:\n\n{body}\n\nAnswer here: {_address(request)}\n",
            at=at,
        )
    else:
        _tell_reviewers(request, f"{request.applicant} wrote:\n\n{body}\n", at=at)
    return made


def _address(request: AccessRequest) -> str:
    return f"{settings.PUBLIC_URL}{request.get_absolute_url()}"


def _tell_reviewers(request: AccessRequest, text: str, *, at: datetime) -> None:
    place = f"{settings.PUBLIC_URL}/admin/access/accessrequest/{request.pk}/change/"
    for reviewer in reviewers_of(request):
        post(
            reviewer,
            kind="request.message",
            about=request.subject,
            subject=f"{request}, {request.family}: {request.applicant} wrote",
            body=f"{text}\nThe request: {place}\n",
            at=at,
        )


def may_appeal(request: AccessRequest, decisions: list[Decision]) -> bool:
    """Whether the last of ``decisions`` is a rejection, and none before it was appealed."""
    return (
        request.status == Status.REJECTED
        and bool(decisions)
        and decisions[-1].outcome == Decision.Outcome.REJECTED
        and not any(hasattr(one, "appeal") for one in decisions)
    )


@transaction.atomic
def appeal(request: AccessRequest, *, reason: str, at: datetime) -> Appeal:
    """Ask that another reviewer looks at the rejection; the request waits in the queue again.

    Raises:
        ConversationError: it was not rejected, was appealed before, another application is open,
            or there is no reason.
    """
    reason = reason.strip()
    if not reason or len(reason) > LONGEST:
        raise ConversationError(f"Say in 1 to {LONGEST} characters what the reviewer overlooked.")
    decisions = list(request.decisions.select_related("appeal"))
    if not may_appeal(request, decisions):
        raise ConversationError("A rejection can be appealed once; this request cannot be now.")
    try:
        with transaction.atomic():
            made = Appeal.objects.create(decision=decisions[-1], reason=reason, at=at)
            moved = AccessRequest.objects.filter(pk=request.pk, status=Status.REJECTED).update(
                status=Status.SUBMITTED, submitted_at=at
            )
    except IntegrityError:  # a second window was first, or another application is open
        raise ConversationError(
            "You appealed already, or have begun another application for this family; "
            "withdraw that one to appeal."
        ) from None
    if not moved:
        raise ConversationError("This request cannot be appealed now.")
    request.status, request.submitted_at = Status.SUBMITTED, at
    record("request.appealed", subject=request.subject, actor=request.applicant.actor, at=at)
    post(
        request.applicant,
        kind="request.appealed",
        about=request.subject,
        subject=f"We have your appeal about {request.family}",
        body=(
            "A reviewer other than the one who rejected your request will decide on it.\n"
            f"Its state is always shown on its page: {_address(request)}\n"
        ),
        at=at,
    )
    _tell_reviewers(request, f"{request.applicant} appeals:\n\n{reason}\n", at=at)
    return made
