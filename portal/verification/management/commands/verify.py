import os
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import BaseCommand

from verifier.command_line import verify_parser

NOTHING_TO_COMPARE = 2


class Command(BaseCommand):
    """Run `python -m verifier`, with what this portal's catalogue knows added to its arguments.

    With ``--manifest``, or with a ``model.sig`` in PATH, neither database nor site is needed.
    """

    help = "Say whether a copy of a checkpoint is authentic."

    def create_parser(  # type: ignore[override]  # the verifier's own parser, not Django's
        self, prog_name: str, subcommand: str, **kwargs: Any
    ) -> ArgumentParser:
        """Return the verifier's own parser, with the catalogue's name added."""
        parser = verify_parser(prog=f"{Path(prog_name).name} {subcommand}")
        parser.add_argument(
            "--checkpoint", metavar="NAME", help="published here, such as llama/7b@1"
        )
        return parser

    def run_from_argv(self, argv: list[str]) -> None:
        """Read the arguments, add the catalogue's, and become the verifier."""
        arguments = argv[2:]
        parser = self.create_parser(argv[0], argv[1])
        options = parser.parse_args(arguments)
        if options.checkpoint:
            arguments = _without(arguments, "--checkpoint")
            arguments += _of_checkpoint(options.checkpoint)
        elif not options.manifest and not (options.path / "model.sig").is_file():
            arguments += _of_all_checkpoints()
        paths = [str(settings.BASE_DIR), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        os.environ["WEIGHBRIDGE_DATA"] = str(settings.DATA)
        os.execv(sys.executable, [sys.executable, "-m", "verifier", *arguments])


def _without(arguments: list[str], option: str) -> list[str]:
    """Return ``arguments`` without ``option`` and its value, in either spelling."""
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == option:
            skip = True
        elif not argument.startswith(f"{option}="):
            kept.append(argument)
    return kept


def _of_checkpoint(name: str) -> list[str]:
    """Return the arguments that name the manifest and the sketch of a published checkpoint."""
    from portal.catalog.manifests import manifest_of, sketch_of
    from portal.catalog.models import Checkpoint, CheckpointNameError
    from portal.embedded import bring_up_to_date

    bring_up_to_date()
    try:
        checkpoint = Checkpoint.objects.named(name).first()
    except CheckpointNameError as error:
        _stop(str(error))
    if checkpoint is None:
        _stop(f"{name} is not published on this portal; give --manifest FILE.")
    _make_fresh()
    sketch = sketch_of(checkpoint)
    return [
        *("--manifest", str(manifest_of(checkpoint) / "model.sig")),
        *(("--sketch", str(sketch)) if sketch else ()),
    ]


def _of_all_checkpoints() -> list[str]:
    """Return the arguments that name every manifest of the catalogue, if there is one here."""
    from portal.catalog.manifests import manifest_of
    from portal.catalog.models import Checkpoint
    from portal.embedded import bring_up_to_date, embedded_file

    embedded = settings.DATABASES["default"] is settings.EMBEDDED_DATABASE
    if embedded and not embedded_file().exists():
        return []
    bring_up_to_date()
    _make_fresh()
    return [
        argument
        for checkpoint in Checkpoint.objects.all()
        for argument in ("--manifest", str(manifest_of(checkpoint) / "model.sig"))
    ]


def _make_fresh() -> None:
    """See that root.json and latest.json lie where the verifier looks for them, and are fresh."""
    from portal.catalog.keyring import KeyringError
    from portal.catalog.manifests import trusted_root

    try:
        trusted_root(by="command:verify")
    except KeyringError as error:
        _stop(str(error))


def _stop(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    raise SystemExit(NOTHING_TO_COMPARE)
