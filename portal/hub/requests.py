"""Access requests, for reviewers' scripts: the methods of `HfApi`, by the verbs of the reviewers' desk.

A reviewer sends a token of their own that was made for `review`. A person's user name is their
e-mail address.

    list      pending, accepted (a grant is in force) or rejected (or the grant was revoked)
    accept    approve a waiting request, for a year
    reject    reject a waiting request; revoke the grants of an accepted one
    cancel    revoke the grants of an accepted one; nothing here goes back into the queue
    grant     grant without a request: the reviewer attests that the terms were accepted on paper

A request may name checkpoints of several repositories and is decided as a whole: one that names
others than the repository asked about is decided at the reviewers' desk only.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.timezone import now

from portal.access import decisions
from portal.access.models import AccessRequest, Attachment, Grant, GrantQuerySet
from portal.access.questions.words import in_words
from portal.accounts.models import ApiToken, User
from portal.audit.chain import record
from portal.catalog.models import Checkpoint
from portal.hub import repositories
from portal.hub.answers import Refusal, answer, hub_view
from portal.hub.callers import require_checkpoint, required
from portal.hub.metadata import as_time, following_page, linked, number

PAGE = 100
LARGEST_BODY = 64 * 1024
GRANT_FOR = timedelta(days=365)
PENDING, ACCEPTED, REJECTED = "pending", "accepted", "rejected"
BY_SCRIPT = "Accepted."
CANCELLED = "A reviewer cancelled it; you may apply again."
Status = AccessRequest.Status


def _reviewer(request: HttpRequest) -> ApiToken:
    """Return the token of a reviewer, made for reviewing."""
    token = required(request, "review")
    if not token.user.has_perm("access.decide_request"):
        raise Refusal(f"{token.user} is not a reviewer of this portal.", 403)
    return token


def _checkpoints(repo: str, token: ApiToken) -> list[Checkpoint]:
    """Return the versions of a repository, the newest first; ``token`` must be good for each."""
    versions = list(repositories.versions_of(repo))
    if not versions:
        raise repositories.missing(repo)
    for checkpoint in versions:
        require_checkpoint(token, checkpoint)
    return versions


def _in_force(checkpoints: list[Checkpoint]) -> GrantQuerySet:
    return Grant.objects.active(now()).filter(checkpoint__in=checkpoints)


def _listed(status: str, checkpoints: list[Checkpoint]) -> QuerySet[AccessRequest]:
    """The requests that have this status in a repository, by the Hub's three words."""
    of_request = Grant.objects.filter(decision__request=OuterRef("pk"), checkpoint__in=checkpoints)
    is_open = Exists(of_request.filter(pk__in=_in_force(checkpoints).values("pk")))
    naming = AccessRequest.objects.filter(
        pk__in=AccessRequest.checkpoints.through.objects.filter(checkpoint__in=checkpoints).values(
            "accessrequest"
        )
    )
    if status == PENDING:
        return naming.waiting()
    if status == ACCEPTED:
        return naming.filter(is_open, status=Status.APPROVED)
    revoked = Exists(of_request.exclude(revoked_at=None))
    return naming.filter(status=Status.REJECTED) | naming.filter(
        ~is_open, revoked, status=Status.APPROVED
    )


@hub_view("GET", "HEAD")
def list_view(request: HttpRequest, repo: str, status: str) -> HttpResponse:
    """List the requests of a repository in pages, the oldest first; that they were read is recorded."""
    token = _reviewer(request)
    after = number(request, "cursor", 0)
    found = (
        _listed(status, _checkpoints(repo, token))
        .filter(pk__gt=after)
        .select_related("applicant", "form_version")
        .order_by("pk")[: PAGE + 1]
    )
    rows = list(found)
    with transaction.atomic():
        record(
            "requests.read",
            subject=f"repository:{repo}",
            actor=token.user.actor,
            token=token.pk,
            requests=[row.pk for row in rows[:PAGE]],
        )
    attached = _attached(rows)
    response = answer([_as_json(row, status, attached[row.pk]) for row in rows[:PAGE]])
    return linked(response, following_page(request, rows[PAGE - 1].pk) if rows[PAGE:] else "")


def _attached(rows: list[AccessRequest]) -> Mapping[int, dict[str, list[Attachment]]]:
    """Return the files of each request by the ids of their questions, in one query."""
    found: dict[int, dict[str, list[Attachment]]] = defaultdict(lambda: defaultdict(list))
    for file in Attachment.objects.filter(request__in=rows, removed_at=None).order_by("pk"):
        found[file.request_id][file.question].append(file)
    return found


def _as_json(
    request: AccessRequest, status: str, attached: Mapping[str, list[Attachment]]
) -> dict[str, Any]:
    questions = request.form_version.questions if request.form_version else []
    person = request.applicant
    return {
        "requestId": str(request.pk),
        "user": {
            "_id": str(person.pk),
            "user": person.email,
            "fullname": person.name or person.email,
            "email": person.email,
        },
        "status": status,
        "timestamp": as_time(request.submitted_at or request.created_at),
        "fields": {
            said.label: said.as_text for said in in_words(questions, request.answers, attached)
        },
    }


def _body(request: HttpRequest) -> dict[str, str]:
    """Return the JSON object that was sent, of texts by name."""
    if int(request.headers.get("Content-Length") or 0) > LARGEST_BODY:
        raise Refusal(f"The body is larger than {LARGEST_BODY} bytes.", 413)
    try:
        content = json.loads(request.body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Refusal("Send a JSON object, such as {“user”: “a@uni.example”}.", 400)
    # PostgreSQL takes no NUL in a text
    return {
        key: value.replace("\0", "") for key, value in content.items() if isinstance(value, str)
    }


@hub_view("POST")
def handle_view(request: HttpRequest, repo: str) -> HttpResponse:
    """Accept, reject or cancel one request."""
    token = _reviewer(request)
    content = _body(request)
    checkpoints = _checkpoints(repo, token)
    application = _asked_about(content, repo, checkpoints)
    status = content.get("status")
    try:
        with transaction.atomic():
            if status == ACCEPTED:
                _accept(application, checkpoints, by=token.user)
            elif status == REJECTED:
                _end(application, checkpoints, content.get("rejectionReason", ""), by=token.user)
            elif status == PENDING:
                _cancel(application, checkpoints, by=token.user)
            else:
                raise Refusal(f"status: say {ACCEPTED}, {REJECTED} or {PENDING}.", 400)
    except decisions.DecisionError as error:
        raise Refusal(f"{application}: {error}", 400) from None
    return answer({"requestId": str(application.pk), "status": status})


def _asked_about(
    content: dict[str, str], repo: str, checkpoints: list[Checkpoint]
) -> AccessRequest:
    """Return the request with this id, or this person's that is most in need of an answer."""
    key, email = content.get("requestId", ""), content.get("user", "")
    for status in (PENDING, ACCEPTED, REJECTED):
        found = _listed(status, checkpoints).select_related("applicant", "family")
        if key:
            usable = key.isascii() and key.isdigit() and len(key) < 18
            found = found.filter(pk=int(key) if usable else 0)
        else:
            found = found.filter(applicant__email__iexact=email)
        if application := found.last():
            return application
    raise Refusal(f"{repo} has no request of {key or email or 'nobody'}.", 404)


def _require_whole(application: AccessRequest, checkpoints: list[Checkpoint]) -> None:
    """Refuse to decide on a request that names other repositories too."""
    others = application.checkpoints.exclude(pk__in=[each.pk for each in checkpoints])
    if other := others.select_related("family").first():
        place = reverse("admin:access_accessrequest_change", args=[application.pk])
        raise decisions.DecisionError(
            f"it also asks for {other}, and is decided as a whole: {settings.PUBLIC_URL}{place}"
        )


def _accept(application: AccessRequest, checkpoints: list[Checkpoint], *, by: User) -> None:
    _require_whole(application, checkpoints)
    at = now()
    decisions.approve(application, by=by, reason=BY_SCRIPT, at=at, until=at + GRANT_FOR)


def _end(
    application: AccessRequest, checkpoints: list[Checkpoint], reason: str, *, by: User
) -> None:
    """Reject what waits, revoke what was granted."""
    grants = list(_in_force(checkpoints).filter(decision__request=application))
    if not grants:
        _require_whole(application, checkpoints)
        decisions.reject(application, by=by, reason=reason, at=now())
    for grant in grants:
        decisions.revoke(grant, by=by, reason=reason, at=now())


def _cancel(application: AccessRequest, checkpoints: list[Checkpoint], *, by: User) -> None:
    if application.status == Status.SUBMITTED:
        raise decisions.DecisionError("it is in the queue already.")
    grants = list(_in_force(checkpoints).filter(decision__request=application))
    if not grants:
        raise decisions.DecisionError(
            "what was decided does not go back into the queue; its applicant may apply again."
        )
    for grant in grants:
        decisions.revoke(grant, by=by, reason=CANCELLED, at=now())


@hub_view("POST")
def grant_view(request: HttpRequest, repo: str) -> HttpResponse:
    """Grant the newest version to a person who did not ask for it."""
    token = _reviewer(request)
    email = _body(request).get("user", "")
    checkpoint = _checkpoints(repo, token)[0]
    person = User.objects.filter(email__iexact=email, is_active=True).first()
    if person is None:
        raise Refusal(f"Nobody with the address {email[:254]!r} has an account here.", 404)
    if _in_force([checkpoint]).filter(grantee=person).exists():
        raise Refusal(f"{person} has access to {checkpoint} already.", 400)
    at = now()
    try:
        grant = decisions.grant_directly(
            person, checkpoint, by=token.user, reason=BY_SCRIPT, at=at, until=at + GRANT_FOR
        )
    except decisions.DecisionError as error:
        raise Refusal(str(error), 400) from None
    return answer({"user": person.email, "status": ACCEPTED, "until": as_time(grant.expires_at)})
