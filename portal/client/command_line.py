"""The command line: `python -m portal.client repair PATH`, `… verify PATH --portal URL`, `… login`,
`… status`, `… apply FAMILY`.

Exit status of `repair`: 0 the copy is identical now, 1 not all could be mended, 2 usage, or nothing
to trust or to look at. stderr carries one sentence.
"""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from verifier import command_line as verifier_command
from verifier.command_line import INTERRUPTED, Parser
from verifier.errors import VerifierError
from verifier.names import shown

from .errors import ClientError
from .site import Site
from .tokens import token_for

PORTAL_VARIABLE = "WEIGHBRIDGE_PORTAL"
WHICH_PORTAL = "Say which portal to ask with --portal URL or WEIGHBRIDGE_PORTAL."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in ``arguments`` and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands: Mapping[str, Callable[[Sequence[str]], int]] = {
        "apply": _apply,
        "login": _login,
        "repair": _repair,
        "status": _status,
        "verify": _verify,
    }
    if not given or given[0] not in commands:
        parser = Parser(prog="python -m portal.client", description="Talk to a Weighbridge portal.")
        parser.add_argument("command", choices=sorted(commands))
        parser.parse_args(given[:1])
    try:
        return commands[given[0]](given[1:])
    except (ClientError, VerifierError) as error:
        return _say(str(error), 2)
    except KeyboardInterrupt:
        return _say("Interrupted; what was fetched is kept for the next run.", INTERRUPTED)
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        return _say(f"{what}{error.strerror or error}.", 2)


def add_portal(parser: ArgumentParser) -> None:
    """Add the options that say which portal is asked, for what, and how."""
    _add_site(parser)
    parser.add_argument("--checkpoint", metavar="NAME", help="published there, such as llama/7b@1")


def _add_site(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--portal", metavar="URL", help="a Weighbridge site (default: $WEIGHBRIDGE_PORTAL)")
    add(
        "--insecure-http",
        action="store_true",
        help="speak plain http with a portal that is not this machine",
    )


def site_of(portal: str | None, *, insecure_http: bool) -> Site | None:
    """Return the portal that was named, in the option or the environment, with its token."""
    url = portal or os.environ.get(PORTAL_VARIABLE, "")
    if not url:
        return None
    site = Site(url, insecure_http=insecure_http)
    site.token = token_for(site.url)
    return site


def login_parser(prog: str = "python -m portal.client login") -> ArgumentParser:
    """Return the parser of `login`."""
    parser = Parser(prog=prog, description="Get a token of a portal: you say yes in a browser.")
    _add_site(parser)
    return parser


def _login(arguments: Sequence[str]) -> int:
    given = login_parser().parse_args(arguments)
    from .login import log_in

    url = given.portal or os.environ.get(PORTAL_VARIABLE, "")
    if not url:
        return _say(WHICH_PORTAL, 2)
    site = Site(url, insecure_http=given.insecure_http)
    return _say(log_in(site, lambda sentence: print(shown(sentence), flush=True)), 0)


def status_parser(prog: str = "python -m portal.client status") -> ArgumentParser:
    """Return the parser of `status`."""
    parser = Parser(prog=prog, description="Say how your requests and grants stand.")
    _add_site(parser)
    parser.add_argument("--json", action="store_true", help="the portal's answer as it is")
    return parser


def _status(arguments: Sequence[str]) -> int:
    given = status_parser().parse_args(arguments)
    from .status import lines, standing

    answer = standing(_logged_in(given))
    for line in [json.dumps(answer)] if given.json else lines(answer):
        print(line)
    return 0


def apply_parser(prog: str = "python -m portal.client apply") -> ArgumentParser:
    """Return the parser of `apply`."""
    parser = Parser(
        prog=prog,
        description="Apply for a family's checkpoints: get its form as a file, fill it, send it.",
    )
    parser.add_argument("family", metavar="FAMILY", help="such as llama")
    _add_site(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--form", action="store_true", help="print the form, to be filled")
    what.add_argument("--answers", type=Path, metavar="FILE", help="the filled form")
    parser.add_argument(
        "--accept",
        metavar="SHA256",
        help="the digest of the terms that you have read and accept (default: they are shown)",
    )
    return parser


def _apply(arguments: Sequence[str]) -> int:
    given = apply_parser().parse_args(arguments)
    from . import applying

    site = _logged_in(given)
    form = applying.form_of(site, given.family)
    if given.form:
        print(json.dumps(applying.template(form), indent=1, ensure_ascii=False))
        return 0
    filled = applying.read_filled(given.answers, given.family)
    ask = input if sys.stdin.isatty() else None
    digest = applying.accept(form, given.accept, ask=ask, say=print)
    return _say(applying.send(site, given.family, filled, digest), 0)


def _logged_in(given: Namespace) -> Site:
    """Return the portal that was named, with a token for it.

    Raises:
        ClientError: none was named, or there is no token for it.
    """
    site = site_of(given.portal, insecure_http=given.insecure_http)
    if site is None:
        raise ClientError(WHICH_PORTAL)
    if site.token is None:
        raise ClientError(f"There is no token for {site.url}: run login --portal {site.url} first.")
    return site


def repair_parser(prog: str = "python -m portal.client repair") -> ArgumentParser:
    """Return the parser of `repair`."""
    parser = Parser(
        prog=prog, description="Fetch what is damaged or missing in a copy, and only that."
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="a folder, or one file")
    add_portal(parser)
    parser.add_argument(
        "--manifest",
        type=Path,
        metavar="FILE",
        help="signature bundle, its side files beside it (default: the portal's, else PATH/model.sig)",
    )
    parser.add_argument(
        "--trusted-key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="PEM public key of a publisher, its root.json, or a CA certificate (repeatable; default: "
        "the keys installed here)",
    )
    parser.add_argument(
        "--progress-json", action="store_true", help="progress as lines of JSON on stderr"
    )
    return parser


def _repair(arguments: Sequence[str]) -> int:
    given = repair_parser().parse_args(arguments)
    from verifier import keys, progress

    from .repairing import Request, repair

    data = keys.data_folder()
    request = Request(
        path=given.path,
        trust=keys.load_all(given.trusted_key) or keys.installed_keys(data),
        site=site_of(given.portal, insecure_http=given.insecure_http),
        checkpoint=given.checkpoint,
        manifest=given.manifest,
        data=data,
    )
    listener = progress.choose(as_json=given.progress_json)
    try:
        outcome = repair(request, listener)
    finally:
        progress.close(listener)
    return _say(outcome.sentence, 1 if outcome.reasons else 0)


def verify_parser(prog: str = "python -m portal.client verify") -> ArgumentParser:
    """Return the parser of `verify`: the verifier's own, and the portal's options."""
    parser = verifier_command.verify_parser(prog)
    add_portal(parser)
    return parser


def _verify(arguments: Sequence[str]) -> int:
    given = verify_parser().parse_args(arguments)
    from .verifying import arguments_from

    site = site_of(given.portal, insecure_http=given.insecure_http)
    if site is None:
        return _say(WHICH_PORTAL, 2)
    own = without(arguments, {"--portal": 1, "--checkpoint": 1, "--insecure-http": 0})
    with arguments_from(site, given) as more:
        return verifier_command.main([*own, *more])


def without(arguments: Sequence[str], options: Mapping[str, int]) -> list[str]:
    """Return ``arguments`` without ``options`` and as many values as each takes."""
    kept: list[str] = []
    skip = 0
    for argument in arguments:
        if skip:
            skip -= 1
        elif argument in options:
            skip = options[argument]
        elif argument.partition("=")[0] not in options:
            kept.append(argument)
    return kept


def _say(sentence: str, status: int) -> int:
    print(shown(sentence), file=sys.stderr, flush=True)
    return status
