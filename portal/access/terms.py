"""Publish a version of a family's terms, ask the holders of grants, and take their acceptance.

A grant whose terms have a newer version with a date goes on until that date. From then on it
*rests*: nothing is handed over, nothing has ended, and it goes on when its holder accepts.
`policy.py` computes all of that from the acceptances on record.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.urls import reverse

from portal.access.applications import accept
from portal.access.models import Acceptance, Grant
from portal.accounts.models import User
from portal.audit.chain import record
from portal.catalog.models import Family, Terms
from portal.catalog.publishing import add_terms
from portal.outbox.sending import post

LONGEST = 100_000  # characters
AROUND = 2  # unchanged lines shown on either side of a change


class TermsError(Exception):
    """The terms are not published or accepted; the message says why and what to do."""


def holders(family: Family, at: datetime) -> list[User]:
    """Return the people with a grant of ``family`` that has not ended at ``at``."""
    grants = Grant.objects.filter(
        checkpoint__family=family, revoked_at=None, expires_at__gt=at, grantee__is_active=True
    )
    return list(User.objects.filter(pk__in=grants.values("grantee")).order_by("pk"))


def page_of(family: Family) -> str:
    """Return the path of the page where terms are read and accepted."""
    return reverse("terms", args=[family.slug])


@transaction.atomic
def publish_terms(
    family: Family, text: str, *, accept_by: datetime | None, by: User, at: datetime
) -> Terms:
    """Publish ``text`` as the next version of the terms.

    With ``accept_by`` the holders of grants are asked by mail to accept it; a grant whose holder
    has not rests from then on.

    Raises:
        TermsError: there is no text, it is too long or no other than before, or the date has passed.
    """
    text = text.replace("\r\n", "\n").replace("\0", "").strip() + "\n"
    if not text.strip() or len(text) > LONGEST:
        raise TermsError(f"Terms are text of 1 to {LONGEST:,} characters.")
    Family.objects.select_for_update().get(pk=family.pk)  # one version at a time
    if family.terms.text.strip() == text.strip():
        raise TermsError("These are the words of the version before; nothing was published.")
    if accept_by and accept_by <= at:
        raise TermsError("The date by which to accept has passed; choose a later one.")
    made = add_terms(family, text, at=at, accept_by=accept_by)
    record(
        "terms.published",
        subject=f"terms:{family.slug}:{made.version}",
        actor=by.actor,
        at=at,
        sha256=made.sha256,
        accept_by=accept_by.isoformat() if accept_by else None,
    )
    for holder in holders(family, at) if accept_by else []:
        post(
            holder,
            kind="terms.changed",
            about=f"terms:{family.slug}:{made.version}",
            subject=f"The terms of {family} have changed: accept them by {accept_by:%d %B %Y}",
            body=(
                f"Version {made.version} of the terms of {family} is published. "
                f"Read what changed, and accept it, here:\n{settings.PUBLIC_URL}{page_of(family)}\n\n"
                f"Until {accept_by:%d %B %Y, %H:%M} UTC your access goes on as it is. After that it "
                "rests until you accept; it does not end.\n"
            ),
            at=at,
        )
    return made


@transaction.atomic
def accept_newest(
    user: User, family: Family, version: int, *, at: datetime, address: str | None, agent: str
) -> Acceptance:
    """Write down that ``user`` accepts ``version``, which they read, if it is the newest.

    Raises:
        TermsError: a newer version was published meanwhile.
    """
    newest = family.terms
    if version != newest.version:
        raise TermsError("The terms have changed since you read them; read the new version.")
    User.objects.select_for_update().get(pk=user.pk)  # two windows, one acceptance
    there = Acceptance.objects.filter(user=user, terms=newest).first()
    return there or accept(user, newest, at=at, address=address, agent=agent)


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody is asked to accept the newest terms of a family; from a date on, or at leisure."""

    family: Family
    terms: Terms

    @property
    def path(self) -> str:
        """The page where this is done."""
        return page_of(self.family)


def asked_of(user: User, at: datetime) -> list[Asked]:
    """Return the families of the person's live grants whose newest terms they have not accepted."""
    families = Family.objects.filter(
        checkpoints__grants__in=Grant.objects.filter(
            grantee=user.pk, revoked_at=None, expires_at__gt=at
        )
    ).distinct()
    newest: dict[int, Terms] = {}
    for terms in Terms.objects.filter(family__in=families).select_related("family"):
        held = newest.get(terms.family_id)
        if held is None or terms.version > held.version:
            newest[terms.family_id] = terms
    accepted = set(
        Acceptance.objects.filter(
            user=user.pk, terms__in=[terms.pk for terms in newest.values()]
        ).values_list("terms_id", flat=True)
    )
    return [Asked(one.family, one) for one in newest.values() if one.pk not in accepted]


@dataclass(frozen=True, slots=True)
class Change:
    """A line of a comparison: ``kind`` is same, added, removed or left-out."""

    kind: str
    text: str


def changes(old: str, new: str) -> Iterator[Change]:
    """Yield the lines in which two texts differ, with some around them."""
    before, after = old.splitlines(), new.splitlines()
    groups = difflib.SequenceMatcher(None, before, after).get_grouped_opcodes(AROUND)
    end = 0
    for group in groups:
        if group[0][1] > end:
            yield Change("left-out", "")
        for tag, old_from, old_to, new_from, new_to in group:
            if tag == "equal":
                yield from (Change("same", line) for line in before[old_from:old_to])
                continue
            yield from (Change("removed", line) for line in before[old_from:old_to])
            yield from (Change("added", line) for line in after[new_from:new_to])
        end = group[-1][2]
    if end < len(before):
        yield Change("left-out", "")
