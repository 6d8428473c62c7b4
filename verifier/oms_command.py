"""`python -m verifier oms sign-model|verify-model`: the OMS conformance protocol.

By key, by certificate or by a Sigstore identity. Exit status 0 says yes; anything else is no, with
one sentence on stderr.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import engine, names, oms, statement
from .command_line import Parser
from .errors import InputError, SignatureError
from .files_check import Hasher, check_files, without_ignored
from .findings import FileStatus
from .keys import load_certificates, load_private, load_trusted, trust_identity
from .manifest import ManifestFile, read_bounded
from .progress import silent
from .trust import Trust
from .walk import FoundFile, Listing, resolve_root, walk

METHODS = ("key", "certificate", "sigstore")


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
    for command, chain in (
        (sign, "certificate above the signer's, nearest first"),
        (verify, "certificate of an authority that is trusted"),
    ):
        add = command.add_argument
        add("--method", choices=METHODS, required=True)
        add("--model-path", type=Path, required=True, metavar="PATH")
        add("--ignore-paths", type=Path, action="append", default=[], metavar="ABSOLUTE")
        add("--cert-chain", type=Path, action="append", default=[], metavar="PEM", help=chain)
        add("--use-staging", action="store_true", help="Sigstore's staging instance")
    sign.add_argument("--output-bundle", type=Path, required=True, metavar="FILE")
    sign.add_argument("--private-key", type=Path, metavar="PEM")
    sign.add_argument("--signing-cert", type=Path, metavar="PEM")
    sign.add_argument("--identity-token", metavar="T", help="OpenID token, for Sigstore")
    verify.add_argument("--bundle", type=Path, required=True, metavar="FILE")
    verify.add_argument("--public-key", type=Path, metavar="PEM")
    verify.add_argument("--identity", metavar="ID", help="who must have signed, with Sigstore")
    verify.add_argument("--identity-provider", metavar="URL", help="who vouched for them")
    verify.add_argument("--ignore-unsigned-files", action="store_true")
    return parser


def _sign(given: argparse.Namespace) -> None:
    if given.method == "sigstore":
        _require(given, "identity_token")
    else:
        _require(given, "private_key", *(["signing_cert"] * (given.method == "certificate")))
    root = resolve_root(given.model_path)
    ignored = _relative(root, [*given.ignore_paths, given.output_bundle])
    listing = walk(root, skip=(*oms.GIT_PATHS, *ignored))
    if listing.findings:
        raise InputError(listing.findings[0].message)
    _refuse_links(listing, listing.files)
    resources = [oms.Resource(name, _sha256(file)) for name, file in listing.files.items()]
    name = root.name or "model"
    skipped = sorted({*oms.GIT_PATHS, *ignored})
    if given.method == "sigstore":
        from . import sigstore_bundles

        payload = statement.write(resources, name, skipped)
        bundle = sigstore_bundles.sign(payload, given.identity_token, staging=given.use_staging)
    else:
        chain = []
        if given.method == "certificate":
            chain = load_certificates(given.signing_cert)[:1]
            chain += [c for path in given.cert_chain for c in load_certificates(path)]
            chain = list(dict.fromkeys(chain))
        bundle = oms.sign(resources, name, load_private(given.private_key), skipped, chain)
    _write(given.output_bundle, bundle)


def _verify(given: argparse.Namespace) -> None:
    trust = _trust(given)
    signed = oms.verify(read_bounded(given.bundle, oms.MAX_BUNDLE_BYTES), trust)
    root = resolve_root(given.model_path)
    ignored = _relative(root, [*given.ignore_paths, given.bundle])
    listing = walk(root, skip=(*oms.GIT_PATHS, *signed.ignore_paths, *ignored))
    files = {r.name: ManifestFile.of(r) for r in signed.resources}
    if set(files) == {"."} and root.is_file():
        # Releases up to 1.0 named the only file of a model so.
        files = {root.name: ManifestFile.of(signed.resources[0])}
    listing = without_ignored(listing, signed, files)
    check = check_files(listing, files, Hasher((), False, silent))
    wrong = check.named(FileStatus.DAMAGED, FileStatus.MISSING, FileStatus.REFUSED)
    if wrong:
        reason = next(f.message for f in check.findings if f.path == wrong[0].path)
        raise SignatureError(reason)
    if not signed.serialization.allow_symlinks:
        _refuse_links(listing, files if given.ignore_unsigned_files else listing.files)
    if not given.ignore_unsigned_files:
        extra = check.named(FileStatus.UNLISTED)
        if extra:
            raise SignatureError(f"{names.shown(extra[0].path)} is not in the signed list.")
        if listing.findings:
            raise SignatureError(listing.findings[0].message)


def _trust(given: argparse.Namespace) -> Trust:
    """Return what the options of the method say to trust, and nothing of another method's."""
    if given.method == "sigstore":
        _require(given, "identity", "identity_provider")
        return trust_identity(given.identity, given.identity_provider, given.use_staging)
    if given.method == "key":
        _require(given, "public_key")
        return Trust(keys=load_trusted(given.public_key).keys)
    _require(given, "cert_chain")
    authorities = [c for path in given.cert_chain for c in load_certificates(path)]
    return Trust(authorities=tuple(authorities))


def _require(given: argparse.Namespace, *options: str) -> None:
    for option in options:
        if not getattr(given, option):
            shown = "--" + option.replace("_", "-")
            raise InputError(f"With --method {given.method}, {shown} must be given.")


def _refuse_links(listing: Listing, wanted: Iterable[str]) -> None:
    """Refuse a model with links in it: OMS 1.0, section 6.1.1, follows none by default."""
    for name in wanted:
        file = listing.files.get(name)
        if file is not None and file.location != listing.root / name:
            raise InputError(f"{names.shown(name)} is a link; put the file itself in its place.")


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


def _write(path: Path, data: bytes) -> None:
    """Write ``data`` so that a bundle is there whole or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        draft.unlink(missing_ok=True)
