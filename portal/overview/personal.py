"""A person's own data: all of it given to them, or taken away; each app answers for its part.

What stays after a deletion is what the audit must keep: that somebody, by an opaque id, asked, was
decided about, was granted, downloaded. Who that was is nowhere any more.
"""

import json
import shutil
import tempfile
import zipfile
from datetime import datetime
from typing import IO, Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction

from portal.access import personal as access
from portal.accounts import personal as accounts
from portal.accounts.models import User
from portal.audit import personal as audit
from portal.audit.chain import record
from portal.delivery import personal as delivery
from portal.outbox import personal as outbox
from portal.outbox.sending import post
from portal.verification import personal as verification

SCHEMA = "weighbridge.personal/1"
IN_MEMORY = 8 * 1024 * 1024


class DeletionError(Exception):
    """The account cannot be deleted; the message says why and what to do first."""


def everything_of(user: User, *, at: datetime) -> dict[str, Any]:
    """Return all that this portal keeps of ``user``."""
    return {
        "schema": SCHEMA,
        "made_at": at,
        **accounts.export(user),
        "access": access.export(user),
        "downloads": delivery.export(user),
        "verifications": verification.export(user),
        "mails": outbox.export(user),
        "audit": audit.export(user.actor),
    }


def export(user: User, *, at: datetime) -> IO[bytes]:
    """Return a zip with `weighbridge.json`, everything that this portal keeps of ``user``, and their
    files."""
    with transaction.atomic():
        record("data.exported", subject=user.actor, actor=user.actor, at=at)
        told = everything_of(user, at=at)
    file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - the response closes it
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        text = json.dumps(told, cls=DjangoJSONEncoder, indent=1, ensure_ascii=False)
        archive.writestr("weighbridge.json", text)
        for name, content in access.files(user):
            with archive.open(name, "w") as entry:
                shutil.copyfileobj(content, entry)
    file.seek(0)
    return file


@transaction.atomic
def delete(user: User, *, at: datetime) -> None:
    """Delete the account of ``user``, at their own wish, and tell their address so, a last time.

    Raises:
        DeletionError: nobody else could run this portal.
    """
    others = User.objects.filter(is_superuser=True, is_active=True).exclude(pk=user.pk)
    if user.is_superuser and not others.exists():
        raise DeletionError("You are the only operator of this portal; make another one first.")
    by, address = user.actor, user.email
    access.erase(user, by=by, at=at)
    delivery.erase(user)
    verification.erase(user)
    outbox.erase(user)
    accounts.erase(user, by=by, at=at)
    record("account.deleted", subject=by, actor=by, at=at)
    post(
        user,
        address=address,
        kind="account.deleted",
        about=by,
        subject="Your account is deleted",
        body=(
            "Your account here is deleted, as you asked. Your grants have ended and your tokens open "
            "nothing. What we must keep, that somebody was granted access and downloaded, names "
            "nobody any more. This is our last mail to you.\n"
        ),
        private=True,
        at=at,
    )
