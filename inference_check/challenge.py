"""Answer a challenge with a copy, make the official answer, and judge one by the other.

The holder does not know which ids the official weights like best, so an answer brings its own. An id
that only one side has is as far off as it must at least be: beyond the least that the other listed.
"""

import base64
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verifier import challenges
from verifier.challenges import Answer, Challenge
from verifier.errors import ChallengeError

from . import compare
from .answers import LAYER_SKETCH, SKETCH, Answers
from .check import Check, Options, fill_in
from .copies import open_copy
from .errors import NotRun, WrongModel
from .probes import PROBES, in_model_order
from .reference import Reference
from .run import Questions, Report, choose_device, run
from .signs import token_ids


def load_challenge(path: Path) -> Challenge:
    """Read the challenge in a file.

    Raises:
        ChallengeError: it cannot be read, or is none.
    """
    return challenges.read_challenge(_read(path, challenges.MAX_CHALLENGE_BYTES))


def answer(path: Path, challenge: Challenge, options: Options, report: Report) -> dict[str, Any]:
    """Run the copy in ``path`` on the questions; return the content of the answer's file.

    Raises:
        ChallengeError: its time is over.
        InferenceError: the copy cannot be run, or gives NaN or Infinity.
        ReadError: a file cannot be read.
    """
    if datetime.now(UTC) >= challenge.expires_at:
        raise ChallengeError("The challenge has expired; get another one from the portal.")
    device = choose_device(options.device)
    copy = open_copy(path, options.stand_in)
    config, vocab = copy.config, copy.config.vocab or 0
    started = datetime.now(UTC)
    tokens = tuple(token_ids(challenge.label, challenge.positions, vocab))
    asked = Questions(challenge.label, tokens)
    found = run(copy, asked, device=device, memory=options.memory, report=report)
    assert found.answers is not None
    names = sorted(found.signatures, key=in_model_order)
    return {
        "schema": challenges.ANSWER,
        "challenge": challenge.id,
        "positions": challenge.positions,
        "layers": config.layers,
        "width": config.width,
        "vocab": vocab,
        "logsumexp": _pack(found.answers.logsumexp),
        "ids": _pack(found.answers.ids),
        "logits": _pack(found.answers.logits),
        "sketch": _pack(found.answers.sketch),
        "activations": _pack(found.answers.layers),
        "probes": {
            "names": names,
            "signatures": _pack(torch.stack([found.signatures[name] for name in names])),
        },
        "device": str(device),
        "bytes_read": found.bytes_read,
        "seconds": round((datetime.now(UTC) - started).total_seconds(), 3),
    }


def judge(file: Path, challenge: Challenge, official: Reference, rung: str | None = None) -> Check:
    """Compare the answer in ``file`` with the official one, by the thresholds of a check.

    Raises:
        ChallengeError: the file is no answer to ``challenge``.
        NotRun: ``official`` does not answer ``challenge`` either.
    """
    given = challenges.read_answer(_read(file, challenges.MAX_ANSWER_BYTES), challenge)
    if official.seed != challenge.label or len(official.tokens) != challenge.positions:
        raise NotRun("the official answer is to another challenge")
    outcome = Check(positions=challenge.positions, dtype="float32")
    outcome.prompts = {"challenge": challenge.id, "tokens": list(official.tokens)}
    try:
        found, signatures = _understand(given, official)
    except WrongModel as error:
        outcome.status, outcome.reason = "disagrees", str(error)
        return outcome
    apart = replace(
        _distances(official.answers, found),
        signatures=compare.signature_distances(official.signatures, signatures),
    )
    fill_in(outcome, official, apart, rung)
    return outcome


def _distances(official: Answers, found: Answers) -> compare.Distances:
    """Return how far two answers are apart that may list other ids."""
    theirs = found.ids[:, None, :] == official.ids[:, :, None]  # [T, k official, k given]
    given = (theirs * found.logits[:, None, :]).sum(2)
    least = found.logits.amin(1, keepdim=True)
    at_ids = torch.where(theirs.any(2), given, torch.minimum(official.logits, least))
    alike = compare.distances(official, replace(found, ids=official.ids, logits=at_ids))
    # Likewise for the ids that only the answer lists.
    others = found.logits - official.logits.amin(1, keepdim=True)
    beyond = torch.where(theirs.any(1), torch.zeros_like(others), others.clamp(min=0)).amax(1)
    beyond = beyond / official.std
    return replace(
        alike,
        worst=alike.worst | {"logits": max(alike.worst["logits"], float(beyond.max()))},
        positions=tuple(map(max, alike.positions, beyond.tolist())),
    )


def _understand(given: Answer, official: Reference) -> tuple[Answers, dict[str, Tensor]]:
    """Return the answer as tensors.

    Raises:
        WrongModel: it is of a model of other sizes.
    """
    for what, own, published in (
        ("layers", given.layers, official.layers),
        ("channels", given.width, official.width),
        ("tokens in its vocabulary", given.vocab, official.vocab),
    ):
        if own != published:
            raise WrongModel(f"it has {own} {what}, and the published model has {published}")
    seq, groups, leading = given.positions, given.positions // challenges.GROUP, given.leading
    ids = _unpack(given, "ids", seq, leading).long()
    logsumexp = _unpack(given, "logsumexp", seq)
    answers = Answers(
        vocab=given.vocab,
        logsumexp=logsumexp,
        std=torch.zeros_like(logsumexp),  # distances are in the official spread
        ids=ids,
        logits=(logits := _unpack(given, "logits", seq, leading)),
        best=ids.gather(1, logits.argmax(1, keepdim=True))[:, 0],
        sketch=_unpack(given, "sketch", seq, SKETCH),
        layers=_unpack(given, "activations", given.layers + 1, groups, LAYER_SKETCH + 1),
    )
    signatures = _unpack(given, "signatures", len(given.names), PROBES)
    return answers, dict(zip(given.names, signatures, strict=True))


def _pack(values: Tensor) -> str:
    kind = "<f4" if values.dtype.is_floating_point else "<i4"
    return base64.b64encode(values.numpy().astype(kind).tobytes()).decode()


def _unpack(given: Answer, name: str, *shape: int) -> Tensor:
    kind = "<i4" if name == "ids" else "<f4"
    values = np.frombuffer(given.arrays[name], kind).reshape(shape)
    return torch.from_numpy(values.astype("i8" if name == "ids" else "f8"))


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise ChallengeError(f"{path.name!a} cannot be read: {error.strerror}.") from None
