import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import DatabaseError

from portal.client.command_line import verify_parser, without

NOTHING_TO_COMPARE = 2


class Command(BaseCommand):
    """Run `python -m verifier`, with what this portal's catalogue knows added to its arguments.

    With ``--manifest``, or with a ``model.sig`` in PATH, neither database nor site is needed. With
    ``--portal`` the catalogue is another's: then it is `python -m portal.client verify` that runs.
    """

    help = "Say whether a copy of a checkpoint is authentic."

    def create_parser(  # type: ignore[override]  # the verifier's own parser, not Django's
        self, prog_name: str, subcommand: str, **kwargs: Any
    ) -> ArgumentParser:
        """Return the verifier's own parser, with portal and checkpoint added."""
        return verify_parser(prog=f"{Path(prog_name).name} {subcommand}")

    def run_from_argv(self, argv: list[str]) -> None:
        """Read the arguments, add the catalogue's, and become the verifier."""
        arguments = argv[2:]
        options = self.create_parser(argv[0], argv[1]).parse_args(arguments)
        module = ["verifier"]
        if options.portal:
            module = ["portal.client", "verify"]
        else:
            try:
                arguments = _with_the_catalogue(options, arguments)
            except (OSError, DatabaseError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                _stop(
                    f"The catalogue in {settings.DATA} cannot be used: {reason}; give --manifest."
                )
        paths = [str(settings.BASE_DIR), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        os.environ["WEIGHBRIDGE_DATA"] = str(settings.DATA)
        os.execv(sys.executable, [sys.executable, "-m", *module, *arguments])


def _with_the_catalogue(options: Namespace, arguments: list[str]) -> list[str]:
    """Return the arguments with what the catalogue knows of the checkpoint named, or of all."""
    if options.checkpoint:
        given = without(arguments, {"--checkpoint": 1, "--insecure-http": 0})
        return given + _of_checkpoint(options.checkpoint)
    if options.manifest or _has_manifest(options.path or options.official):
        return arguments
    return arguments + _of_all_checkpoints()


def _has_manifest(path: Path | None) -> bool:
    """Tell whether a manifest lies beside the file PATH, in it, or in the folders of it."""
    if path is None:
        return False
    folder = path if path.is_dir() else path.parent
    return (folder / "model.sig").is_file() or any(path.glob("*/model.sig"))


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
    """Return the arguments that ask which of the catalogue's checkpoints it is, if there are any."""
    from portal.catalog.manifests import identify_arguments
    from portal.catalog.models import Checkpoint
    from portal.embedded import bring_up_to_date, embedded_file

    embedded = settings.DATABASES["default"] is settings.EMBEDDED_DATABASE
    if embedded and not embedded_file().exists():
        return []
    bring_up_to_date()
    _make_fresh()
    return identify_arguments(Checkpoint.objects.all())


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
