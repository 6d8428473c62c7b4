import shutil
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from portal.overview.demo.portal_process import Portal
from portal.overview.demo.story import Story, StoryError


class Command(BaseCommand):
    help = (
        "Tell the whole story on the embedded default, over real HTTP; exit 0 if every step held."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--keep", action="store_true", help="leave the site running, and say how to sign in"
        )

    def handle(self, *args: Any, keep: bool, **options: Any) -> None:
        folder = Path(tempfile.mkdtemp(prefix="weighbridge-demo-"))
        portal = Portal(folder / "portal")
        story = Story(portal, folder, say=self.stdout.write)
        try:
            story.tell()
        except (StoryError, LookupError, OSError, RuntimeError) as error:
            self.stderr.write(f"✗ {error}\nThe portal's files and logs: {portal.data}")
            portal.stop()
            sys.exit(1)
        try:
            if keep:
                self.stdout.write(
                    f"\nThe site: {portal.url}   The admin: {portal.url}/admin/\n"
                    + "".join(
                        f"  {who}: {email}  {word}\n" for who, (email, word) in story.cast.items()
                    )
                    + f"Its files: {portal.data}\nCtrl-C ends it."
                )
                portal.wait()
        except KeyboardInterrupt:
            self.stdout.write("\nEnded.")
        finally:
            portal.stop()
            shutil.rmtree(folder, ignore_errors=True)
