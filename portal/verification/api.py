"""Challenges in the API: draw one, answer it, ask what the answer was worth."""

import uuid
from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.timezone import now
from ninja import Schema, Status

from portal.accounts.models import ApiToken
from portal.catalog.models import Checkpoint
from portal.delivery.api import Bearer, api, problem
from portal.verification import challenges
from portal.verification.models import Challenge, Verification
from verifier.challenges import MAX_ANSWER_BYTES


class WantedIn(Schema):
    """The checkpoint that the copy claims to be."""

    checkpoint: str


class AnsweredOut(Schema):
    """The check that judges an answer: `status` done or failed is the end."""

    verification: uuid.UUID
    url: str
    status: str
    verdict: str
    sentence: str
    finished_at: datetime | None
    inference: dict[str, Any] | None


@api.exception_handler(challenges.ChallengeError)
def _refused(request: HttpRequest, error: challenges.ChallengeError) -> HttpResponse:
    return problem(error.status, str(error))


def _caller(request: HttpRequest) -> ApiToken:
    return request.auth  # type: ignore[attr-defined]  # set by ninja from Bearer


@api.post("/challenges", auth=Bearer("verify"))
def draw_challenge(request: HttpRequest, wanted: WantedIn) -> HttpResponse:
    """Draw a challenge; the answer is the file that `--challenge` takes."""
    checkpoint = Checkpoint.objects.named(wanted.checkpoint).select_related("family").first()
    if checkpoint is None:
        raise challenges.ChallengeError(f"{wanted.checkpoint} is not published here.", 404)
    drawn = challenges.draw(_caller(request).user, checkpoint, at=now())
    return api.create_response(request, challenges.content(drawn).content(), status=201)


def _drawn_by(request: HttpRequest, pk: uuid.UUID) -> Challenge:
    seen = Challenge.objects.visible_to(_caller(request).user)
    challenge = seen.select_related("checkpoint__family", "verification").filter(pk=pk).first()
    if challenge is None:
        raise challenges.ChallengeError(f"You have drawn no challenge {pk}.", 404)
    return challenge


def _answered(request: HttpRequest, check: Verification) -> dict[str, Any]:
    return {
        "verification": check.pk,
        "url": request.build_absolute_uri(reverse("verification", args=[check.pk])),
        "status": check.status,
        "verdict": check.verdict,
        "sentence": check.sentence,
        "finished_at": check.finished_at,
        "inference": (check.report or {}).get("inference"),
    }


@api.post("/challenges/{uuid:pk}/answer", auth=Bearer("verify"), response={202: AnsweredOut})
def answer_challenge(request: HttpRequest, pk: uuid.UUID) -> Any:
    """Take the answer, once: the body is what the command printed."""
    if int(request.META.get("CONTENT_LENGTH") or 0) > MAX_ANSWER_BYTES:
        return problem(413, f"An answer has at most {MAX_ANSWER_BYTES:,} bytes.")
    challenge = _drawn_by(request, pk)
    check = challenges.answer(challenge, request.body, by=_caller(request).user, at=now())
    return Status(202, _answered(request, check))


@api.get("/challenges/{uuid:pk}", auth=Bearer("verify"), response=AnsweredOut)
def get_challenge(request: HttpRequest, pk: uuid.UUID) -> Any:
    """Say what the answer to a challenge was worth, as far as that is known."""
    check = _drawn_by(request, pk).verification
    if check is None:
        return problem(404, "This challenge has not been answered yet.")
    return _answered(request, check)
