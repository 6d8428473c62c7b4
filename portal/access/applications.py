"""What an applicant does with an access request: begin, save, submit, withdraw."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from portal.access.attachments import attach_again, attached_to, take_back
from portal.access.form_versions import current_form
from portal.access.forms import (
    answers_to_send,
    digest_of,
    digest_of_chosen,
    first_unfinished,
    questions_of,
)
from portal.access.models import Acceptance, AccessRequest, Decision
from portal.access.questions.asking import visible
from portal.access.questions.words import in_words
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
def copy(old: AccessRequest, *, at: datetime) -> AccessRequest:
    """Begin a new request with the answers of ``old`` that the newest form still asks for.

    Raises:
        ApplicationError: the person may not apply now, or has an open request for this family.
    """
    user, family = old.applicant, old.family
    if (
        AccessRequest.objects.open()
        .filter(applicant=user, family=family, by_operator=False)
        .exists()
    ):
        raise ApplicationError("You have an open request for this family; go on with that one.")
    made = begin(user, family, at=at)
    kinds = {question["id"]: question["type"] for question in questions_of(old)}
    wanted = {
        question["id"]: question
        for question in questions_of(made)
        if kinds.get(question["id"]) == question["type"]
    }
    answers = {name: old.answers[name] for name in wanted if name in old.answers}
    save(made, answers=answers, checkpoints=list(old.checkpoints.all()), at=at)
    for name, files in attached_to(old).items():
        if name in wanted:
            for file in files:
                attach_again(made, wanted[name], file, at=at)
    return made


@transaction.atomic
def save(
    request: AccessRequest,
    *,
    answers: Mapping[str, Any],
    at: datetime,
    checkpoints: Sequence[Checkpoint] | None = None,
    base: Mapping[str, str] | None = None,
    window: str = "",
) -> None:
    """Keep what was typed, valid or not; other answers stay as they are.

    ``base`` has, by question, the digest of the answer that the page showed before it was typed
    into. Where another window has changed an answer since, the one typed here is kept as the
    answer and the other beside it; an answer that was not touched here does not undo the other.

    Raises:
        ApplicationError: the request is no longer the applicant's to change.
    """
    locked = AccessRequest.objects.select_for_update()
    current = locked.filter(pk=request.pk, status__in=AccessRequest.EDITABLE).first()
    if current is None:
        raise ApplicationError(
            "This request has been submitted or withdrawn; what you typed was not saved."
        )
    for name, typed in answers.items():
        kept, note = current.answers.get(name), dict(current.meanwhile.get(name, {}))
        if digest_of(typed) == digest_of(kept):
            continue
        is_others = note.get("window", "") != window
        if base and is_others and name in base and base[name] != digest_of(kept):
            if digest_of(typed) == base[name]:
                continue
            note["other"] = kept
        current.answers[name] = typed
        current.meanwhile[name] = note | {"window": window}
    if checkpoints is not None:
        # a window that did not touch the choice does not undo what another chose since
        others = current.meanwhile.get("checkpoints", {}).get("window", "") != window
        untouched = (base or {}).get("checkpoints") == digest_of_chosen(checkpoints)
        if not (others and untouched):
            request.checkpoints.set(checkpoints)
            current.meanwhile["checkpoints"] = {"window": window}
    current.saved_at = at
    current.save(update_fields=["answers", "meanwhile", "saved_at"])
    request.answers, request.meanwhile = current.answers, current.meanwhile
    request.saved_at = at


@transaction.atomic
def submit(
    request: AccessRequest,
    *,
    terms: Terms,
    at: datetime,
    address: str | None,
    agent: str,
    seen: str | None = None,
) -> None:
    """Send the request to the reviewers, with the applicant's acceptance of ``terms``.

    ``seen`` is the digest (`digest_of_all`) of the answers that the applicant was shown.

    Raises:
        ApplicationError: it was sent already, an answer is missing or wrong, the answers are not
            those that were shown, or the terms are not the newest.
    """
    user = request.applicant
    locked = AccessRequest.objects.select_for_update()
    current = locked.filter(pk=request.pk, status__in=AccessRequest.EDITABLE).first()
    if current is None:
        raise ApplicationError("This request has been submitted already.")
    if seen is not None and seen != digest_of_all(current):
        raise ApplicationError("Your answers changed in another window; check them again.")
    attached = attached_to(current)
    if unfinished := first_unfinished(current, attached):
        step, form = unfinished
        errors = next(iter(form.errors.values()))
        raise ApplicationError(f"On the page “{step.page.title}”: {errors[0]}")
    if terms != request.family.terms:
        raise ApplicationError("The terms have changed since you read them; read the new version.")
    current.answers = answers_to_send(current, attached)
    shown = visible(questions_of(current), current.answers)
    hidden = [file for name, each in attached.items() if name not in shown for file in each]
    take_back(hidden, since=request.submitted_at, at=at)
    current.status, current.submitted_at, current.meanwhile = Status.SUBMITTED, at, {}
    current.save(update_fields=["answers", "status", "submitted_at", "meanwhile"])
    request.answers, request.meanwhile = current.answers, {}
    request.status, request.submitted_at = Status.SUBMITTED, at
    accept(user, terms, at=at, address=address, agent=agent)
    record("request.submitted", subject=request.subject, actor=user.actor, at=at)
    said = in_words(questions_of(request), request.answers, attached)
    copy = "\n\n".join(f"{one.label}\n{one.as_text}" for one in said)
    post(
        user,
        kind="request.submitted",
        about=request.subject,
        subject=f"We have your request for {request.family}",
        body=(
            f"Your request for {request.family} has reached the reviewers.\n"
            "You will have a mail when it is decided. Its state is always shown on its page:\n"
            f"{settings.PUBLIC_URL}{request.get_absolute_url()}\n\n"
            f"What you sent:\n\n{copy}\n"
        ),
        at=at,
    )


def digest_of_all(request: AccessRequest) -> str:
    """Return a digest of everything that the page of all answers shows."""
    chosen = digest_of_chosen(request.checkpoints.all())
    files = sorted(file.pk for each in attached_to(request).values() for file in each)
    return digest_of([request.answers, chosen, files])


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
    """Take the request back. A draft was seen by nobody: its answers and files are deleted.

    Raises:
        ApplicationError: it has been decided.
    """
    changed = AccessRequest.objects.filter(pk=request.pk, status__in=AccessRequest.OPEN).update(
        status=Status.WITHDRAWN
    )
    if not changed:
        raise ApplicationError("This request has been decided; it cannot be withdrawn.")
    request.status = Status.WITHDRAWN
    if request.submitted_at is None:
        AccessRequest.objects.filter(pk=request.pk).update(answers={}, meanwhile={})
        files = [file for each in attached_to(request).values() for file in each]
        take_back(files, since=None, at=at)
    record("request.withdrawn", subject=request.subject, actor=request.applicant.actor, at=at)
