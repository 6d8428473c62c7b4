"""Judge the answer to a challenge: make the official answer, unless it is cached, and compare."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from portal.catalog.manifests import manifest_of
from portal.catalog.models import Checkpoint
from portal.storage.folder import FolderStore
from portal.storage.stores import store
from portal.verification.challenges import content
from portal.verification.models import Challenge

SCHEMA = "weighbridge.challenge-report/1"
PIECE = 4 << 20
MOST_SAID = 1 << 60
MEANINGS = {
    "agrees": "the machine that answered can run these weights: it computes the official answers",
    "disagrees": "the answers are not those of the official weights",
    "inconclusive": "the answers fit, but this model is too ill-conditioned to say more",
    "not-run": "nothing could be compared",
}
Command = Callable[[list[str], int], tuple[int, bytes, str]]
"""Runs a command on so many bytes of weights; returns its status, its output, its last sentence."""


class JudgeError(Exception):
    """The answer cannot be judged now; the message says why. It is never the holder's fault."""


def judge(challenge: Challenge, scratch: Path, run: Command) -> dict[str, Any]:
    """Return the report on the answer to ``challenge``; ``scratch`` is a folder of its own.

    Raises:
        JudgeError: the official answer cannot be made, or the two cannot be compared.
    """
    asked, official, given = (scratch / f"{n}.json" for n in ("challenge", "official", "answer"))
    asked.write_text(json.dumps(content(challenge).content()), encoding="utf-8")
    given.write_text(challenge.answer, encoding="utf-8")
    if not challenge.official:
        make_official(challenge, asked, official, scratch / "weights", run)
    official.write_text(challenge.official, encoding="utf-8")
    command = [*_program(), str(given), "--judge", "--challenge", str(asked)]
    status, output, sentence = run([*command, "--reference", str(official), "--json"], 0)
    try:
        inference = json.loads(output)
        verdict = str(inference["status"])
    except (ValueError, KeyError, TypeError, RecursionError):
        why = sentence or f"its process ended with status {status}"
        raise JudgeError(f"The answer could not be compared: {why}") from None
    return {
        "schema": SCHEMA,
        "checkpoint": challenge.checkpoint.name,
        "challenge": str(challenge.pk),
        "verdict": verdict,
        "meaning": MEANINGS.get(verdict, "nothing is known of such an answer"),
        "path": "the holder's machine",
        "inference": inference | {"device": _said(challenge.answer, "device")},
        "bytes_read": _said(challenge.answer, "bytes_read"),
        "seconds": _said(challenge.answer, "seconds"),
    }


def make_official(
    challenge: Challenge, asked: Path, made: Path, folder: Path, run: Command
) -> None:
    """Have the official weights answer, in one pass over them, and keep what they say.

    Raises:
        JudgeError: they cannot be run.
    """
    checkpoint = challenge.checkpoint
    try:
        lay_out(checkpoint, folder)
        command = [*_program(), str(folder), "--make-reference", str(made)]
        command += ["--challenge", str(asked), "--progress-json"]
        published = manifest_of(checkpoint) / ".weighbridge" / "reference.json"
        command += ["--errors-from", str(published)] if published.is_file() else []
        status, _, sentence = run(command, checkpoint.size)
        if status != 0 or not made.is_file():
            raise JudgeError(f"The official answer could not be made: {sentence or status}")
        challenge.official = made.read_text(encoding="utf-8")
        Challenge.objects.filter(pk=challenge.pk, official="").update(official=challenge.official)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def lay_out(checkpoint: Checkpoint, folder: Path) -> None:
    """Put the files of ``checkpoint`` into ``folder``: as hard links where the store allows them.

    Raises:
        JudgeError: there is not enough room for copies.
        StoreError: the store cannot be read.
    """
    shards, kept = checkpoint.shards.weights().current(), store()
    folder.mkdir(mode=0o700, parents=True)
    for shard in shards:
        target = folder / shard.path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if isinstance(kept, FolderStore):
            try:
                os.link(kept.local_path(shard.store_key), target)
                continue
            except OSError:  # another file system, or one without hard links
                pass
        if shutil.disk_usage(folder).free < 2 * shard.size:
            raise JudgeError(f"The worker has no room for {shard.path} of the official weights.")
        with kept.open(shard.store_key) as source, target.open("xb") as copy:
            shutil.copyfileobj(source, copy, PIECE)


def _program() -> list[str]:
    return [sys.executable, "-m", "inference_check"]


def _said(answer: str, field: str) -> Any:
    """Return what the holder's machine said of itself; nothing is concluded from it."""
    content = json.loads(answer)
    if isinstance(content.get("challenge"), dict):  # a whole report
        content = content["challenge"]
    value = content.get(field)
    if isinstance(value, str):
        return value[:40]
    fits = isinstance(value, (int, float)) and 0 <= value <= MOST_SAID
    return value if fits else None
