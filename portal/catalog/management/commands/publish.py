from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.timezone import now

from portal.catalog.models import CheckpointNameError, Name
from portal.catalog.publishing import PublishError, publish
from portal.storage.stores import StoreError
from verifier import progress


class Command(BaseCommand):
    help = "Hash, sign and store a checkpoint. DIR is only read; what is published never changes."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", metavar="DIR", type=Path)
        parser.add_argument("name", metavar="FAMILY/VARIANT@VERSION")
        parser.add_argument(
            "--with",
            dest="with_files",
            metavar="FILE",
            type=Path,
            action="append",
            default=[],
            help="a file shared by the family, such as tokenizer.model",
        )
        parser.add_argument(
            "--manifest-out",
            metavar="DIR2",
            type=Path,
            help="also write model.sig and .weighbridge/ there",
        )

    def handle(self, *args: Any, folder: Path, name: str, **options: Any) -> None:
        show = progress.choose(as_json=False)
        try:
            done = publish(
                folder,
                Name.parse(name),
                by="command:publish",
                at=now(),
                with_files=options["with_files"],
                manifest_out=options["manifest_out"],
                say=self.stderr.write,
                show=show,
            )
        except (CheckpointNameError, PublishError, StoreError) as error:
            raise CommandError(str(error)) from error
        finally:
            progress.close(show)
        checkpoint = done.checkpoint
        count = checkpoint.shards.weights().count()
        if done.is_new:
            self.stdout.write(f"Published {checkpoint}: {count} files, {checkpoint.size:,} bytes.")
        else:
            self.stdout.write(f"{checkpoint} is published already, with the same bytes.")
