import os
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from portal.client.command_line import repair_parser


class Command(BaseCommand):
    """Become `python -m portal.client repair`, which needs neither database nor site here."""

    help = "Fetch what is damaged or missing in a copy, and only that."

    def create_parser(  # type: ignore[override]  # the client's own parser, not Django's
        self, prog_name: str, subcommand: str, **kwargs: Any
    ) -> ArgumentParser:
        """Return the client's own parser."""
        return repair_parser(prog=f"{Path(prog_name).name} {subcommand}")

    def run_from_argv(self, argv: list[str]) -> None:
        """Check the arguments, then become the client, with the keys installed here."""
        self.create_parser(argv[0], argv[1]).parse_args(argv[2:])
        paths = [str(settings.BASE_DIR), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        os.environ["WEIGHBRIDGE_DATA"] = str(settings.DATA)
        command = [sys.executable, "-m", "portal.client", "repair"]
        os.execv(sys.executable, [*command, *argv[2:]])
