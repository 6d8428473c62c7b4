"""Ask for the check of a copy: a folder under the drop folder, a list of addresses, or an upload."""

import re
import shutil
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.db.models import Sum

from portal.accounts.models import User
from portal.accounts.people import has_confirmed_address
from portal.audit.chain import record
from portal.catalog.models import Checkpoint
from portal.verification.models import Verification
from portal.verification.tasks import wake

MOST_FILES = 200
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
Source = Verification.Source


class AskError(Exception):
    """The check cannot be asked for; the message says why and what to do."""


def copy_folder(check: Verification) -> Path:
    """Return where the files of ``check`` lie."""
    if check.source == Source.FOLDER:
        return settings.DROP_FOLDER / check.what[0]
    return settings.DATA / "copies" / str(check.pk)


def ask_folder(
    user: User, name: str, checkpoint: Checkpoint | None, *, at: datetime
) -> Verification:
    """Ask for a check of a folder that lies under the drop folder.

    Raises:
        AskError: ``user`` may not, or there is no such folder inside.
    """
    if not user.has_perm("verification.check_drop_folder"):
        raise AskError("Only reviewers check folders of the portal's machine.")
    root = settings.DROP_FOLDER.resolve()
    parts = PurePosixPath(name).parts
    if "\0" in name or not parts or ".." in parts or name.startswith("/"):
        raise AskError("Name a folder inside the drop folder, such as “copy-1”.")
    folder = (root / name).resolve()
    if not folder.is_relative_to(root) or not folder.is_dir():
        raise AskError(f"There is no folder {name!r} inside the drop folder {root}.")
    return _ask(user, Source.FOLDER, [name], checkpoint, at)


def ask_urls(
    user: User, urls: Sequence[str], checkpoint: Checkpoint | None, *, at: datetime
) -> Verification:
    """Ask for a check of files that the worker fetches.

    Raises:
        AskError: ``user`` may not now, or an address cannot be used.
    """
    _check_allowance(user, at)
    urls = [url.strip() for url in urls if url.strip()]
    if not 0 < len(urls) <= MOST_FILES:
        raise AskError(f"Give 1 to {MOST_FILES} addresses, one a line.")
    names = [file_name(urlsplit(url).path) for url in urls]
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise AskError(f"{url[:100]!r} is not an http or https address.")
    _check_distinct(names)
    return _ask(user, Source.URLS, urls, checkpoint, at)


def ask_upload(
    user: User, files: Sequence[UploadedFile], checkpoint: Checkpoint | None, *, at: datetime
) -> Verification:
    """Ask for a check of uploaded files.

    Raises:
        AskError: ``user`` may not now, or the files are too many, too large or misnamed.
    """
    left = _check_allowance(user, at)
    if not 0 < len(files) <= MOST_FILES:
        raise AskError(f"Choose 1 to {MOST_FILES} files.")
    size = sum(file.size or 0 for file in files)
    if size > left:
        raise AskError(f"These files have {size:,} bytes; {left:,} are left for you today.")
    names = [file_name(file.name or "") for file in files]
    _check_distinct(names)
    with transaction.atomic():
        check = _ask(user, Source.UPLOAD, names, checkpoint, at, size=size)
        folder = copy_folder(check)
        folder.mkdir(mode=0o700, parents=True)
        try:
            for name, file in zip(names, files, strict=True):
                with (folder / name).open("xb") as target:
                    for piece in file.chunks(1 << 20):
                        target.write(piece)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise AskError(f"The upload could not be kept ({error.strerror}).") from error
    return check


def file_name(path: str) -> str:
    """Return the last part of ``path`` if it can be a file's name here.

    Raises:
        AskError: it cannot.
    """
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    if not FILE_NAME.fullmatch(name):
        raise AskError(f"{name[:80]!r} cannot be the name of a file of a checkpoint.")
    return name


def _check_distinct(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise AskError(f"Two files are named {name!r}.")
        seen.add(name)


def _check_allowance(user: User, at: datetime) -> int:
    """Return how many bytes are left to ``user`` today.

    Raises:
        AskError: their address is not confirmed, or today's checks are used up.
    """
    if not has_confirmed_address(user):
        raise AskError("Confirm your e-mail address first.")
    today = Verification.objects.filter(asked_by=user, created_at__gt=at - timedelta(days=1))
    if today.count() >= settings.CHECKS_PER_DAY:
        raise AskError(f"You have asked for {settings.CHECKS_PER_DAY} checks in 24 hours; wait.")
    used: int = today.aggregate(sum=Sum("bytes_total"))["sum"] or 0
    left: int = settings.CHECK_BYTES_PER_DAY - used
    if left <= 0:
        raise AskError("The bytes that you may have checked in 24 hours are used up; wait.")
    return left


@transaction.atomic
def _ask(
    user: User,
    source: Verification.Source,
    what: Sequence[str],
    checkpoint: Checkpoint | None,
    at: datetime,
    *,
    size: int = 0,
) -> Verification:
    check = Verification.objects.create(
        asked_by=user,
        checkpoint=checkpoint,
        source=source,
        what=list(what),
        created_at=at,
        woken_at=at,
        bytes_total=size,
    )
    record(
        "verification.asked",
        subject=check.subject,
        actor=user.actor,
        at=at,
        source=source,
        checkpoint=checkpoint.name if checkpoint else None,
    )
    transaction.on_commit(lambda: wake(check.pk))
    return check
