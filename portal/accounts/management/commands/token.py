from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.timezone import now

from portal.accounts import people, tokens

LONGEST_DAYS = 3660


class Command(BaseCommand):
    help = "Make an API token for a person and print it, alone, on standard output. It is not kept."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email", metavar="EMAIL")
        parser.add_argument(
            "--scope", required=True, help="apply, download, read, verify; with commas"
        )
        parser.add_argument(
            "--checkpoint", default="", metavar="NAME", help="the only one it opens"
        )
        parser.add_argument(
            "--from",
            dest="ranges",
            action="append",
            default=[],
            metavar="CIDR",
            help="addresses it may be used from, such as 192.0.2.0/24 (repeatable; default: any)",
        )
        parser.add_argument("--days", type=int, help="end after so many days (default: no end)")

    def handle(self, *args: Any, email: str, **options: Any) -> None:
        at = now()
        days = options["days"]
        if days is not None and not 1 <= days <= LONGEST_DAYS:
            raise CommandError(f"--days {days}: say 1 to {LONGEST_DAYS}.")
        try:
            user = people.find_or_make(email, by="command:token", at=at)
            _, secret = tokens.make(
                user,
                scopes=[scope.strip() for scope in options["scope"].split(",") if scope.strip()],
                checkpoint=options["checkpoint"],
                ranges=options["ranges"],
                by="command:token",
                at=at,
                expires_at=at + timedelta(days=days) if days else None,
            )
        except (people.PersonError, tokens.TokenError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(secret)
