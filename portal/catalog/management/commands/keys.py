from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from portal.catalog.manifests import release_key
from verifier.keys import read_or_make_release_key


class Command(BaseCommand):
    help = "The release key, by which this portal's manifests are verified."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("what", choices=["export"], help="export: print the public key as PEM")

    def handle(self, *args: Any, **options: Any) -> None:
        read_or_make_release_key(settings.DATA / "keys")
        self.stdout.write(release_key().read_text(), ending="")
