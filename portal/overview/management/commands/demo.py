import shutil
import signal
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
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        folder = Path(tempfile.mkdtemp(prefix="weighbridge-demo-"))
        portal = Portal(folder / "portal")
        story = Story(portal, folder, say=self._say)
        kept = told = False
        try:
            story.tell()
            told = True
            if keep:
                self._say(
                    f"\nThe site: {portal.url}   The admin: {portal.url}/admin/\n"
                    + "".join(
                        f"  {who}: {email}  {word}\n" for who, (email, word) in story.cast.items()
                    )
                    + f"Its files: {portal.data}\nCtrl-C ends it."
                )
                portal.wait()
        except (StoryError, LookupError, OSError, RuntimeError) as error:
            self.stderr.write(f"✗ {error}\nThe portal's files and logs: {portal.data}")
            kept = True
            sys.exit(1)
        except KeyboardInterrupt:
            self._say("\nEnded.")
            if not told:
                sys.exit(128 + signal.SIGINT)
        finally:
            portal.stop()
            if not kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()  # who redirects it to a file still wants to see how far it is
