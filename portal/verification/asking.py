"""Ask for the check of a copy: a folder under the drop folder, a list of addresses, or an upload."""

import re
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.db.models import Sum

from portal.accounts.models import User
from portal.accounts.people import has_confirmed_address
from portal.audit.chain import record
from portal.catalog.models import Checkpoint
from portal.verification.copies import folder_of, remove
from portal.verification.models import Verification, VerificationQuerySet
from portal.verification.tasks import wake

MOST_FILES = 200
LONGEST_URL = 4000
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
Source = Verification.Source


class AskError(Exception):
    """The check cannot be asked for; the message says why and what to do."""


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
    urls = [url.strip() for url in urls if url.strip()]
    if not 0 < len(urls) <= MOST_FILES:
        raise AskError(f"Give 1 to {MOST_FILES} addresses, one a line.")
    _check_distinct([file_name(_path_of(url)) for url in urls])
    return _ask(user, Source.URLS, urls, checkpoint, at)


def ask_upload(
    user: User, files: Sequence[UploadedFile], checkpoint: Checkpoint | None, *, at: datetime
) -> Verification:
    """Ask for a check of uploaded files.

    Raises:
        AskError: ``user`` may not now, or the files are too many, too large or misnamed.
    """
    if not 0 < len(files) <= MOST_FILES:
        raise AskError(f"Choose 1 to {MOST_FILES} files.")
    size = sum(file.size or 0 for file in files)
    _check_allowance(user, at, size)  # and again when the row is written, among others' requests
    names = [file_name(file.name or "") for file in files]
    _check_distinct(names)
    check_id = uuid.uuid4()
    folder = folder_of(check_id) / "files"
    try:
        folder.mkdir(mode=0o700, parents=True)
        for name, file in zip(names, files, strict=True):
            with (folder / name).open("xb") as target:
                for piece in file.chunks(1 << 20):
                    target.write(piece)
        return _ask(user, Source.UPLOAD, names, checkpoint, at, size=size, check_id=check_id)
    except OSError as error:
        remove(check_id)
        raise AskError(f"The upload could not be kept ({error.strerror}).") from error
    except BaseException:
        remove(check_id)
        raise


def _path_of(url: str) -> str:
    """Return the path of an address that can be fetched.

    Raises:
        AskError: it is no http or https address, or it carries a password.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or len(url) > LONGEST_URL:
        raise AskError(f"{url[:100]!r} is not an http or https address.")
    if parts.username or parts.password:
        raise AskError(f"The address at {parts.hostname} carries a user name; leave it out.")
    return parts.path


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


def bytes_left(user: User, at: datetime, *, besides: uuid.UUID | None = None) -> int:
    """Return how many bytes ``user`` may still have checked at ``at``, not counting one check."""
    others = _of_today(user, at)
    if besides:
        others = others.exclude(pk=besides)
    used: int = others.aggregate(sum=Sum("bytes_total"))["sum"] or 0
    return max(0, int(settings.CHECK_BYTES_PER_DAY) - used)


def _of_today(user: User, at: datetime) -> VerificationQuerySet:
    """Return what ``user`` sent or had fetched in 24 hours; drop folders are the operators'.

    Challenges have a count of their own.
    """
    return Verification.objects.filter(
        asked_by=user, created_at__gt=at - timedelta(days=1)
    ).exclude(source__in=(Source.FOLDER, Source.CHALLENGE))


def _check_allowance(user: User, at: datetime, size: int) -> None:
    """Check that ``user`` may ask for one more check, of ``size`` bytes as far as is known.

    Raises:
        AskError: their address is not confirmed, or today's checks or bytes are used up.
    """
    if not has_confirmed_address(user):
        raise AskError("Confirm your e-mail address first.")
    if _of_today(user, at).count() >= settings.CHECKS_PER_DAY:
        raise AskError(f"You have asked for {settings.CHECKS_PER_DAY} checks in 24 hours; wait.")
    left = bytes_left(user, at)
    if not left:
        raise AskError("The bytes that you may have checked in 24 hours are used up; wait.")
    if size > left:
        raise AskError(f"These files have {size:,} bytes; {left:,} are left for you today.")


@transaction.atomic
def _ask(
    user: User,
    source: Verification.Source,
    what: Sequence[str],
    checkpoint: Checkpoint | None,
    at: datetime,
    *,
    size: int = 0,
    check_id: uuid.UUID | None = None,
) -> Verification:
    if source != Source.FOLDER:
        User.objects.select_for_update().get(pk=user.pk)  # requests of one person, one by one
        _check_allowance(user, at, size)
    check = Verification.objects.create(
        id=check_id or uuid.uuid4(),
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
