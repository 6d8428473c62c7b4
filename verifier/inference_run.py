"""Ask `python -m inference_check` whether a copy still thinks alike: a process of its own.

A crash, an endless loop or a lack of memory there ends that process, not this one; what it says is
read as bounded JSON and never believed to be more than an answer.
"""

import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .challenges import ANSWER
from .digests import DIGEST_BYTES, leaf_count
from .errors import ManifestError
from .progress import Progress
from .rungs import bound_of, close_reason
from .strict_json import loads

STATUSES = frozenset({"agrees", "close", "disagrees", "inconclusive", "not-run"})
MAX_ANSWER_BYTES = 16 << 20
MAX_LINE_BYTES = 4096
MAX_LEAVES_BYTES = 16 << 20
"""Names and identities of the files that were hashed, beside their digests."""
START_SECONDS = 120.0
SLOWEST_BYTES_PER_SECOND = 10e6
MAX_ADDRESS_SPACE = 64 << 30
"""Torch reserves far more than it uses; this only stops a runaway."""
DATA, DATA_PER_CORE = 2 << 30, 64 << 20
"""Bytes of private memory beside what the check plans: torch itself, and its threads' stacks."""
UNITS = "kmgt"


@dataclass(frozen=True, slots=True)
class InferenceOptions:
    """What is passed on to the check: device, peak memory (`350MiB`), number of positions."""

    device: str = "auto"
    memory: str = "350MiB"
    positions: int | None = None


def not_run(reason: str) -> dict[str, Any]:
    """Return the answer of a check that was not made."""
    return {"status": "not-run", "reason": reason, "device": None, "dtype": None, "statistics": {}}


def torch_available() -> bool:
    """Tell whether torch is installed, without importing it."""
    return importlib.util.find_spec("torch") is not None


def run(
    copy: Path,
    reference: bytes,
    configs: Mapping[str, bytes],
    size: int,
    options: InferenceOptions,
    progress: Progress,
    rung: str | None = None,
) -> dict[str, Any]:
    """Run the check on ``copy``, of ``size`` bytes of weights, against ``reference``.

    ``configs`` are the published ones, by name; they stand in where the copy has none. ``rung`` is
    what the weights were found to be, such as ``cast:bf16-rne``: it bounds what is close.
    """
    return _run(copy, reference, configs, size, options, progress, rung=rung)[0]


def run_hashing(
    copy: Path,
    reference: bytes,
    configs: Mapping[str, bytes],
    size: int,
    options: InferenceOptions,
    progress: Progress,
    kind: str,
) -> tuple[dict[str, Any], list[bytes]]:
    """Run the check as ``run`` does, and have it hash every leaf that it reads with ``kind``.

    Return the answer, and a line of JSON for each file that was hashed to its end.
    """
    return _run(copy, reference, configs, size, options, progress, kind=kind)


def answer_challenge(
    copy: Path, challenge: Path, size: int, options: InferenceOptions, progress: Progress
) -> dict[str, Any]:
    """Run ``copy``, of ``size`` bytes of weights, on a challenge of the portal's.

    Return the content of the answer's file, or why there is none as a check that was not run.
    """
    if not torch_available():
        return not_run("torch is not installed")
    command = [sys.executable, "-m", "inference_check", str(copy.resolve())]
    command += ["--challenge", str(challenge.resolve()), "--device", options.device]
    command += ["--memory", options.memory, "--progress-json"]
    seconds = START_SECONDS + size / SLOWEST_BYTES_PER_SECOND
    return _ask(command, seconds, options, progress)


def with_rung(answer: dict[str, Any], rung: str | None) -> dict[str, Any]:
    """Return an answer that was given before it was known what the weights are.

    Answers that disagree are close if they lie within the error of ``rung``.
    """
    statistics = answer.get("statistics")
    if answer["status"] != "disagrees" or rung is None or not isinstance(statistics, dict):
        return answer
    eps64 = answer.get("eps64")
    bound = bound_of(rung, eps64) if isinstance(eps64, float) else None
    for name in ("logits", "sketch", "logsumexp"):
        value = statistics.get(name)
        if bound is None or not isinstance(value, float) or not value <= bound:
            return answer
    return answer | {"status": "close", "reason": close_reason(rung, bound or 0.0)}


def _run(
    copy: Path,
    reference: bytes,
    configs: Mapping[str, bytes],
    size: int,
    options: InferenceOptions,
    progress: Progress,
    *,
    rung: str | None = None,
    kind: str | None = None,
) -> tuple[dict[str, Any], list[bytes]]:
    if not torch_available():
        return not_run("torch is not installed"), []
    if importlib.util.find_spec("inference_check") is None:
        return not_run("the inference check is not installed"), []
    with tempfile.TemporaryDirectory(prefix="weighbridge-") as folder:
        # The checked bytes, not the file they came from: that could have changed since.
        file = Path(folder) / "reference.json"
        file.write_bytes(reference)
        published = Path(folder) / "published"
        published.mkdir()
        for name, data in configs.items():
            (published / name).write_bytes(data)
        command = [sys.executable, "-m", "inference_check", str(copy), "--reference", str(file)]
        command += ["--device", options.device, "--memory", options.memory]
        command += ["--config-from", str(published) if configs else "none"]
        command += ["--digest", kind or "none"]
        if options.positions:
            command += ["--positions", str(options.positions)]
        if rung:
            command += ["--rung", rung]
        leaves = Path(folder) / "leaves"
        if kind:
            command += ["--leaves-out", str(leaves)]
        seconds = START_SECONDS + size / SLOWEST_BYTES_PER_SECOND
        answer = _ask([*command, "--json", "--progress-json"], seconds, options, progress)
        return answer, _read_lines(leaves, size) if kind else []


def _read_lines(file: Path, size: int) -> list[bytes]:
    """Return the lines that the check wrote about files of ``size`` bytes in all."""
    most = MAX_LEAVES_BYTES + 2 * DIGEST_BYTES * leaf_count(size)
    try:
        with file.open("rb") as stream:
            data = stream.read(most + 1)
    except OSError:
        return []  # it did not come to writing them
    return data.splitlines() if len(data) <= most else []


def _ask(
    command: Sequence[str], seconds: float, options: InferenceOptions, progress: Progress
) -> dict[str, Any]:
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": _python_path()}
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        preexec_fn=_limits(options),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said: list[str] = []
        listener = threading.Thread(target=_listen, args=(process.stderr, progress, said))
        timer = threading.Timer(seconds, _end, [process])
        listener.start()
        timer.start()
        try:
            answer = process.stdout.read(MAX_ANSWER_BYTES + 1)
            if len(answer) > MAX_ANSWER_BYTES:
                _end(process)
            status = process.wait()
        finally:
            timed_out = not timer.is_alive()
            timer.cancel()
            _end(process)
            listener.join()
    if timed_out:
        return not_run(f"it took longer than {seconds:,.0f} seconds")
    return _understand(answer, status, said)


def _understand(answer: bytes, status: int, said: Sequence[str]) -> dict[str, Any]:
    try:
        inference = loads(answer, "The answer of the inference check", max_bytes=MAX_ANSWER_BYTES)
    except ManifestError:
        inference = None
    if isinstance(inference, dict) and inference.get("schema") == ANSWER:
        return inference
    if isinstance(inference, dict) and inference.get("status") in STATUSES:
        inference.setdefault("reason", "")
        return inference
    if status in (-signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS):
        return not_run(
            f"its process died ({signal.Signals(-status).name}), as it does without memory"
        )
    return not_run(said[-1] if said else f"its process ended with status {status}")


def _listen(stream: IO[bytes], progress: Progress, said: list[str]) -> None:
    """Pass on lines of progress; keep the last of any other."""
    while line := stream.readline(MAX_LINE_BYTES):
        text = line.decode("utf-8", "replace").strip()
        try:
            step = json.loads(text)
            progress("inference", int(step["done"]), int(step["total"]))
        except (ValueError, TypeError, KeyError, RecursionError):
            if text:
                said[:] = [text]


def _limits(options: InferenceOptions) -> Callable[[], None]:
    """Return what bounds the child: data by what the check may take, addresses against a runaway.

    CUDA maps the memory of all devices at once, so that where it may be used nothing is bounded.
    """
    with_cuda = options.device != "cpu" and Path("/dev/nvidiactl").exists()
    data = DATA + DATA_PER_CORE * (os.cpu_count() or 1) + 2 * _bytes(options.memory)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        bounds = {resource.RLIMIT_AS: MAX_ADDRESS_SPACE, resource.RLIMIT_DATA: data}
        for kind, most in {} if with_cuda else bounds.items():
            hard = resource.getrlimit(kind)[1]
            most = most if hard == resource.RLIM_INFINITY else min(hard, most)
            resource.setrlimit(kind, (most, hard))

    return limit


def _bytes(size: str) -> int:
    """Read a size as the command line checked it, `350MiB`."""
    number = size.lower().removesuffix("b").removesuffix("i")
    unit = UNITS.find(number[-1:]) if number else -1
    digits = number[:-1] if unit >= 0 else number
    return int(digits) << 10 * (unit + 1) if digits.isdecimal() else MAX_ADDRESS_SPACE


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the check and whatever it started."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def _python_path() -> str:
    """Return a path on which the child finds the same packages as we do."""
    project = str(Path(__file__).resolve().parent.parent)
    return os.pathsep.join(filter(None, [project, os.environ.get("PYTHONPATH", "")]))
