"""The part of the API that is about requests; `portal.delivery.api` takes it in."""

from datetime import datetime
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.timezone import now
from ninja import Router, Schema

from portal.access import policy
from portal.access.models import AccessRequest, Decision, Grant
from portal.accounts.api import Bearer
from portal.accounts.models import ApiToken, User

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
