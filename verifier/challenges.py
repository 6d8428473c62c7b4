"""Challenges: questions drawn for one check, which no prepared copy can know; and their answers.

    {"schema": "weighbridge.challenge/1", "id", "checkpoint", "seed": 64 hex digits,
     "positions", "expires": "2025-01-31T12:00:00+00:00"}

    {"schema": "weighbridge.answer/1", "challenge": id, "positions", "layers", "width", "vocab",
     "logsumexp", "ids", "logits", "sketch", "activations",    base64, little-endian, 4 bytes each
     "probes": {"names": […], "signatures"}, "device", "bytes_read", "seconds"}

The seed gives token ids, signs and probe vectors, by SHAKE-256 as in a reference. Here is only what
can be said without arithmetic on tensors: sizes, bounds, numbers that are none, who answers whom.
"""

import base64
import math
import re
import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import strict_json
from .errors import ChallengeError, ManifestError
from .names import shown

CHALLENGE, ANSWER = "weighbridge.challenge/1", "weighbridge.answer/1"
MAX_CHALLENGE_BYTES = 4096
MAX_ANSWER_BYTES = 2 << 20
SEED_BYTES = 32
POSITIONS = range(4, 129, 4)
LEADING, SKETCH, LAYER_SKETCH, PROBES, GROUP = 64, 16, 4, 4, 4
MAX_LAYERS, MAX_WIDTH, MAX_VOCAB = 1000, 1 << 16, 1 << 20
MAX_TENSORS, MAX_NAME = 20_000, 256


@dataclass(frozen=True, slots=True)
class Challenge:
    """The questions of one check. ``seed`` is hexadecimal; after ``expires_at`` none answers."""

    id: str
    checkpoint: str
    seed: str
    positions: int
    expires_at: datetime

    @property
    def label(self) -> str:
        """The seed as SHAKE-256 takes it; no published reference begins so."""
        return f"challenge {self.seed}"

    def content(self) -> dict[str, Any]:
        """Return what the challenge's file says."""
        return {
            "schema": CHALLENGE,
            "id": self.id,
            "checkpoint": self.checkpoint,
            "seed": self.seed,
            "positions": self.positions,
            "expires": self.expires_at.isoformat(timespec="seconds"),
        }


def read_challenge(data: bytes) -> Challenge:
    """Read a challenge's file.

    Raises:
        ChallengeError: it is none, or one of another version.
    """
    content = _object(data, "The challenge", MAX_CHALLENGE_BYTES, CHALLENGE)
    try:
        expires = datetime.fromisoformat(content["expires"])
        challenge = Challenge(
            id=str(uuid.UUID(content["id"])),
            checkpoint=_short(content["checkpoint"]),
            seed=content["seed"],
            positions=content["positions"],
            expires_at=expires,
        )
        fits = type(challenge.positions) is int and challenge.positions in POSITIONS
        if not fits or not re.fullmatch(r"[0-9a-f]{64}", challenge.seed) or not expires.tzinfo:
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ChallengeError(
            "The challenge is damaged; get its file from the portal again."
        ) from None
    return challenge


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose sizes fit each other and whose numbers are finite; else nothing is known.

    ``arrays`` by name, each as its bytes: ``logsumexp`` [T], ``ids`` and ``logits`` [T, k],
    ``sketch`` [T, 16], ``activations`` [L + 1, T / 4, 5], ``signatures`` [names, 4].
    """

    challenge: str
    positions: int
    layers: int
    width: int
    vocab: int
    arrays: Mapping[str, bytes]
    names: tuple[str, ...]

    @property
    def leading(self) -> int:
        """How many ids per position are answered, k."""
        return min(LEADING, self.vocab)


def read_answer(data: bytes, challenge: Challenge) -> Answer:
    """Read an answer to ``challenge``: its own file, or a report made with ``--challenge``.

    Raises:
        ChallengeError: it is none, it answers another challenge, or a number in it is none.
    """
    content = _object(data, "The answer", MAX_ANSWER_BYTES, ANSWER, "weighbridge.report/1")
    if content["schema"] != ANSWER:
        held = content.get("challenge")
        if not isinstance(held, dict) or held.get("schema") != ANSWER:
            raise ChallengeError("This report holds no answer; verify with --challenge FILE.")
        content = held
    if content.get("challenge") != challenge.id:
        raise ChallengeError(
            f"This answers another challenge, {shown(str(content.get('challenge'))[:40])}; "
            f"run the command with the file of {challenge.id}."
        )
    try:
        answer = _answer(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        field = str(error.args[0])[:40] if isinstance(error, _FieldError) else "a field"
        raise ChallengeError(
            f"The answer is malformed in {field}; send what the command printed, unchanged."
        ) from None
    if answer.positions != challenge.positions:
        raise ChallengeError(
            f"The answer is to {answer.positions} positions; {challenge.positions} were asked."
        )
    return answer


class _FieldError(ValueError):
    """A field of an answer is not what it should be; its only argument is the field's name."""


def _answer(content: Mapping[str, Any]) -> Answer:
    positions = _count(content, "positions", POSITIONS[-1])
    layers = _count(content, "layers", MAX_LAYERS)
    vocab = _count(content, "vocab", MAX_VOCAB)
    probes = content.get("probes")
    if not isinstance(probes, Mapping) or not isinstance(probes.get("names"), list):
        raise _FieldError("probes")
    names = tuple(probes["names"])
    if len(names) > MAX_TENSORS or len({_short(name) for name in names}) != len(names):
        raise _FieldError("probes.names")
    leading = min(LEADING, vocab)
    groups = positions // GROUP
    counts = {
        "logsumexp": positions,
        "ids": positions * leading,
        "logits": positions * leading,
        "sketch": positions * SKETCH,
        "activations": (layers + 1) * groups * (LAYER_SKETCH + 1),
    }
    arrays = {name: _array(content.get(name), name, count) for name, count in counts.items()}
    arrays["signatures"] = _array(probes.get("signatures"), "signatures", len(names) * PROBES)
    _check_ids(arrays["ids"], leading, vocab)
    return Answer(
        challenge=content["challenge"],
        positions=positions,
        layers=layers,
        width=_count(content, "width", MAX_WIDTH),
        vocab=vocab,
        arrays=arrays,
        names=names,
    )


def _array(text: object, name: str, count: int) -> bytes:
    """Return the bytes of ``count`` numbers, each of them finite."""
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except ValueError:
        raise _FieldError(name) from None
    if len(data) != 4 * count:
        raise _FieldError(name)
    if name != "ids" and not all(map(math.isfinite, struct.unpack(f"<{count}f", data))):
        raise _FieldError(f"{name}, which holds NaN or Infinity")
    return data


def _check_ids(data: bytes, leading: int, vocab: int) -> None:
    for row in struct.iter_unpack(f"<{leading}i", data):
        if len(set(row)) != leading or not 0 <= min(row) <= max(row) < vocab:
            raise _FieldError("ids")


def _count(content: Mapping[str, Any], name: str, most: int) -> int:
    value = content.get(name)
    if type(value) is not int or not 1 <= value <= most:
        raise _FieldError(name)
    return value


def _short(text: object) -> str:
    if not isinstance(text, str) or not 0 < len(text) <= MAX_NAME:
        raise ValueError("text")
    return text


def _object(data: bytes, what: str, most: int, *schemas: str) -> dict[str, Any]:
    if len(data) > most:
        raise ChallengeError(f"{what} has {len(data):,} bytes, and no more than {most:,} can be.")
    try:
        content = strict_json.loads(data, what, max_bytes=most)
    except ManifestError as error:
        raise ChallengeError(str(error)) from None
    if not isinstance(content, dict) or content.get("schema") not in schemas:
        raise ChallengeError(
            f"{what} is not of schema {schemas[0]}; look whether it is the right file."
        )
    return content
