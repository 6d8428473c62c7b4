"""Draw a challenge for the holder of a copy, and take its one answer.

The seed is drawn by the operating system and published with the challenge: token ids, signs and
probe vectors follow from it, and until then nobody knew them, so nothing can have been prepared.
"""

import hashlib
import secrets
import uuid
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from portal.accounts.models import User
from portal.accounts.people import has_confirmed_address
from portal.audit.chain import record
from portal.catalog.models import Checkpoint
from portal.verification.models import Challenge, Verification
from portal.verification.tasks import wake
from verifier import challenges as files
from verifier.errors import ChallengeError as FileError

POSITIONS = 32
TO_BEGIN = timedelta(minutes=15)
SLOWEST = 20_000_000  # bytes a second at which a holder must be able to read the copy


class ChallengeError(Exception):
    """Nothing can be drawn, or the answer is not taken; the message says why and what to do."""

    def __init__(self, message: str, status: int = 409) -> None:
        super().__init__(message)
        self.status = status


@transaction.atomic
def stock(checkpoint: Checkpoint, *, at: datetime) -> Challenge:
    """Make a challenge that nobody has drawn yet, so that its official answer can be made ahead."""
    return Challenge.objects.create(
        checkpoint=checkpoint,
        seed=secrets.token_hex(files.SEED_BYTES),
        positions=POSITIONS,
        made_at=at,
    )


@transaction.atomic
def draw(user: User, checkpoint: Checkpoint, *, at: datetime) -> Challenge:
    """Draw a challenge about ``checkpoint`` for ``user``: from the stock, or a new one.

    Raises:
        ChallengeError: ``user`` may not now, or the checkpoint cannot be asked about.
    """
    if not has_confirmed_address(user):
        raise ChallengeError("Confirm your e-mail address first.", 403)
    if not checkpoint.has_reference:
        raise ChallengeError(
            f"{checkpoint} cannot be run by this portal, so there is no official answer; "
            "verify its files instead."
        )
    User.objects.select_for_update().get(pk=user.pk)  # requests of one person, one by one
    drawn = Challenge.objects.filter(drawn_by=user, drawn_at__gt=at - timedelta(days=1)).count()
    if drawn >= settings.CHECKS_PER_DAY:
        raise ChallengeError(f"You have drawn {drawn} challenges in 24 hours; wait.", 429)
    challenge = _take(user, checkpoint, at) or _take(user, checkpoint, at, stock(checkpoint, at=at))
    assert challenge is not None  # nobody else knows of a new one
    record(
        "challenge.drawn",
        subject=challenge.subject,
        actor=user.actor,
        at=at,
        checkpoint=checkpoint.name,
        seed_sha256=hashlib.sha256(bytes.fromhex(challenge.seed)).hexdigest(),
    )
    return challenge


def _take(
    user: User, checkpoint: Checkpoint, at: datetime, new: Challenge | None = None
) -> Challenge | None:
    """Give ``user`` a challenge that nobody has drawn; of those who want the same one, one wins."""
    waiting = Challenge.objects.filter(checkpoint=checkpoint, drawn_at=None)
    waiting = waiting.filter(pk=new.pk) if new else waiting.exclude(official="")
    expires_at = at + TO_BEGIN + timedelta(seconds=checkpoint.size / SLOWEST)
    for pk in waiting.order_by("made_at").values_list("pk", flat=True):
        if Challenge.objects.filter(pk=pk, drawn_at=None).update(
            drawn_by=user, drawn_at=at, expires_at=expires_at
        ):
            return Challenge.objects.select_related("checkpoint__family").get(pk=pk)
    return None


def content(challenge: Challenge) -> files.Challenge:
    """Return what the file of a challenge that was drawn says."""
    assert challenge.expires_at is not None
    return files.Challenge(
        id=str(challenge.pk),
        checkpoint=challenge.checkpoint.name,
        seed=challenge.seed,
        positions=challenge.positions,
        expires_at=challenge.expires_at,
    )


@transaction.atomic
def answer(challenge: Challenge, data: bytes, *, by: User, at: datetime) -> Verification:
    """Take the answer to a challenge, once, and have it judged.

    An answer that cannot be read is refused and does not use the challenge up.

    Raises:
        ChallengeError: it was answered already, has expired, was drawn by another person, or the
            answer is malformed, too large, or to another challenge.
    """
    if challenge.drawn_by_id != by.pk:
        raise ChallengeError("This challenge was drawn by somebody else; draw your own.", 404)
    _check_open(challenge, at)
    try:
        files.read_answer(data, content(challenge))
    except FileError as error:
        too_large = len(data) > files.MAX_ANSWER_BYTES
        raise ChallengeError(str(error), 413 if too_large else 422) from error
    check = Verification.objects.create(
        id=uuid.uuid4(),
        asked_by=by,
        checkpoint=challenge.checkpoint,
        source=Verification.Source.CHALLENGE,
        what=[str(challenge.pk)],
        created_at=at,
        woken_at=at,
    )
    taken = (
        Challenge.objects.open(at)
        .filter(pk=challenge.pk)
        .update(answered_at=at, answer=data.decode(), verification=check)
    )
    if not taken:
        challenge.refresh_from_db()
        _check_open(challenge, at)
        raise ChallengeError("This challenge cannot be answered now; draw another.")
    record(
        "challenge.answered",
        subject=challenge.subject,
        actor=by.actor,
        at=at,
        checkpoint=challenge.checkpoint.name,
        verification=str(check.pk),
        answer_sha256=hashlib.sha256(data).hexdigest(),
    )
    transaction.on_commit(lambda: wake(check.pk))
    return check


def _check_open(challenge: Challenge, at: datetime) -> None:
    if challenge.answered_at:
        raise ChallengeError(
            f"This challenge was answered at {challenge.answered_at:%H:%M} UTC, and each is "
            "answered once; draw another."
        )
    if not challenge.is_open(at):
        raise ChallengeError("This challenge has expired; draw another and run it at once.", 410)
