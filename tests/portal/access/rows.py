"""Rows for tests that commit for real."""

from django.utils.timezone import now

from portal.access import applications
from portal.catalog.models import Checkpoint
from portal.catalog.publishing import make_family
from tests.conftest import ANSWERS


def checkpoint_row(name="7b"):
    """Make a checkpoint without files."""
    return Checkpoint.objects.create(
        family=make_family("llama", at=now()),
        variant=name,
        version="1",
        statement_sha256="0" * 64,
        signed_by="0" * 64,
        published_at=now(),
        published_by="command:publish",
    )


def submitted_request(user, checkpoint):
    """Apply for ``checkpoint`` and submit."""
    at = now()
    request = applications.begin(user, checkpoint.family, at=at)
    applications.save(request, answers=ANSWERS, checkpoints=[checkpoint], at=at)
    applications.submit(request, terms=checkpoint.family.terms, at=at, address=None, agent="")
    return request
