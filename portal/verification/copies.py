"""Where the files of a check lie, and when they go.

    DATA/copies/<check>/files/           what was uploaded
    DATA/copies/<check>/<owner>/files/   what the worker that owns the check fetched
    DATA/copies/<check>/<owner>/scratch/ its report and temporary files

A worker writes only where its own mark stands, so one that lost its lease disturbs no other.
"""

import shutil
import time
import uuid
from pathlib import Path

from django.conf import settings

from portal.verification.models import Verification

OLD = 3600  # seconds after which a folder without a waiting check is nobody's


def folder_of(check_id: uuid.UUID) -> Path:
    """Return the folder of all that is kept for a check."""
    return Path(settings.DATA) / "copies" / str(check_id)


def folder_of_owner(check: Verification, owner: uuid.UUID) -> Path:
    """Return the folder in which one worker runs one check."""
    return folder_of(check.pk) / str(owner)


def files_of(check: Verification, owner: uuid.UUID) -> Path:
    """Return where the files that ``owner`` has to check lie."""
    if check.source == Verification.Source.FOLDER:
        return Path(settings.DROP_FOLDER) / check.what[0]
    if check.source == Verification.Source.UPLOAD:
        return folder_of(check.pk) / "files"
    return folder_of_owner(check, owner) / "files"


def remove_what_others_left(check: Verification, owner: uuid.UUID) -> None:
    """Remove what earlier owners of the check, killed or too slow, had written."""
    if folder_of(check.pk).is_dir():
        for folder in folder_of(check.pk).iterdir():
            if folder.name not in ("files", str(owner)):
                shutil.rmtree(folder, ignore_errors=True)


def remove(check_id: uuid.UUID) -> None:
    """Remove all that is kept for a check."""
    shutil.rmtree(folder_of(check_id), ignore_errors=True)


def sweep() -> None:
    """Remove folders whose check is over or was never written down (its process was killed)."""
    root = Path(settings.DATA) / "copies"
    if not root.is_dir():
        return
    waiting = {
        str(pk)
        for pk in Verification.objects.filter(
            status__in=(Verification.Status.QUEUED, Verification.Status.RUNNING)
        ).values_list("pk", flat=True)
    }
    for folder in root.iterdir():
        try:
            age = time.time() - folder.stat().st_mtime
        except FileNotFoundError:
            continue
        if folder.name not in waiting and age > OLD:
            shutil.rmtree(folder, ignore_errors=True)
