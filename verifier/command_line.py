"""The command line: `python -m verifier PATH`, `… describe DIR`, `… oms sign-model|verify-model`.

Exit status of a verification: 0 the verdict is accepted, 1 it is not, 2 there is nothing
trustworthy to compare with or nothing to look at. stderr carries one sentence. What takes time to
import is imported where it is used: `--help` must be there at once.
"""

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import InputError, VerifierError
from .names import shown

if TYPE_CHECKING:
    from .progress import Progress
    from .report import Report
    from .verify import Options

VERDICTS = (
    "identical",
    "incomplete",
    "same-weights",
    "cast",
    "quantized",
    "damaged",
    "derived",
    "unrelated",
    "undetermined",
)
"""What may be accepted; `untrusted` never is."""
CHECKS = ("files", "weights", "inference")
INTERRUPTED = 130
MAX_INDENTED = 1 << 20


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one sentence."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong on stderr, and exit with status 2."""
        print(f"{self.prog}: {message}; see {self.prog} --help.", file=sys.stderr)
        raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in ``arguments`` and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Read by OpenMP when torch is imported: threads that spin while they wait make a comparison
    # of many small tensors several times slower on a machine that does other work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command: Callable[[Sequence[str]], int] = _verify
    if given and given[0] in ("describe", "oms"):
        command = _describe if given.pop(0) == "describe" else _oms
    previous = signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return command(given)
    except VerifierError as error:
        return _say(str(error), 2)
    except KeyboardInterrupt:
        kept = "--resume" in given
        left = "the same command goes on from here" if kept else "nothing was left behind"
        return _say(f"Interrupted; {left}.", INTERRUPTED)
    except MemoryError:
        return _say("There is not enough memory for this check; allow the process more.", 2)
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads on; Python would complain while it ends
        return 1
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("verifier"):
            raise
        return _say(f"{error.name} is not installed here; pip install {error.name}.", 2)
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        return _say(f"{what}{error.strerror or error}.", 2)
    finally:
        signal.signal(signal.SIGTERM, previous)


def verify_parser(prog: str = "python -m verifier") -> argparse.ArgumentParser:
    """Return the parser of `verify`."""
    parser = Parser(prog=prog, description="Is this copy of a checkpoint what was signed?")
    parser.add_argument(
        "path",
        type=_path,
        nargs="?",
        metavar="PATH",
        help="a folder, a folder of checkpoints, or one file",
    )
    add = parser.add_argument
    judged = parser.add_mutually_exclusive_group()
    judged.add_argument(
        "--torrent",
        type=Path,
        metavar="FILE",
        help="judge this torrent instead of a copy, without downloading it",
    )
    judged.add_argument(
        "--magnet", metavar="URI", help="what a magnet link can tell; no tracker is asked"
    )
    add(
        "--manifest",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="signature bundle, its side files beside it (default: PATH/model.sig); "
        "given more than once: the best match",
    )
    add(
        "--trusted-key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="PEM public key of a publisher, its root.json, or a CA certificate (repeatable; default: "
        "the keys installed here)",
    )
    add("--identity", metavar="ID", help="who must have signed, with Sigstore")
    add("--identity-provider", metavar="URL", help="the OpenID provider that vouched for them")
    add("--use-staging", action="store_true", help="Sigstore's staging instance")
    add(
        "--checks",
        type=_checks,
        metavar="LIST",
        help="files,weights,inference (default: files, then weights if files differ; "
        "inference when torch is installed)",
    )
    add("--digest", choices=("blake3", "sha256"), default="blake3", help="kind of leaf digests")
    add("--whole", action="store_true", help="also recompute the SHA-256 of every file")
    add("--resume", action="store_true", help="go on where the same command was interrupted")
    add(
        "--accept",
        action="append",
        choices=VERDICTS,
        default=[],
        metavar="VERDICT",
        help="also exit with 0 for this verdict (repeatable; identical always counts)",
    )
    add(
        "--sketch",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="the portal's sketch, for lineage; with several manifests one for each, - for none",
    )
    add("--identify", action="store_true", help="say which of the manifests this is, if any")
    add(
        "--official",
        type=Path,
        metavar="DIR",
        help="folder that holds the official files: to quantize them again, or cut them as a torrent",
    )
    add("--device", default="auto", help="auto, cpu or cuda[:N], for inference")
    add("--memory", type=_size, default="350MiB", help="peak of the inference process")
    add("--positions", type=_positive, metavar="N", help="positions that inference compares")
    add("--challenge", type=Path, metavar="FILE", help="also answer the portal's challenge")
    add("--json", action="store_true", help="the report on stdout, and nothing else")
    add("--report", type=Path, metavar="FILE.html", help="write the report as a page")
    add("--attest", type=Path, metavar="KEY", help="sign the verdict with this private PEM key")
    add(
        "--attest-out",
        type=Path,
        default=Path("verdict.intoto.json"),
        metavar="FILE",
        help="where the signed verdict is written (default: %(default)s)",
    )
    add("--progress-json", action="store_true", help="progress as lines of JSON on stderr")
    return parser


def describe_parser() -> argparse.ArgumentParser:
    """Return the parser of `describe`, which the portal's `publish` runs."""
    parser = Parser(
        prog="python -m verifier describe", description="Describe a folder for signing."
    )
    add = parser.add_argument
    parser.add_argument("folder", type=Path, metavar="DIR")
    add("--name", required=True, help="such as llama/7b@1")
    add("--revision", type=int, required=True)
    add("--issued", required=True, metavar="TIME", help="ISO 8601, with offset")
    add("--out", type=Path, required=True, metavar="WORK", help="where to write")
    add("--previous", metavar="SHA256", help="digest of the statement before this")
    add("--with", type=Path, action="append", default=[], dest="with_files", metavar="FILE")
    add("--reference", type=Path, metavar="FILE", help="reference of the inference check")
    add("--sketch-key", type=Path, metavar="FILE", help="secret seed of the sketch")
    add("--terms", default="")
    add("--license", default="")
    add("--progress-json", action="store_true")
    return parser


def _verify(arguments: Sequence[str]) -> int:
    given = verify_parser().parse_args(arguments)
    if given.path is None and given.torrent is None and given.magnet is None:
        verify_parser().error("give PATH, --torrent FILE or --magnet URI")
    from . import keys, progress
    from .findings import Verdict
    from .inference_run import InferenceOptions
    from .trust import Trust
    from .verify import Options, checkpoints_in

    data = keys.data_folder()
    named = keys.trust_identity(given.identity, given.identity_provider, given.use_staging)
    trust = Trust.union([keys.load_all(given.trusted_key), named]) or keys.installed_keys(data)
    options = Options(
        trust=trust,
        manifests=tuple(given.manifest),
        checks=given.checks,
        digest=given.digest,
        whole=given.whole,
        accepted=frozenset({Verdict.IDENTICAL, *map(Verdict, given.accept)}),
        sketch=given.sketch[0] if len(given.sketch) == 1 else None,
        sketches=_sketches(given),
        identify=given.identify,
        official=given.official,
        inference=InferenceOptions(given.device, given.memory, given.positions),
        data=data,
        resume=given.resume,
        attest=given.attest is not None,
    )
    source = given.torrent if given.magnet is None else given.magnet
    paths = [] if given.manifest or source is not None else checkpoints_in(given.path)
    paths = paths or [given.path]
    signer = _attester(given, paths) if given.attest else None
    listener = progress.choose(as_json=given.progress_json)
    try:
        reports = _judge(source, paths, given.official, options, listener)
        if given.challenge:
            reports = [_challenged(given, reports, options, listener)]
    finally:
        progress.close(listener)
    if signer:
        _write(given.attest_out, signer(reports[0]))
    contents = [report.as_json() for report in reports]
    if given.report:
        from .report_html import page

        _write(given.report, page(contents))
    if given.json:
        several = {"schema": "weighbridge.reports/1", "reports": contents}
        print(_as_json(contents[0] if len(contents) == 1 else several), flush=True)
    else:
        texts = [report.as_text() for report in reports]
        if len(reports) > 1:
            texts = [f"{shown(r.path)}\n{text}" for r, text in zip(reports, texts, strict=True)]
        print("\n\n".join(texts), flush=True)
    worst = max(reports, key=lambda report: report.exit_status)
    sentence = worst.sentence
    if len(reports) > 1:
        wrong = sum(report.exit_status != 0 for report in reports)
        sentence = f"{len(reports) - wrong:,} of {len(reports):,} checkpoints are accepted"
        sentence += f"; the first that is not is {worst.path}: {worst.sentence}" if wrong else "."
    return _say(sentence, worst.exit_status)


def _sketches(given: argparse.Namespace) -> tuple[Path | None, ...]:
    """Return the sketches that go with the manifests, in their order."""
    if len(given.sketch) < 2:
        return ()
    if len(given.sketch) != len(given.manifest):
        raise InputError("Give one --sketch for each --manifest, - where there is none.")
    return tuple(None if str(path) == "-" else path for path in given.sketch)


def _judge(
    source: Path | str | None,
    paths: Sequence[Path | None],
    official: Path | None,
    options: "Options",
    listener: "Progress",
) -> list["Report"]:
    """Verify each copy, or, where there is one, the torrent or magnet link ``source``."""
    if source is not None:
        from .verify_torrent import verify_source

        return [verify_source(source, paths[0], official, options, listener)]
    from .verify import verify

    return [verify(path, options, listener) for path in paths if path is not None]


def _as_json(content: Mapping[str, Any]) -> str:
    """Return ``content`` as JSON, indented where a person may read it: that is slow for much."""
    compact = json.dumps(content)
    return compact if len(compact) > MAX_INDENTED else json.dumps(content, indent=2)


def _challenged(
    given: argparse.Namespace,
    reports: Sequence["Report"],
    options: "Options",
    listener: "Progress",
) -> "Report":
    """Return the report with the copy's answer to a challenge in it."""
    from . import challenges, inference_run

    if given.torrent is not None or given.magnet is not None or len(reports) > 1:
        raise InputError("--challenge takes one copy of a checkpoint; give its folder.")
    try:
        with given.challenge.open("rb") as file:
            challenges.read_challenge(file.read(challenges.MAX_CHALLENGE_BYTES + 1))
    except OSError as error:
        raise InputError(f"{given.challenge} cannot be read: {error.strerror}.") from None
    size = sum(file.stat().st_size for file in given.path.rglob("*") if file.is_file())
    answer = inference_run.answer_challenge(
        given.path, given.challenge, size, options.inference, listener
    )
    return replace(reports[0], challenge=answer)


def _attester(given: argparse.Namespace, paths: Sequence[Path]) -> Callable[["Report"], str]:
    """Return what signs a report, once its key is known to be good and no old attestation is left.

    A policy engine that finds the file must not take an earlier verdict for this one.
    """
    from . import attest, keys

    if given.torrent is not None or given.magnet is not None:
        raise InputError("--attest takes a copy: of a torrent there are no files to attest.")
    if len(paths) > 1:
        raise InputError("--attest takes one checkpoint at a time; give the folder of one.")
    key = keys.load_private(given.attest)
    try:
        given.attest_out.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{given.attest_out} cannot be written: {error.strerror}.") from None
    return lambda report: attest.attest(report, key, at=datetime.now(UTC))


def _describe(arguments: Sequence[str]) -> int:
    given = describe_parser().parse_args(arguments)
    from . import progress
    from .describe import Checkpoint, describe

    checkpoint = Checkpoint(
        name=given.name,
        revision=given.revision,
        issued=given.issued,
        previous=given.previous,
        license=given.license,
        terms=given.terms,
    )
    listener = progress.choose(as_json=given.progress_json)
    try:
        notes = describe(
            given.folder,
            checkpoint,
            given.out,
            listener,
            with_files=given.with_files,
            reference=given.reference,
            sketch_key=given.sketch_key,
        )
    finally:
        progress.close(listener)
    return _say(" ".join(notes), 0) if notes else 0


def _oms(arguments: Sequence[str]) -> int:
    from .oms_command import run

    return run(arguments)


def _say(sentence: str, status: int) -> int:
    print(shown(sentence), file=sys.stderr, flush=True)
    return status


def _write(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all; a terminal or pipe just gets the text."""
    if path.exists() and not path.is_file():
        return _pour(path, text)
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        draft.unlink(missing_ok=True)


def _pour(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Unwind on SIGTERM as on Ctrl-C, so that children end and drafts are removed."""
    raise SystemExit(128 + number)


def _checks(text: str) -> frozenset[str]:
    chosen = frozenset(filter(None, text.split(",")))
    if not chosen or chosen - frozenset(CHECKS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of {', '.join(CHECKS)}")
    return chosen


def _path(text: str) -> Path:
    if not text:  # else it would be the folder where we stand: a shell's variable was not set
        raise argparse.ArgumentTypeError("PATH is empty")
    return Path(text)


def _size(text: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)?\s?([KMGT](i?B)?|B)?", text, re.IGNORECASE):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 350MiB or 2GB")
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)
