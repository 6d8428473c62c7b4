"""Hand over the secret sketch of a checkpoint: to who has its weights anyway, or reviews."""

from datetime import datetime

from django.db import transaction

from portal.access import policy
from portal.accounts import tokens
from portal.accounts.models import ApiToken
from portal.audit.chain import record
from portal.catalog.manifests import sketch_of
from portal.catalog.models import Checkpoint


class SketchError(Exception):
    """No sketch is handed over; the message says why, ``status`` the same in HTTP."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def hand_over(token: ApiToken, name: str, *, at: datetime) -> bytes:
    """Return the sketch of the checkpoint ``name`` for the person of ``token``; it is recorded first.

    Raises:
        CheckpointNameError: ``name`` is not of the form.
        TokenError: ``token`` was made for another checkpoint.
        SketchError: the policy says no, or there is no such checkpoint or no sketch of it.
        AuditError: it could not be recorded.
    """
    checkpoint = Checkpoint.objects.named(name).select_related("family").first()
    if checkpoint is None:
        raise SketchError(f"{name} is not published here.", 404)
    tokens.require_checkpoint(token, checkpoint.name)
    answer = policy.decide(token.user, checkpoint, at)
    if not answer.allowed and not token.user.has_perm("access.decide_request"):
        raise SketchError(answer.reason, 403)
    path = sketch_of(checkpoint)
    if path is None:
        raise SketchError(f"No sketch of {name} was made when it was published.", 404)
    with transaction.atomic(durable=True):
        record(
            "sketch.given",
            subject=checkpoint.subject,
            actor=token.user.actor,
            at=at,
            token=token.pk,
            grant=answer.grant.pk if answer.grant else None,
        )
    return path.read_bytes()
