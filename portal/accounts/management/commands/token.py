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
        parser.add_argument("--scope", required=True, help="download, read, verify; with commas")
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
                by="command:token",
                at=at,
                expires_at=at + timedelta(days=days) if days else None,
            )
        except (people.PersonError, tokens.TokenError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(secret)
