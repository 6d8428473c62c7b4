"""Run one check: fetch what is to be fetched, then `python -m verifier` as a process of its own."""

import contextlib
import json
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db import DatabaseError, connections
from django.utils.timezone import now

from portal.catalog.keyring import KeyringError
from portal.catalog.manifests import identify_arguments, manifest_of, sketch_of, trusted_root
from portal.catalog.models import Checkpoint
from portal.storage.stores import StoreError
from portal.verification import claims, judging
from portal.verification.asking import bytes_left, file_name
from portal.verification.copies import (
    files_of,
    folder_of_owner,
    remove,
    remove_what_others_left,
)
from portal.verification.fetching import FetchError, fetch
from portal.verification.guard import ENDED
from portal.verification.models import Challenge, Verification

logger = logging.getLogger(__name__)

REPORT_LIMIT = 32 << 20
LINE_LIMIT = 64 << 10
GUARD = Path(__file__).with_name("guard.py")
SLOWEST = 50_000_000  # bytes a second, below which a check is stuck
SHORTEST = 600  # seconds
SIZES = ("bytes_done", "bytes_total")
LOST = "the check was taken over by another worker"


class CheckError(Exception):
    """The check cannot be run; the message is shown to who asked."""


@dataclass
class Run:
    """A check in the hands of this worker."""

    check: Verification
    owner: uuid.UUID
    progress: dict[str, Any] = field(default_factory=dict)
    isolation: dict[str, str] = field(default_factory=dict)
    lost: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    child: subprocess.Popen[bytes] | None = None

    def keep_alive(self) -> None:
        """Renew the lease until the run is over; end the child when the check is lost."""
        shown: dict[str, Any] = {}
        renewed = time.monotonic()
        lease = settings.CHECK_LEASE_SECONDS
        try:
            while not self.over.wait(min(1, lease / 4)):
                progress, silent = dict(self.progress), time.monotonic() - renewed
                if progress == shown and silent < lease / 4:
                    continue
                try:
                    mine = claims.beat(self.check.pk, self.owner, at=now(), progress=progress)
                except DatabaseError:  # busy or away for a while: the lease may outlast it
                    connections.close_all()
                    if silent < lease:
                        continue
                    mine = False
                if not mine:
                    self.lost.set()
                    self.end_child()
                    return
                shown, renewed = progress, time.monotonic()
        finally:
            connections.close_all()

    def end_child(self) -> None:
        """End the verifier and all that it started: its guard does, when this pipe closes."""
        if self.child is not None and self.child.stdin is not None:
            self.child.stdin.close()


def run_check(check_id: uuid.UUID) -> None:
    """Run the check with this id, if it is to be had, and write its result down."""
    owner = claims.claim(check_id, at=now())
    if owner is None:
        return
    check = Verification.objects.select_related("checkpoint__family", "asked_by").get(pk=check_id)
    run = Run(check, owner)
    remove_what_others_left(check, owner)
    heart = threading.Thread(target=run.keep_alive, daemon=True)
    heart.start()
    result: dict[str, Any]
    try:
        result = _verify(run)
    except (CheckError, FetchError, StoreError, judging.JudgeError) as error:
        result = {"status": Verification.Status.FAILED, "sentence": str(error)}
    except OSError as error:
        result = {
            "status": Verification.Status.FAILED,
            "sentence": f"The worker could not read or keep the files: {error.strerror}.",
        }
    finally:
        run.over.set()
        heart.join()
    result |= {key: run.progress[key] for key in SIZES if key in run.progress}
    if check.source == Verification.Source.URLS:
        # a query may be a signature that opens a door; it has served its purpose
        result["what"] = [url.partition("?")[0] for url in check.what]
    if not run.lost.is_set() and claims.finish(check_id, owner, at=now(), **result):
        remove(check_id)
    else:
        shutil.rmtree(folder_of_owner(check, owner), ignore_errors=True)


def _verify(run: Run) -> dict[str, Any]:
    """Return the fields of the row that say what came of it."""
    if run.check.source == Verification.Source.CHALLENGE:
        return _judge(run)
    folder = files_of(run.check, run.owner)
    if run.check.source == Verification.Source.URLS:
        _fetch_all(run, folder)
    if not folder.is_dir():
        raise CheckError("The files of this copy are gone; ask again.")
    scratch = _scratch(run)
    verifier = [sys.executable, "-m", "verifier", *_arguments(run.check, folder)]
    status, output, sentence = _child(run, verifier, _size_of(folder), scratch)
    for place, name in ((str(folder), _name_of(run.check)), (f"{settings.DATA}/", "")):
        sentence = sentence.replace(place, name)
    if run.lost.is_set():
        raise CheckError(LOST)
    if status not in (0, 1):
        why = sentence or f"The verifier ended with status {status}; ask the operators."
        return {"status": Verification.Status.FAILED, "exit_status": status, "sentence": why}
    try:
        report = json.loads(output.replace(b"\\u0000", b"\\ufffd"))  # which PostgreSQL refuses
        verdict = str(report["verdict"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if "MemoryError" in sentence:
            raise CheckError("The verifier ran out of memory; ask the operators.") from error
        raise CheckError(
            "The verifier gave no report, as where its memory does not suffice; ask the operators."
        ) from error
    report |= {"path": _name_of(run.check), "isolation": run.isolation}
    return {
        "status": Verification.Status.DONE,
        "exit_status": status,
        "verdict": verdict,
        "sentence": str(report.get("sentence") or sentence),
        "report": report,
    }


def _scratch(run: Run) -> Path:
    scratch = folder_of_owner(run.check, run.owner) / "scratch"
    scratch.mkdir(mode=0o700, parents=True)
    return scratch


def _judge(run: Run) -> dict[str, Any]:
    """Return the fields of the row that say what an answer to a challenge is worth."""
    challenge = Challenge.objects.select_related("checkpoint__family").get(
        verification=run.check.pk
    )
    scratch = _scratch(run)

    def command(words: list[str], size: int) -> tuple[int, bytes, str]:
        status, output, sentence = _child(run, words, size, scratch)
        if run.lost.is_set():
            raise CheckError(LOST)
        return status, output, sentence.replace(f"{scratch}/", "")

    report = judging.judge(challenge, scratch, command)
    report["isolation"] = run.isolation
    verdict, reason = report["verdict"], report["inference"].get("reason")
    return {
        "status": Verification.Status.DONE,
        "exit_status": 1 if verdict in ("disagrees", "not-run") else 0,
        "verdict": verdict,
        "sentence": f"{challenge.checkpoint}: {verdict}" + (f": {reason}." if reason else "."),
        "report": report,
    }


def _name_of(check: Verification) -> str:
    """Return what a report calls the copy; where it lies on this machine is not told."""
    return str(check.what[0]) if check.source == Verification.Source.FOLDER else "the copy"


def _fetch_all(run: Run, folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True)
    left = bytes_left(run.check.asked_by, now(), besides=run.check.pk)
    done = 0

    def count(piece: int) -> None:
        nonlocal done
        done += piece
        run.progress |= {"stage": "fetching", "bytes_done": done, "bytes_total": done}
        if run.lost.is_set():
            raise CheckError(LOST)

    for url in run.check.what:
        target = folder / file_name(urlsplit(url).path)
        left -= fetch(url, target, limit=left, progress=count)


def _arguments(check: Verification, folder: Path) -> list[str]:
    try:
        arguments = [str(folder), "--trusted-key", str(trusted_root(by="worker"))]
    except KeyringError as error:
        logger.error("%s", error)  # it names files of this machine, which are not told
        raise CheckError("The portal's keys cannot be used now; ask the operators.") from error
    if check.checkpoint:
        arguments += ["--manifest", str(manifest_of(check.checkpoint) / "model.sig")]
        sketch = sketch_of(check.checkpoint)
        arguments += ["--sketch", str(sketch)] if sketch else []
    else:
        question = identify_arguments(Checkpoint.objects.all())
        if not question:
            raise CheckError("Nothing is published here yet, so there is nothing to compare with.")
        arguments += question
    checks = "files,weights,inference"
    arguments += ["--checks", checks, "--device", settings.CHECK_DEVICE]
    return [*arguments, "--json", "--progress-json"]


def _size_of(folder: Path) -> int:
    """Return the bytes of the regular files below ``folder``, without following links."""
    size = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # the verifier says what cannot be read
                about = (Path(root) / name).lstat()
                size += about.st_size if stat.S_ISREG(about.st_mode) else 0
    return size


def _child(run: Run, command: list[str], size: int, scratch: Path) -> tuple[int, bytes, str]:
    """Run a command on ``size`` bytes; return its exit status, its output, its last sentence."""
    run.progress |= {"bytes_done": 0, "bytes_total": size}
    output = scratch / "report.json"
    environment = os.environ | {
        "WEIGHBRIDGE_DATA": str(settings.DATA),
        "TMPDIR": str(scratch),
        "HOME": str(scratch),
    }
    with output.open("wb") as report:
        run.child = subprocess.Popen(
            [sys.executable, "-I", str(GUARD), str(settings.CHECK_MEMORY), *command],
            cwd=settings.BASE_DIR,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=report,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    late = threading.Event()
    limit = max(SHORTEST, 60 + size / SLOWEST)

    def end_late() -> None:
        late.set()
        run.end_child()

    deadline = threading.Timer(limit, end_late)
    deadline.start()
    try:
        if run.lost.is_set():  # since before there was a child to end
            run.end_child()
        sentence = _follow(run)
    finally:
        deadline.cancel()
        run.end_child()
        status = run.child.wait()
        assert run.child.stderr is not None
        run.child.stderr.close()
    if late.is_set():
        raise CheckError(f"The verifier ran longer than the {limit:,.0f} seconds it may.")
    if status in (-signal.SIGKILL, ENDED) and not run.lost.is_set():
        raise CheckError("The verifier was killed, as it is when memory runs out.")
    if output.stat().st_size > REPORT_LIMIT:
        raise CheckError("The report is larger than a report can be.")
    # what counts as checked today is the copy, whatever the last stage's total was
    run.progress |= {"bytes_done": size, "bytes_total": size}
    return status, output.read_bytes(), sentence


def _follow(run: Run) -> str:
    """Read progress from the child's stderr to its end; return its last plain sentence."""
    assert run.child is not None and run.child.stderr is not None
    sentence = ""
    while line := run.child.stderr.readline(LINE_LIMIT):
        text = line.decode(errors="replace").strip()
        if text.startswith("{"):
            try:
                told = json.loads(text)
                if "isolation" in told:
                    run.isolation = {str(k): str(v)[:200] for k, v in told["isolation"].items()}
                    continue
                run.progress |= {
                    "stage": str(told["stage"])[:20],
                    "bytes_done": int(told["done"]),
                    "bytes_total": int(told["total"]),
                }
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        elif text:
            sentence = text[:2000]
    return sentence
