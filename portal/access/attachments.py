"""The files of an application: kept in the store, never under a public address.

attachments/<request>/<random>      one object each, written once
"""

import hashlib
import secrets
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import BinaryIO, cast

from django.core.files.uploadedfile import SimpleUploadedFile, UploadedFile
from django.db import transaction
from django.db.models import Sum

from portal.access.file_types import FileTypeError, media_type_of, safe_name
from portal.access.models import AccessRequest, Attachment
from portal.access.questions import Question
from portal.access.questions.schema import LARGEST_FILE
from portal.accounts.models import User
from portal.audit.chain import record
from portal.storage.stores import StoreError, store

MB = 1_000_000
DEFAULT_SIZE, PER_REQUEST, PER_PERSON = 5 * MB, 25 * MB, 100 * MB


class AttachmentError(Exception):
    """The file is not taken; the message says why and what to do."""


def attached_to(request: AccessRequest) -> dict[str, list[Attachment]]:
    """Return the files of a request by the id of their question, the oldest first."""
    by_question: dict[str, list[Attachment]] = defaultdict(list)
    for one in request.attachments.filter(removed_at=None).order_by("pk"):
        by_question[one.question].append(one)
    return dict(by_question)


@transaction.atomic
def attach(
    request: AccessRequest, question: Question, file: UploadedFile, *, at: datetime
) -> Attachment:
    """Keep ``file`` as an answer to ``question``.

    Raises:
        AttachmentError: the request cannot be changed, or the file is too large, one too many, or
            not of a type that is asked for.
        StoreError: the store cannot take it.
    """
    locked = AccessRequest.objects.select_for_update()
    if not locked.filter(pk=request.pk, status__in=AccessRequest.EDITABLE).exists():
        raise AttachmentError("This request has been submitted; the file was not added.")
    name = safe_name(file.name or "")
    _check_room(request, question, name, file.size or 0)
    stream = cast(BinaryIO, file.file)
    try:
        media_type = media_type_of(name, stream, question.get("extensions", ["pdf"]))
    except FileTypeError as error:
        raise AttachmentError(str(error)) from None
    stream.seek(0)
    content = stream.read()
    key = f"attachments/{request.pk}/{secrets.token_hex(16)}"
    made = Attachment.objects.create(
        request=request,
        question=question["id"],
        name=name,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        media_type=media_type,
        store_key=key,
        added_at=at,
    )
    record(
        "attachment.added",
        subject=request.subject,
        actor=request.applicant.actor,
        at=at,
        attachment=made.pk,
        sha256=made.sha256,
    )
    store().put_bytes(key, content)
    return made


def attach_again(
    request: AccessRequest, question: Question, file: Attachment, *, at: datetime
) -> None:
    """Attach a copy of ``file`` to another request of the same person, if it is taken there."""
    try:
        with store().open(file.store_key) as stored:
            content = stored.read(LARGEST_FILE)
        attach(request, question, SimpleUploadedFile(file.name, content), at=at)
    except (AttachmentError, StoreError):
        return  # the form asks for other files now, or this one is gone: its page asks for one


def _check_room(request: AccessRequest, question: Question, name: str, size: int) -> None:
    """Raise AttachmentError where one more file, of this size, is not taken."""
    limit = question.get("max_size", DEFAULT_SIZE)
    if not size:
        raise AttachmentError(f"“{name}” is empty; choose another file.")
    if size > limit:
        raise AttachmentError(
            f"“{name}” has {size / MB:.1f} MB; at most {limit / MB:g} MB are taken here."
        )
    current = request.attachments.filter(removed_at=None)
    most = question.get("max_files", 1)
    if current.filter(question=question["id"]).count() >= most:
        raise AttachmentError(
            f"At most {most} file{'s are' if most > 1 else ' is'} taken here; remove one first."
        )
    if (current.aggregate(all=Sum("size"))["all"] or 0) + size > PER_REQUEST:
        raise AttachmentError(
            f"The files of one request may have {PER_REQUEST / MB:g} MB together; remove one first."
        )
    of_person = Attachment.objects.filter(request__applicant=request.applicant_id)
    if (of_person.aggregate(all=Sum("size"))["all"] or 0) + size > PER_PERSON:
        raise AttachmentError(
            f"Your requests hold {PER_PERSON / MB:g} MB of files, the most that one person may; "
            "delete a draft, or write to the operators."
        )


@transaction.atomic
def remove(attachment: Attachment, *, at: datetime) -> None:
    """Take a file back. What a reviewer may have seen stays on record; the rest is deleted.

    Raises:
        AttachmentError: the request cannot be changed.
    """
    request = attachment.request
    locked = AccessRequest.objects.select_for_update()
    current = locked.filter(pk=request.pk, status__in=AccessRequest.EDITABLE).first()
    if current is None:
        raise AttachmentError("This request has been submitted; the file was not removed.")
    record(
        "attachment.removed",
        subject=request.subject,
        actor=request.applicant.actor,
        at=at,
        attachment=attachment.pk,
    )
    take_back([attachment], since=current.submitted_at, at=at)


def take_back(files: Iterable[Attachment], *, since: datetime | None, at: datetime) -> None:
    """Mark files that reviewers could see, being sent at ``since`` or before, as removed; delete
    the others, their bytes after the commit."""
    for file in files:
        if since and file.added_at <= since:
            Attachment.objects.filter(pk=file.pk).update(removed_at=at)
        else:
            key = file.store_key
            Attachment.objects.filter(pk=file.pk).delete()
            transaction.on_commit(partial(store().delete, key))


def note_reading(attachment: Attachment, *, by: User, at: datetime) -> None:
    """Write down that a reviewer opens the file."""
    with transaction.atomic():
        record(
            "attachment.read",
            subject=attachment.request.subject,
            actor=by.actor,
            at=at,
            attachment=attachment.pk,
        )
