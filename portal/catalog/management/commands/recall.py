from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.timezone import now

from portal.catalog import newest
from portal.catalog.models import Checkpoint, CheckpointNameError
from portal.catalog.notices import RecallError, recall

BY = "command:recall"


class Command(BaseCommand):
    help = "Say to everyone who verifies a checkpoint version that it should not be used, and why."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="FAMILY/VARIANT@VERSION")
        parser.add_argument("--reason", required=True, metavar="TEXT")
        parser.add_argument("--replacement", metavar="NAME", help="the version to be used instead")

    def handle(self, *args: Any, name: str, **options: Any) -> None:
        at = now()
        try:
            notice = recall(
                _published(name),
                reason=options["reason"],
                replacement=_published(options["replacement"]) if options["replacement"] else None,
                by=BY,
                at=at,
            )
            newest.current(by=BY, at=at)
        except (CheckpointNameError, RecallError, newest.UnsignedError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Recalled {notice.checkpoint}; latest.json says so from now on.")


def _published(name: str) -> Checkpoint:
    checkpoint = Checkpoint.objects.named(name).select_related("family").first()
    if checkpoint is None:
        raise RecallError(f"{name} is not published on this portal.")
    return checkpoint
