import csv
from argparse import ArgumentParser
from datetime import datetime, time
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils.dateparse import parse_date
from django.utils.timezone import make_aware, now

from portal.access import decisions
from portal.access.models import Grant
from portal.accounts import people
from portal.accounts.models import User
from portal.catalog.models import Checkpoint, CheckpointNameError

COLUMNS = ("email", "name", "until", "reason")
MOST_ROWS = 100_000


class Command(BaseCommand):
    help = (
        "Grant access without an application: the same decision and audit as in the admin, with "
        "the acceptance of the terms as made on paper, attested by --by. Prints the grant's id."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email", metavar="EMAIL", nargs="?")
        parser.add_argument("name", metavar="FAMILY/VARIANT@VERSION", nargs="?")
        parser.add_argument("--until", metavar="DATE", help="the last day, such as 2027-06-30")
        parser.add_argument("--reason", metavar="TEXT")
        parser.add_argument("--by", metavar="REVIEWER", required=True, help="their e-mail address")
        parser.add_argument(
            "--from",
            dest="file",
            metavar="FILE.csv",
            help=f"many, one a row, with the columns {', '.join(COLUMNS)}",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        reviewer = self._reviewer(options["by"])
        if options["file"]:
            rows = self._read(options["file"])
        else:
            row = {column: options[column] for column in COLUMNS}
            missing = [column for column, value in row.items() if not value]
            if missing:
                raise CommandError(f"Say also: {', '.join(missing)}; or give --from FILE.csv.")
            rows = [("", row)]
        with transaction.atomic():  # all rows of a file, or none
            for place, row in rows:
                try:
                    grant = self._grant(row, reviewer)
                except (people.PersonError, decisions.DecisionError, CheckpointNameError) as error:
                    raise CommandError(f"{place}{error}") from error
                self.stdout.write(str(grant.pk))

    def _reviewer(self, email: str) -> User:
        reviewer = User.objects.filter(email__iexact=email, is_active=True).first()
        if reviewer is None or not reviewer.has_perm("access.decide_request"):
            raise CommandError(f"--by {email}: not the address of a reviewer of this portal.")
        return reviewer

    def _grant(self, row: dict[str, str], reviewer: User) -> Grant:
        at = now()
        checkpoint = Checkpoint.objects.named(row["name"]).first()
        if checkpoint is None:
            raise decisions.DecisionError(f"{row['name']} is not published here.")
        try:
            day = parse_date(row["until"])
        except ValueError:
            day = None
        if day is None:
            raise decisions.DecisionError(f"{row['until']!r} is not a date: write 2027-06-30.")
        return decisions.grant_directly(
            people.find_or_make(row["email"], by=reviewer.actor, at=at),
            checkpoint,
            by=reviewer,
            reason=row["reason"],
            at=at,
            until=make_aware(datetime.combine(day, time.max)),
        )

    def _read(self, file: str) -> list[tuple[str, dict[str, str]]]:
        try:
            with open(file, newline="", encoding="utf-8-sig") as lines:
                rows = list(csv.DictReader(lines, strict=True))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise CommandError(f"{file} cannot be read as CSV in UTF-8: {error}.") from error
        if len(rows) > MOST_ROWS:
            raise CommandError(f"{file} has more than {MOST_ROWS:,} rows; split it.")
        for number, row in enumerate(rows, 2):
            missing = [column for column in COLUMNS if not row.get(column)]
            if missing:
                raise CommandError(f"{file}, line {number}: {', '.join(missing)} is missing.")
        return [(f"{file}, line {number}: ", row) for number, row in enumerate(rows, 2)]
