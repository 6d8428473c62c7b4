from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from portal.catalog.models import Checkpoint, CheckpointNameError
from portal.catalog.stored import compare
from portal.delivery.probes import check_of_the_settings
from portal.storage.stores import StoreError
from verifier import progress


class Command(BaseCommand):
    help = (
        "check: prove that the store of the settings keeps, hands out and refuses, step by step, and "
        "leave nothing behind. verify NAME: read a published checkpoint back from the store and "
        "compare it with what was signed. Exit status: 0 all holds, 1 something does not, 2 the "
        "settings or the name cannot be used."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="what", required=True)
        commands.add_parser("check", help="prove the store of the settings")
        verify = commands.add_parser("verify", help="compare a stored checkpoint with its digests")
        verify.add_argument("name", metavar="FAMILY/VARIANT@VERSION")

    def handle(self, *args: Any, what: str, **options: Any) -> None:
        try:
            if what == "check":
                self._check()
            else:
                self._verify(options["name"])
        except (StoreError, CheckpointNameError) as error:
            raise CommandError(str(error), returncode=2) from error

    def _check(self) -> None:
        failed = None
        for step in check_of_the_settings().run():
            self.stdout.write(f"{'✓' if step.held else '✗'} {step.name}: {step.says}")
            failed = failed or (None if step.held else step)
        if failed:
            raise CommandError(f"The store cannot be used: {failed.name} failed.", returncode=1)
        self.stdout.write("The store holds.")

    def _verify(self, name: str) -> None:
        checkpoint = Checkpoint.objects.named(name).select_related("family").first()
        if checkpoint is None:
            raise CommandError(f"{name} is not published here.", returncode=2)
        show = progress.choose(as_json=False)
        try:
            differing = compare(checkpoint, show)
        finally:
            progress.close(show)
        for difference in differing:
            self.stdout.write(f"✗ {difference}")
        if differing:
            raise CommandError(
                f"{len(differing)} of the stored files of {checkpoint} are not what was signed.",
                returncode=1,
            )
        self.stdout.write(f"What is stored of {checkpoint} is what was signed.")
