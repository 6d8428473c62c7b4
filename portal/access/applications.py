"""What an applicant does with an access request: begin, save, submit, withdraw."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction

from portal.access.models import Acceptance, AccessRequest, Decision, FormVersion
from portal.access.questions import DEFAULT_QUESTIONS
from portal.accounts.models import User
from portal.accounts.people import has_confirmed_address
from portal.audit.chain import record
from portal.catalog.models import Checkpoint, Family, Terms
from portal.outbox.sending import post

Status = AccessRequest.Status


class ApplicationError(Exception):
    """The request cannot be changed so; the message says why and what to do."""


def may_apply(user: User, family: Family, at: datetime) -> str:
    """Return why ``user`` may not begin a request now, or nothing if they may."""
    if not has_confirmed_address(user):
        return "Confirm your e-mail address first: the link is in the mail we sent you."
    last = Decision.objects.filter(request__applicant=user, request__family=family).last()
    again = last.apply_again_at if last and last.outcome == Decision.Outcome.REJECTED else None
    if again and again > at:
        return f"You may apply again from {again:%d %B %Y}."
    return ""


def current_form(family: Family, *, at: datetime) -> FormVersion:
    """Return the newest version of the family's form, made with default questions if there is none."""
    newest = FormVersion.objects.filter(family=family).order_by("-version").first()
    if newest:
        return newest
    made, _ = FormVersion.objects.get_or_create(
        family=family, version=1, defaults={"questions": DEFAULT_QUESTIONS, "created_at": at}
    )
    return made


@transaction.atomic
def begin(user: User, family: Family, *, at: datetime) -> AccessRequest:
    """Return the person's open request for ``family``, begun as a draft if there is none.

    Raises:
        ApplicationError: they may not apply now.
    """
    open_one = AccessRequest.objects.open().filter(applicant=user, family=family, by_operator=False)
    if found := open_one.first():
        return found
    if reason := may_apply(user, family, at):
        raise ApplicationError(reason)
    form_version = current_form(family, at=at)
    try:
        with transaction.atomic():
            request = AccessRequest.objects.create(
                applicant=user, family=family, form_version=form_version, created_at=at, saved_at=at
            )
    except IntegrityError:  # the same person in another window was first
        return open_one.get()
    record("request.begun", subject=request.subject, actor=user.actor, at=at, family=family.slug)
    return request


@transaction.atomic
def save(
    request: AccessRequest,
    *,
    answers: Mapping[str, Any],
    checkpoints: Sequence[Checkpoint],
    at: datetime,
) -> None:
    """Keep what was typed, valid or not.

    Raises:
        ApplicationError: the request is no longer the applicant's to change.
    """
    changed = AccessRequest.objects.filter(pk=request.pk, status__in=AccessRequest.EDITABLE).update(
        answers=dict(answers), saved_at=at
    )
    if not changed:
        raise ApplicationError("This request has been submitted; what you typed was not saved.")
    request.answers, request.saved_at = dict(answers), at
    request.checkpoints.set(checkpoints)


@transaction.atomic
def submit(
    request: AccessRequest, *, terms: Terms, at: datetime, address: str | None, agent: str
) -> None:
    """Send the request to the reviewers, with the applicant's acceptance of ``terms``.

    Raises:
        ApplicationError: it was sent already, names no checkpoint, or the terms are not the newest.
    """
    user = request.applicant
    if not request.checkpoints.exists():
        raise ApplicationError("Choose at least one checkpoint.")
    if terms != request.family.terms:
        raise ApplicationError("The terms have changed since you read them; read the new version.")
    changed = AccessRequest.objects.filter(pk=request.pk, status__in=AccessRequest.EDITABLE).update(
        status=Status.SUBMITTED, submitted_at=at
    )
    if not changed:
        raise ApplicationError("This request has been submitted already.")
    request.status, request.submitted_at = Status.SUBMITTED, at
    accept(user, terms, at=at, address=address, agent=agent)
    record("request.submitted", subject=request.subject, actor=user.actor, at=at)
    post(
        user,
        kind="request.submitted",
        about=request.subject,
        subject=f"We have your request for {request.family}",
        body=(
            f"Your request for {request.family} has reached the reviewers.\n"
            "You will have a mail when it is decided. Its state is always shown on its page.\n"
        ),
        at=at,
    )


def accept(
    user: User,
    terms: Terms,
    *,
    at: datetime,
    address: str | None = None,
    agent: str = "",
    attested_by: User | None = None,
) -> Acceptance:
    """Write down that ``user`` accepted these words; to be called inside a transaction."""
    acceptance = Acceptance.objects.create(
        user=user,
        terms=terms,
        text_sha256=terms.sha256,
        at=at,
        address=address,
        agent=agent[:300],
        attested_by=attested_by,
    )
    record(
        "terms.accepted",
        subject=f"terms:{terms.family.slug}:{terms.version}",
        actor=(attested_by or user).actor,
        at=at,
        user=user.actor,
        sha256=terms.sha256,
        on_paper=attested_by is not None,
    )
    return acceptance


@transaction.atomic
def withdraw(request: AccessRequest, *, at: datetime) -> None:
    """Take the request back.

    Raises:
        ApplicationError: it has been decided.
    """
    changed = AccessRequest.objects.filter(pk=request.pk, status__in=AccessRequest.OPEN).update(
        status=Status.WITHDRAWN
    )
    if not changed:
        raise ApplicationError("This request has been decided; it cannot be withdrawn.")
    request.status = Status.WITHDRAWN
    record("request.withdrawn", subject=request.subject, actor=request.applicant.actor, at=at)
