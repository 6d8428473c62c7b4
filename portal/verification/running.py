"""Run one check: fetch what is to be fetched, then `python -m verifier` as a process of its own."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db import connections
from django.utils.timezone import now

from portal.catalog.manifests import manifest_of, release_key, sketch_of
from portal.catalog.models import Checkpoint
from portal.storage.stores import StoreError
from portal.verification import claims
from portal.verification.asking import copy_folder, file_name
from portal.verification.fetching import FetchError, fetch
from portal.verification.models import Verification

REPORT_LIMIT = 32 << 20
LINE_LIMIT = 64 << 10
ADDRESS_SPACE = 32 << 30  # torch reserves far more than it uses
SLOWEST = 50_000_000  # bytes a second, below which a check is stuck
SHORTEST = 600  # seconds
LOST = "the check was taken over by another worker"


class CheckError(Exception):
    """The check cannot be run; the message is shown to who asked."""


@dataclass
class Run:
    """A check in the hands of this worker."""

    check: Verification
    owner: uuid.UUID
    progress: dict[str, Any] = field(default_factory=dict)
    lost: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    child: subprocess.Popen[bytes] | None = None

    def keep_alive(self) -> None:
        """Renew the lease until the run is over; end the child when the check is lost."""
        shown: dict[str, Any] = {}
        renewed = time.monotonic()
        try:
            while not self.over.wait(1):
                progress = dict(self.progress)
                quiet = time.monotonic() - renewed < settings.CHECK_LEASE_SECONDS / 4
                if progress == shown and quiet:
                    continue
                if not claims.beat(self.check.pk, self.owner, at=now(), progress=progress):
                    self.lost.set()
                    self.end_child()
                    return
                shown, renewed = progress, time.monotonic()
        finally:
            connections.close_all()

    def end_child(self) -> None:
        """Kill the verifier and all that it started."""
        if self.child is not None and self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)


def run_check(check_id: uuid.UUID) -> None:
    """Run the check with this id, if it is to be had, and write its result down."""
    owner = claims.claim(check_id, at=now())
    if owner is None:
        return
    check = Verification.objects.select_related("checkpoint__family").get(pk=check_id)
    run = Run(check, owner)
    heart = threading.Thread(target=run.keep_alive, daemon=True)
    heart.start()
    result: dict[str, Any]
    try:
        result = _verify(run)
    except (CheckError, FetchError, StoreError) as error:
        result = {"status": Verification.Status.FAILED, "sentence": str(error)}
    except OSError as error:
        result = {
            "status": Verification.Status.FAILED,
            "sentence": f"The worker could not read or keep the files: {error.strerror}.",
        }
    finally:
        run.over.set()
        heart.join()
    if not run.lost.is_set():
        claims.finish(check_id, owner, at=now(), **result)
    if check.source != Verification.Source.FOLDER and not run.lost.is_set():
        shutil.rmtree(copy_folder(check), ignore_errors=True)


def _verify(run: Run) -> dict[str, Any]:
    """Return the fields of the row that say what came of it."""
    folder = copy_folder(run.check)
    if run.check.source == Verification.Source.URLS:
        _fetch_all(run, folder)
    if not folder.is_dir():
        raise CheckError("The files of this copy are gone; ask again.")
    with tempfile.TemporaryDirectory(prefix="weighbridge-check-") as scratch:
        status, output, sentence = _child(run, folder, Path(scratch))
    if run.lost.is_set():
        raise CheckError(LOST)
    if status not in (0, 1):
        why = sentence or f"the verifier ended with status {status}"
        return {"status": Verification.Status.FAILED, "exit_status": status, "sentence": why}
    try:
        report = json.loads(output)
        verdict = report["verdict"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckError("The verifier gave no report; ask the operators.") from error
    report["path"] = folder.name if run.check.source == Verification.Source.FOLDER else "the copy"
    return {
        "status": Verification.Status.DONE,
        "exit_status": status,
        "verdict": verdict,
        "sentence": report.get("sentence", sentence),
        "report": report,
    }


def _fetch_all(run: Run, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what an attempt that was killed left
    folder.mkdir(mode=0o700, parents=True)
    left = settings.CHECK_BYTES_PER_DAY
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
    checkpoints = [check.checkpoint] if check.checkpoint else Checkpoint.objects.all()
    manifests = [manifest_of(checkpoint) / "model.sig" for checkpoint in checkpoints]
    if not manifests:
        raise CheckError("Nothing is published here yet, so there is nothing to compare with.")
    arguments = [str(folder), "--trusted-key", str(release_key())]
    for manifest in manifests:
        arguments += ["--manifest", str(manifest)]
    sketch = sketch_of(check.checkpoint) if check.checkpoint else None
    if sketch:
        arguments += ["--sketch", str(sketch)]
    checks = "files,weights,inference"
    arguments += ["--checks", checks, "--device", settings.CHECK_DEVICE]
    return [*arguments, "--json", "--progress-json"]


def _limit() -> None:
    """Bound the child before it begins: no core file, no endless address space."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def _child(run: Run, folder: Path, scratch: Path) -> tuple[int, bytes, str]:
    """Return the verifier's exit status, its report and its last sentence."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    run.progress |= {"bytes_total": size}
    output = scratch / "report.json"
    environment = os.environ | {
        "WEIGHBRIDGE_DATA": str(settings.DATA),
        "TMPDIR": str(scratch),
        "HOME": str(scratch),
    }
    with output.open("wb") as report:
        run.child = subprocess.Popen(
            [sys.executable, "-m", "verifier", *_arguments(run.check, folder)],
            cwd=settings.BASE_DIR,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=report,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_limit,
        )
    deadline = threading.Timer(max(SHORTEST, 60 + size / SLOWEST), run.end_child)
    deadline.start()
    try:
        sentence = _follow(run)
        status = run.child.wait()
    finally:
        deadline.cancel()
        run.end_child()
    if status == -signal.SIGKILL and not run.lost.is_set():
        raise CheckError("The verifier was ended from outside, or ran longer than it may.")
    if output.stat().st_size > REPORT_LIMIT:
        raise CheckError("The report is larger than a report can be.")
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
                run.progress |= {
                    "stage": str(told["stage"])[:20],
                    "bytes_done": int(told["done"]),
                    "bytes_total": int(told["total"]),
                }
            except (ValueError, KeyError, TypeError):
                continue
        elif text:
            sentence = text[:2000]
    return sentence
