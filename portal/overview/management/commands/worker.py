import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Run the Celery worker: checks of copies, mail that is due, the audit's noted heads."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--processes", type=int, default=2, help="checks at the same time")
        parser.add_argument(
            "--queues",
            default="default",
            help="what it takes up: default; gpu on the machine that has one (WEIGHBRIDGE_GPU_WORKER)",
        )

    def handle(self, *args: Any, processes: int, queues: str, **options: Any) -> None:
        queue = settings.DATA / "queue"
        for folder in ("messages", "control"):
            (queue / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chdir(settings.BASE_DIR)
        # in a container root is who there is; what runs strangers' files is the verifier, bounded
        quiet = ["-W", "ignore:You're running the worker with superuser"]
        command = [sys.executable, *quiet, "-m", "celery", "--quiet", "-A", "portal.celery"]
        command += ["worker", "--queues", queues]
        command += ["-B"] if "default" in queues.split(",") else []  # one clock is enough
        command += ["-P", "prefork", "-c", str(processes), "--without-gossip", "--without-mingle"]
        command += ["--schedule", str(queue / "beat"), "--loglevel", "WARNING"]
        os.execv(sys.executable, command)
