import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from portal.audit import chain


class Command(BaseCommand):
    help = (
        "Check that the audit chain is whole: exit 0 if it holds, 1 with each break if it does not."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("what", choices=["verify"])

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = list(chain.breaks())
        except chain.AuditError as error:
            raise CommandError(str(error)) from error
        for broken in found:
            self.stderr.write(f"Event {broken.seq}: {broken.message}.")
        if found:
            sys.exit(1)
        seq, digest = chain.note_head()
        self.stdout.write(f"The audit chain holds: {seq} events, head {digest}.")
