"""The base of commands that only talk to a portal, and need neither database nor site here."""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand


class ClientCommand(BaseCommand):
    """Becomes `python -m portal.client NAME` with the same arguments."""

    parser: Callable[..., ArgumentParser]

    def create_parser(  # type: ignore[override]  # the client's own parser, not Django's
        self, prog_name: str, subcommand: str, **kwargs: Any
    ) -> ArgumentParser:
        """Return the client's own parser."""
        return type(self).parser(prog=f"{Path(prog_name).name} {subcommand}")

    def run_from_argv(self, argv: list[str]) -> None:
        """Check the arguments, then become the client."""
        self.create_parser(argv[0], argv[1]).parse_args(argv[2:])
        paths = [str(settings.BASE_DIR), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        os.execv(sys.executable, [sys.executable, "-m", "portal.client", *argv[1:]])
