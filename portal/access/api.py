"""The part of the API that is about requests; `portal.delivery.api` takes it in."""

from datetime import datetime
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.timezone import now
from ninja import Router, Schema, Status

from portal.access import applications, policy
from portal.access.form_versions import current_form
from portal.access.forms import questions_of
from portal.access.models import AccessRequest, Decision, Grant
from portal.access.questions.asking import is_asked
from portal.accounts.addresses import address_of
from portal.accounts.api import Bearer
from portal.accounts.models import ApiToken, User
from portal.catalog.models import Family

router = Router()

MOST_SHOWN = 200


class RequestOut(Schema):
    """One request and how it stands. ``place`` is in the queue; ``reason`` a reviewer's last one."""

    id: int
    family: str
    status: str
    words: str
    url: str
    submitted_at: datetime | None
    place: int | None
    reason: str
    apply_again_at: datetime | None


class GrantOut(Schema):
    """One grant: until when it opens its checkpoint, or why it does not."""

    id: int
    checkpoint: str
    open: bool
    expires_at: datetime
    reason: str


class StandingOut(Schema):
    """How everything stands for the person of a token, the newest first."""

    person: str
    requests: list[RequestOut]
    grants: list[GrantOut]


@router.get("/requests", auth=Bearer("apply", "read"), response=StandingOut)
def list_requests(request: HttpRequest) -> dict[str, Any]:
    """Say how the requests and grants of the token's person stand."""
    token: ApiToken = request.auth  # type: ignore[attr-defined]  # set by ninja from Bearer
    at = now()
    return {
        "person": token.user.email,
        "requests": [_request(one) for one in _requests_of(token.user)],
        "grants": [_grant(one, at) for one in _grants_of(token)],
    }


def _requests_of(user: User) -> list[AccessRequest]:
    mine = AccessRequest.objects.filter(applicant=user).select_related("family")
    return list(mine.prefetch_related("decisions").order_by("-pk")[:MOST_SHOWN])


def _grants_of(token: ApiToken) -> list[Grant]:
    mine = Grant.objects.filter(grantee=token.user).select_related("checkpoint__family")
    found = mine.order_by("-expires_at", "-pk")[:MOST_SHOWN]
    return [one for one in found if token.checkpoint in ("", str(one.checkpoint))]


def _request(one: AccessRequest) -> dict[str, Any]:
    decisions: list[Decision] = list(one.decisions.all())
    last = decisions[-1] if decisions else None
    waits = one.status == AccessRequest.Status.SUBMITTED
    before = AccessRequest.objects.waiting().filter(submitted_at__lt=one.submitted_at)
    return {
        "id": one.pk,
        "family": one.family.slug,
        "status": one.status,
        "words": one.get_status_display(),
        "url": f"{settings.PUBLIC_URL}{one.get_absolute_url()}",
        "submitted_at": one.submitted_at,
        "place": before.count() + 1 if waits else None,
        "reason": last.reason if last else "",
        "apply_again_at": last.apply_again_at if last else None,
    }


def _grant(one: Grant, at: datetime) -> dict[str, Any]:
    answer = policy.decide_for_grant(one.pk, at)
    return {
        "id": one.pk,
        "checkpoint": str(one.checkpoint),
        "open": answer.allowed,
        "expires_at": one.expires_at,
        "reason": answer.reason,
    }


class ApplyError(Exception):
    """A request cannot be made so; the message says why. ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


class TermsOut(Schema):
    """One version of the words that are accepted, by their digest."""

    version: int
    sha256: str
    text: str


class FormOut(Schema):
    """What a family asks, of which checkpoints, under which terms."""

    family: str
    version: int
    checkpoints: list[str]
    questions: list[dict[str, Any]]
    terms: TermsOut


class ApplicationIn(Schema):
    """An application: answers by the question's id, and the digest of the terms that are accepted."""

    checkpoints: list[str]
    answers: dict[str, str | list[str] | list[dict[str, str]]]
    terms_sha256: str


class AppliedOut(Schema):
    """The request that was made."""

    id: int
    status: str
    url: str


@router.get("/families/{slug}/form", auth=Bearer("apply"), response=FormOut)
def get_form(request: HttpRequest, slug: str) -> dict[str, Any]:
    """Say what a family asks of who applies."""
    family = _family(slug)
    form = current_form(family, at=now())
    return {
        "family": family.slug,
        "version": form.version,
        "checkpoints": [str(one) for one in family.checkpoints.select_related("family")],
        "questions": form.questions,
        "terms": family.terms,
    }


@router.post("/families/{slug}/requests", auth=Bearer("apply"), response={201: AppliedOut})
def make_request(request: HttpRequest, slug: str, wanted: ApplicationIn) -> Any:
    """Apply: save the answers in the person's open request, and submit it with the terms accepted.

    What was sent is kept as a draft even where it cannot be submitted.
    """
    token: ApiToken = request.auth  # type: ignore[attr-defined]  # set by ninja from Bearer
    family, at = _family(slug), now()
    terms = family.terms
    if wanted.terms_sha256 != terms.sha256:
        raise ApplyError(
            f"terms_sha256: version {terms.version} has {terms.sha256}; read it first."
        )
    try:
        draft = applications.begin(token.user, family, at=at)
    except applications.ApplicationError as error:
        raise ApplyError(str(error), 403) from None
    place = f"{settings.PUBLIC_URL}{draft.get_absolute_url()}"
    try:
        _fill(draft, token, wanted, at)
        applications.submit(
            draft,
            terms=terms,
            at=at,
            address=address_of(request),
            agent=request.headers.get("User-Agent", ""),
        )
    except applications.ApplicationError as error:
        raise ApplyError(f"{error} Your request is at {place} .", 409) from None
    return Status(201, {"id": draft.pk, "status": draft.status, "url": place})


def _family(slug: str) -> Family:
    family = Family.objects.filter(slug=slug[:63]).first()
    if family is None:
        raise ApplyError(f"There is no family {slug[:63]!r} here.", 404)
    return family


def _fill(draft: AccessRequest, token: ApiToken, wanted: ApplicationIn, at: datetime) -> None:
    """Save what is wanted in ``draft``."""
    asked = {one["id"]: one for one in questions_of(draft) if is_asked(one)}
    unknown = sorted(set(wanted.answers) - set(asked))
    if unknown:
        raise ApplyError(f"answers: the form does not ask {unknown[0][:40]!r}.")
    every = {str(one): one for one in draft.family.checkpoints.select_related("family")}
    for name in wanted.checkpoints:
        if name not in every:
            raise ApplyError(
                f"checkpoints: {name[:80]!r} is not of the family {draft.family.slug}."
            )
        if token.checkpoint not in ("", name):
            raise ApplyError(f"This token was made for {token.checkpoint} only.", 403)
    chosen = [every[name] for name in dict.fromkeys(wanted.checkpoints)]
    applications.save(draft, answers=wanted.answers, checkpoints=chosen, at=at)
