"""`python -m inference_check`: make the reference of a checkpoint, check a copy against one, or
answer a challenge.

Exit status: 0 the copy agrees, is close, has answered, or nothing can be said; 1 it disagrees; 2
usage; 3 it was not run, or no reference can be made. `--help` does not import torch.
"""

import argparse
import json
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .check import Check, Options

DISAGREES, USAGE, NOT_RUN = 1, 2, 3
STATUS = {"agrees": 0, "close": 0, "inconclusive": 0, "disagrees": DISAGREES, "not-run": NOT_RUN}
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS_BETWEEN = 0.25


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = argparse.ArgumentParser(
        prog="python -m inference_check",
        description="Run a copy of a checkpoint on fixed token ids and compare its answers.",
        epilog="Only digests say authentic: this says whether a copy computes alike.",
    )
    result.add_argument("path", type=Path, metavar="PATH", help="the checkpoint's folder")
    task = result.add_mutually_exclusive_group()
    task.add_argument("--reference", type=Path, metavar="FILE", help="published reference.json")
    task.add_argument(
        "--make-reference", type=Path, metavar="FILE", help="write the reference of PATH to FILE"
    )
    result.add_argument(
        "--challenge",
        type=Path,
        metavar="FILE",
        help="answer the portal's challenge on standard output (with --make-reference: make the "
        "official answer; with --judge: judge one)",
    )
    result.add_argument(
        "--judge", action="store_true", help="PATH is an answer: compare it with --reference"
    )
    result.add_argument(
        "--errors-from",
        type=Path,
        metavar="FILE",
        help="reference.json whose measured errors of fp32 serve a new one",
    )
    result.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    result.add_argument(
        "--positions", type=_positions, metavar="N", help="token ids (default 32; 64 to make)"
    )
    result.add_argument(
        "--memory",
        type=_size,
        metavar="SIZE",
        default=350 << 20,
        help="peak memory of the process (default 350MiB)",
    )
    result.add_argument(
        "--digest",
        choices=("blake3", "sha256", "none"),
        help="hash every leaf on the way (default: blake3 if it is installed)",
    )
    result.add_argument(
        "--leaves-out", type=Path, metavar="FILE", help="write the digests of the leaves to FILE"
    )
    result.add_argument(
        "--config-from",
        metavar="DIR",
        default="none",
        help="folder whose config serves if PATH has none",
    )
    result.add_argument("--rung", metavar="RUNG", help="what the weights are: cast:bf16-rne, …")
    result.add_argument("--seed", metavar="TEXT", help="draws the token ids of a new reference")
    result.add_argument("--json", action="store_true", help="print the outcome as JSON")
    result.add_argument(
        "--progress-json", action="store_true", help="print progress as JSON lines on stderr"
    )
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    line = parser()
    given = line.parse_args(arguments)
    if not (given.reference or given.make_reference or given.challenge):
        line.error("say --reference, --make-reference or --challenge")
    if given.judge and not (given.reference and given.challenge):
        line.error("--judge needs --challenge and --reference")
    if given.challenge and given.reference and not given.judge:
        line.error("--challenge asks what --reference does not; leave one out")
    # A dump of this process would hold weights.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    try:
        given.path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not a path"
        return _fail(f"{str(given.path)!a} cannot be opened: {reason}.", USAGE)
    try:
        import torch  # noqa: F401 (its absence is told in one sentence)
    except ModuleNotFoundError:
        return _fail("torch is not installed; pip install torch.", NOT_RUN)
    except (ImportError, OSError, MemoryError, SystemError) as error:  # no room to map it
        return _fail(f"torch cannot be loaded: {_first_line(error)}.", NOT_RUN)
    from verifier.errors import ChallengeError

    try:
        if given.make_reference:
            return _make(given)
        if given.challenge:
            return _judge(given) if given.judge else _answer(given)
    except ChallengeError as error:
        return _fail(str(error), USAGE)
    return _check(given)


def _answer(given: argparse.Namespace) -> int:
    """Print the copy's answer to a challenge."""
    from verifier.errors import ReadError

    from .challenge import answer, load_challenge
    from .errors import InferenceError, WrongModel

    challenge = load_challenge(given.challenge)
    try:
        content = answer(given.path, challenge, _options(given), _reporter(given.progress_json))
    except WrongModel as error:
        return _fail(f"There is no answer: {error}.", DISAGREES)
    except (InferenceError, ReadError) as error:
        return _fail(f"There is no answer: {error}.", NOT_RUN)
    except (MemoryError, RuntimeError) as error:  # torch: failed allocations, faults of CUDA
        return _fail(f"There is no answer: {_first_line(error)}.", NOT_RUN)
    print(json.dumps(content, allow_nan=False))
    return 0


def _judge(given: argparse.Namespace) -> int:
    """Compare an answer with the official one, and say what follows."""
    from .challenge import judge, load_challenge
    from .errors import NotRun
    from .reference import load_reference

    challenge = load_challenge(given.challenge)
    try:
        outcome = judge(given.path, challenge, load_reference(given.reference), given.rung)
    except NotRun as error:
        return _fail(f"{error}.", NOT_RUN)
    return _tell(given, outcome)


def _make(given: argparse.Namespace) -> int:
    from verifier.errors import ReadError

    from .challenge import load_challenge
    from .copies import open_copy
    from .errors import InferenceError
    from .reference import DEFAULT_SEED, as_text, load_reference, make_reference

    seed = DEFAULT_SEED if given.seed is None else given.seed
    positions = given.positions or 64
    if given.challenge:
        challenge = load_challenge(given.challenge)
        seed, positions = challenge.label, challenge.positions
    if len(seed) > 256:
        return _fail("--seed is longer than 256 characters.", USAGE)
    try:
        known = load_reference(given.errors_from) if given.errors_from else None
        copy = open_copy(given.path)
        content = make_reference(copy, positions, seed, _reporter(given.progress_json), known)
    except (InferenceError, ReadError) as error:
        return _fail(f"No reference can be made: {error}.", NOT_RUN)
    except (MemoryError, RuntimeError) as error:  # torch: failed allocations
        return _fail(f"No reference can be made: {_first_line(error)}.", NOT_RUN)
    try:
        given.make_reference.write_text(as_text(content), encoding="utf-8")
    except OSError as error:
        return _fail(f"{given.make_reference} cannot be written: {error.strerror}.", USAGE)
    return 0


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or ["there is not enough memory"])[0][:200].rstrip(".")


def _options(given: argparse.Namespace) -> "Options":
    from .check import Options

    return Options(
        device=given.device,
        positions=given.positions or 32,
        memory=given.memory,
        stand_in=None if given.config_from == "none" else Path(given.config_from),
        rung=given.rung,
        digest=_digest(given.digest),
        leaves_out=given.leaves_out,
    )


def _check(given: argparse.Namespace) -> int:
    from .check import check

    report = _reporter(given.progress_json)
    return _tell(given, check(given.path, given.reference, _options(given), report))


def _tell(given: argparse.Namespace, outcome: "Check") -> int:
    """Print an outcome; return the exit status that it means."""
    sentence = f"{given.path.name!a}: {outcome.status}"
    sentence += f": {outcome.reason}." if outcome.reason else "."
    if given.json:
        print(json.dumps(asdict(outcome), allow_nan=False))
    else:
        print(outcome.status)
        for name, value in outcome.statistics.items():
            limit = outcome.thresholds.get(name)
            shown = "not a number" if value is None else f"{value:.2e}"
            print(f"  {name:<10} {shown}" + (f"   allowed {limit:.1e}" if limit else ""))
    status = STATUS[outcome.status]
    return _fail(sentence, status) if status else 0


def _reporter(as_json: bool) -> Callable[[int, int], None]:
    """Return a function that is told of bytes and prints at most four lines a second."""
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if as_json and (now - last >= _SECONDS_BETWEEN or done == total):
            last = now
            line = json.dumps({"stage": "inference", "done": done, "total": total})
            print(line, file=sys.stderr, flush=True)

    return report


def _fail(sentence: str, status: int) -> int:
    print(sentence, file=sys.stderr)
    return status


def _digest(asked: str | None) -> str | None:
    from verifier.digests import blake3_available

    if asked is None:
        return "blake3" if blake3_available() else "sha256"
    if asked == "blake3" and not blake3_available():
        return "sha256"
    return None if asked == "none" else asked


def _positions(text: str) -> int:
    if not re.fullmatch(r"\d{1,3}", text) or not 4 <= int(text) <= 128 or int(text) % 4:
        raise argparse.ArgumentTypeError("a multiple of 4 from 4 to 128")
    return int(text)


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d{1,12})\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if not found:
        raise argparse.ArgumentTypeError("a size like 350MiB")
    return int(found.group(1)) * _UNITS[found.group(2)]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
