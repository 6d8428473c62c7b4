"""`python -m verifier oms sign-model|verify-model`: the OMS conformance protocol, by key.

Exit status 0 says yes; anything else is no, with one sentence on stderr.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from . import engine, oms
from .command_line import Parser
from .errors import InputError, SignatureError
from .files_check import Hasher, check_files
from .findings import FileStatus
from .keys import load_private, load_trusted
from .manifest import ManifestFile, read_bounded
from .progress import silent
from .walk import FoundFile, resolve_root, walk


def run(arguments: Sequence[str]) -> int:
    """Sign or verify as ``arguments`` say; return 0 for yes.

    Raises:
        VerifierError: no, and why.
    """
    given = _parser().parse_args(arguments)
    if given.command == "sign-model":
        _sign(given)
    else:
        _verify(given)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m verifier oms", description="Sign and verify OMS bundles.")
    commands = parser.add_subparsers(dest="command", required=True)
    sign = commands.add_parser("sign-model", help="write a bundle")
    verify = commands.add_parser("verify-model", help="check a model against a bundle")
    for command in (sign, verify):
        command.add_argument("--method", choices=("key",), required=True)
        command.add_argument("--model-path", type=Path, required=True)
        command.add_argument("--ignore-paths", type=Path, action="append", default=[])
    sign.add_argument("--output-bundle", type=Path, required=True)
    sign.add_argument("--private-key", type=Path, required=True)
    verify.add_argument("--bundle", type=Path, required=True)
    verify.add_argument("--public-key", type=Path, required=True)
    verify.add_argument("--ignore-unsigned-files", action="store_true")
    return parser


def _sign(given: argparse.Namespace) -> None:
    key = load_private(given.private_key)
    root = resolve_root(given.model_path)
    ignored = _relative(root, [*given.ignore_paths, given.output_bundle])
    listing = walk(root, skip=(*oms.GIT_PATHS, *ignored))
    if listing.findings:
        raise InputError(listing.findings[0].message)
    resources = [oms.Resource(name, _sha256(file)) for name, file in listing.files.items()]
    name = root.name or "model"
    bundle = oms.sign(resources, name, key, ignore_paths=sorted({*oms.GIT_PATHS, *ignored}))
    given.output_bundle.write_bytes(bundle)


def _verify(given: argparse.Namespace) -> None:
    trust = load_trusted(given.public_key)
    statement = oms.verify(read_bounded(given.bundle, oms.MAX_BUNDLE_BYTES), trust)
    root = resolve_root(given.model_path)
    ignored = _relative(root, [*given.ignore_paths, given.bundle])
    listing = walk(root, skip=(*oms.GIT_PATHS, *statement.ignore_paths, *ignored))
    files = {r.name: ManifestFile(r.name, r.sha256) for r in statement.resources}
    if set(files) == {"."} and root.is_file():
        files = {root.name: ManifestFile(root.name, files["."].sha256)}
    check = check_files(listing, files, Hasher(("sha256",), False, silent))
    wrong = check.named(FileStatus.DAMAGED, FileStatus.MISSING, FileStatus.REFUSED)
    extra = check.named(FileStatus.UNLISTED)
    if wrong:
        raise SignatureError(f"{wrong[0].path} is {wrong[0].status.value}: not what was signed.")
    if (extra or listing.findings) and not given.ignore_unsigned_files:
        first = extra[0].path if extra else listing.findings[0].path
        raise SignatureError(f"{first} is not in the signed list.")


def _sha256(file: FoundFile) -> str:
    job = engine.Job(file, whole_kinds=("sha256",))
    (result,) = engine.run([job], lambda more: None)
    if result.error is not None:
        raise result.error
    return result.whole["sha256"]


def _relative(root: Path, paths: Sequence[Path]) -> list[str]:
    """Return those of ``paths`` that lie in the model, as names in it."""
    folder = root if root.is_dir() else root.parent
    places = [path.parent.resolve() / path.name for path in paths]
    return [str(p.relative_to(folder)) for p in places if p.is_relative_to(folder) and p != folder]
