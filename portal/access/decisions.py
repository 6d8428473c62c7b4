"""What a reviewer does: approve, return, reject, revoke; one at a time or many.

Each is one transaction with its decision, its event and its mail in it. The admin, the command
line and any later API call these and nothing else.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from portal.access.applications import accept
from portal.access.models import AccessRequest, Appeal, Decision, Grant
from portal.accounts.models import User
from portal.audit.chain import record
from portal.catalog.models import Checkpoint, Terms
from portal.outbox.sending import post

Status = AccessRequest.Status
Outcome = Decision.Outcome
# How long after a rejection one may apply again, unless the reviewer says otherwise.
APPLY_AGAIN_AFTER = timedelta(days=90)
LONGEST_REASON = 5000


class DecisionError(Exception):
    """The decision cannot be made so; the message says why."""


@transaction.atomic
def approve(
    request: AccessRequest, *, by: User, reason: str, at: datetime, until: datetime
) -> list[Grant]:
    """Approve ``request``: a grant for each of its checkpoints, from ``at`` until ``until``.

    Raises:
        DecisionError: the request is no longer submitted, ``by`` made it or rejected what is
            appealed, there is no reason, or ``until`` has passed.
    """
    if until <= at:
        raise DecisionError("The end of the grant has passed; choose a later date.")
    decision = _decide(request, Outcome.APPROVED, by=by, reason=reason, at=at)
    terms = _accepted_terms(request)
    grants = []
    for checkpoint in request.checkpoints.all():
        grant = Grant.objects.create(
            grantee=request.applicant,
            checkpoint=checkpoint,
            decision=decision,
            terms=terms,
            starts_at=at,
            expires_at=until,
        )
        grants.append(grant)
        record(
            "grant.begun",
            subject=grant.subject,
            actor=by.actor,
            at=at,
            checkpoint=checkpoint.name,
            grantee=request.applicant.actor,
            until=until.isoformat(),
        )
    names = ", ".join(grant.checkpoint.name for grant in grants)
    _tell(
        decision,
        f"Your request for {request.family} is approved",
        f"You may download {names} until {until:%d %B %Y, %H:%M} UTC.\n"
        f"Get the files here: {settings.PUBLIC_URL}/access/\n",
    )
    return grants


@transaction.atomic
def return_(request: AccessRequest, *, by: User, reason: str, at: datetime) -> Decision:
    """Return ``request`` to its applicant, who may change it and submit it again.

    Raises:
        DecisionError: the request is no longer submitted, ``by`` made it, or there is no reason.
    """
    decision = _decide(request, Outcome.RETURNED, by=by, reason=reason, at=at)
    _tell(
        decision,
        f"Your request for {request.family} needs a change",
        f"Change it and submit it again: {settings.PUBLIC_URL}{request.get_absolute_url()}\n",
    )
    return decision


@transaction.atomic
def reject(
    request: AccessRequest,
    *,
    by: User,
    reason: str,
    at: datetime,
    apply_again_at: datetime | None = None,
) -> Decision:
    """Reject ``request``; its applicant reads why, and from when they may apply again.

    Raises:
        DecisionError: the request is no longer submitted, ``by`` made it, or there is no reason.
    """
    again = apply_again_at or at + APPLY_AGAIN_AFTER
    decision = _decide(request, Outcome.REJECTED, by=by, reason=reason, at=at, apply_again_at=again)
    way_back = ""
    if not Appeal.objects.filter(decision__request=request).exists():
        way_back = (
            "You may ask once that another reviewer looks at it: "
            f"{settings.PUBLIC_URL}{request.get_absolute_url()}\n"
        )
    _tell(
        decision,
        f"Your request for {request.family} was not approved",
        f"{way_back}You may apply again from {again:%d %B %Y}.\n",
    )
    return decision


@transaction.atomic
def revoke(grant: Grant, *, by: User, reason: str, at: datetime) -> None:
    """End ``grant`` now. Its signed URLs are refused from this moment on.

    Raises:
        DecisionError: it was revoked before, or there is no reason.
    """
    reason = _checked(reason)
    revoked = Grant.objects.filter(pk=grant.pk, revoked_at=None).update(
        revoked_at=at, revoked_by=by, revoke_reason=reason
    )
    if not revoked:
        grant.refresh_from_db()
        raise DecisionError(
            f"Already revoked by {grant.revoked_by} at {grant.revoked_at:%H:%M on %d %B %Y}."
        )
    grant.revoked_at, grant.revoked_by, grant.revoke_reason = at, by, reason
    record("grant.revoked", subject=grant.subject, actor=by.actor, at=at, reason=reason)
    post(
        grant.grantee,
        kind="grant.revoked",
        about=grant.subject,
        subject=f"Your access to {grant.checkpoint} has ended",
        body=f"Your grant for {grant.checkpoint} was revoked.\n\nThe reason: {reason}\n",
        at=at,
    )


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one request among many."""

    request: AccessRequest
    error: str


def decide_each(
    requests: Iterable[AccessRequest], decide_one: Callable[[AccessRequest], object]
) -> list[Result]:
    """Call one of the verbs for each request; one that fails does not stop the others."""
    results = []
    for request in requests:
        try:
            decide_one(request)
        except DecisionError as error:
            results.append(Result(request, str(error)))
        else:
            results.append(Result(request, ""))
    return results


@transaction.atomic
def grant_directly(
    grantee: User, checkpoint: Checkpoint, *, by: User, reason: str, at: datetime, until: datetime
) -> Grant:
    """Grant without an application, by the same verb as a reviewer's.

    ``by`` attests that the grantee accepted the terms on paper.

    Raises:
        DecisionError: as `approve`.
    """
    request = AccessRequest.objects.create(
        applicant=grantee,
        family=checkpoint.family,
        status=Status.SUBMITTED,
        by_operator=True,
        created_at=at,
        saved_at=at,
        submitted_at=at,
    )
    request.checkpoints.add(checkpoint)
    record("request.made_by_operator", subject=request.subject, actor=by.actor, at=at)
    accept(grantee, checkpoint.family.terms, at=at, attested_by=by)
    (grant,) = approve(request, by=by, reason=reason, at=at, until=until)
    return grant


def _checked(reason: str) -> str:
    reason = reason.strip()
    if not reason:
        raise DecisionError("Write the reason; the applicant will read it.")
    if len(reason) > LONGEST_REASON:
        raise DecisionError(f"The reason is longer than {LONGEST_REASON} characters.")
    return reason


def _decide(
    request: AccessRequest,
    outcome: Outcome,
    *,
    by: User,
    reason: str,
    at: datetime,
    apply_again_at: datetime | None = None,
) -> Decision:
    """Move ``request`` from submitted to ``outcome``, or say who was faster."""
    reason = _checked(reason)
    if request.applicant_id == by.pk:
        raise DecisionError("Nobody decides on their own request; ask another reviewer.")
    if request.decisions.filter(by=by, appeal__isnull=False).exists():
        raise DecisionError("You rejected this request; its appeal goes to another reviewer.")
    moved = AccessRequest.objects.filter(pk=request.pk, status=Status.SUBMITTED).update(
        status=outcome
    )
    request.refresh_from_db(fields=["status", "submitted_at"])
    if not moved:
        raise DecisionError(_why_not_open(request))
    decision = Decision.objects.create(
        request=request,
        outcome=outcome,
        reason=reason,
        by=by,
        at=at,
        asked_at=request.submitted_at,
        apply_again_at=apply_again_at,
    )
    record(f"request.{outcome}", subject=request.subject, actor=by.actor, at=at, reason=reason)
    return decision


def _why_not_open(request: AccessRequest) -> str:
    last = request.decisions.last()
    if last and request.status == last.outcome:
        return f"Already {last.outcome} by {last.by} at {last.at:%H:%M on %d %B %Y}."
    return f"This request is {request.get_status_display()}; it cannot be decided now."


def _accepted_terms(request: AccessRequest) -> Terms:
    """Return the terms that the applicant accepted last; submitting made sure that there are some."""
    acceptance = request.applicant.acceptances.filter(terms__family=request.family).latest("at")
    return acceptance.terms


def _tell(decision: Decision, subject: str, then: str) -> None:
    post(
        decision.request.applicant,
        kind=f"request.{decision.outcome}",
        about=decision.request.subject,
        subject=subject,
        body=f"The reviewer wrote:\n\n{decision.reason}\n\n{then}",
        at=decision.at,
    )
