"""Publish a version of a family's form, and find the newest."""

from datetime import datetime
from typing import Any

from django.db import transaction

from portal.access.models import FormVersion
from portal.access.questions.defaults import DEFAULT_QUESTIONS
from portal.accounts.models import User
from portal.audit.chain import record
from portal.catalog.models import Family


def current_form(family: Family, *, at: datetime) -> FormVersion:
    """Return the newest version of the family's form, made with default questions if there is none."""
    newest = FormVersion.objects.filter(family=family).order_by("-version").first()
    if newest:
        return newest
    made, _ = FormVersion.objects.get_or_create(
        family=family, version=1, defaults={"questions": DEFAULT_QUESTIONS, "created_at": at}
    )
    return made


@transaction.atomic
def publish_form(
    family: Family, questions: list[dict[str, Any]], *, by: User, at: datetime
) -> FormVersion:
    """Publish ``questions`` as the next version; applications that are begun from now on answer it.

    Raises:
        FormMistake: the questions have mistakes.
    """
    Family.objects.select_for_update().get(pk=family.pk)  # one version at a time
    last = FormVersion.objects.filter(family=family).order_by("-version").first()
    made = FormVersion(
        family=family, version=last.version + 1 if last else 1, questions=questions, created_at=at
    )
    made.save()
    record(
        "form.published",
        subject=f"form:{family.slug}:{made.version}",
        actor=by.actor,
        at=at,
        questions=len(questions),
    )
    return made
