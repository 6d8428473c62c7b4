import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

LARGEST_PORT = 65535
# Method and path, status, bytes, seconds; never the query, where signatures are.
LOG_FORMAT = "%(t)s %(h)s %(m)s %(U)s %(s)s %(B)s %(L)s"


class Command(BaseCommand):
    help = "Run the site, with the server that production uses."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--host", default="127.0.0.1")

    def handle(self, *args: Any, host: str, port: int, **options: Any) -> None:
        if not 0 < port <= LARGEST_PORT:
            raise CommandError(f"--port {port}: say 1 to {LARGEST_PORT}.")
        self.stdout.write(f"The site is at http://{host}:{port}/ (Ctrl-C ends it).")
        self.stdout.flush()
        os.chdir(settings.BASE_DIR)
        command = [sys.executable, "-m", "gunicorn", "portal.wsgi", "--bind", f"{host}:{port}"]
        command += ["-k", "gthread", "--workers", "1", "--threads", "16", "--keep-alive", "15"]
        command += ["--timeout", "60", "--graceful-timeout", "30", "--no-control-socket"]
        command += ["--log-level", "warning", "--access-logfile", "-"]
        command += ["--access-logformat", LOG_FORMAT]
        os.execv(sys.executable, command)
