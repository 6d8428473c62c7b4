"""How we know who somebody is: rows are added when something is asserted, and judged when asked.

A row counts as long as what it rests on stands: an address or an account elsewhere that its person
has taken away since is evidence no more, though the row stays.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.db import transaction
from django.db.models import Q
from django.utils.timezone import now

from portal.accounts import domains
from portal.accounts.models import DomainEntry, IdentityEvidence, Referral, User
from portal.audit.chain import record

Kind = IdentityEvidence.Kind
By = IdentityEvidence.By
# What a service elsewhere said is asked again by signing in there; a referee's word is as old.
LASTS = timedelta(days=365)
AGAIN_AFTER = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Known:
    """One thing known of a person: the five facts of an assertion, after GA4GH's visas.

    ``by`` is one of `self, peer, system, so, dac`. ``words`` are a referee's.
    """

    kind: str
    label: str
    value: str
    source: str
    by: str
    by_label: str
    asserted_at: datetime
    expires_at: datetime | None
    note: str = ""
    words: str = ""


@transaction.atomic
def add(
    user: User,
    kind: Kind,
    value: str,
    *,
    source: str,
    by: By,
    brought_by: str,
    at: datetime,
    expires_at: datetime | None = None,
    note: str = "",
) -> IdentityEvidence:
    """Write down one thing that is known of ``user``; the same again within a month is the same row."""
    known = (
        user.evidence.filter(kind=kind, value=value[:300], source=source[:300])
        .in_force(at)
        .filter(asserted_at__gt=at - AGAIN_AFTER, note=note[:300])
        .first()
    )
    if known:
        return known
    made = IdentityEvidence.objects.create(
        user=user,
        kind=kind,
        value=value[:300],
        source=source[:300],
        by=by,
        brought_by=brought_by,
        asserted_at=at,
        expires_at=expires_at,
        note=note[:300],
    )
    record("evidence.added", subject=user.actor, actor=brought_by, at=at, kind=kind, by=by)
    return made


def add_domain(user: User, address: str, *, brought_by: str, at: datetime) -> None:
    """Write down that a confirmed address of ``user``'s is of an institution, if a list says so."""
    standing = domains.standing_of(address)
    if standing and standing.standing == DomainEntry.Standing.INSTITUTION:
        add(
            user,
            Kind.INSTITUTION,
            standing.domain,
            source=standing.entry,
            by=By.SYSTEM,
            brought_by=brought_by,
            at=at,
        )


def apply_entry(entry: DomainEntry, *, brought_by: str, at: datetime) -> None:
    """Write down of everybody with a confirmed address there what a new entry says."""
    there = Q(email__iendswith=f"@{entry.domain}") | Q(email__iendswith=f".{entry.domain}")
    confirmed = EmailAddress.objects.filter(there, verified=True).select_related("user")
    for address in confirmed.iterator(chunk_size=500):
        add_domain(address.user, address.email, brought_by=brought_by, at=at)


def of(user: User, *, at: datetime | None = None, for_reviewer: bool = False) -> list[Known]:
    """Return what is known of ``user`` at ``at``, the newest of each kind and value.

    A reviewer is shown more: that an address is of a free mail service or a denied domain, what
    referees wrote, and that one could not confirm.
    """
    at = at or now()
    rows = _standing_rows(user, at)
    referrals = list(user.referrals.exclude(answered_at=None))
    words = {r.evidence_id: r for r in referrals if for_reviewer or r.words_open}
    known = [
        Known(
            kind=row.kind,
            label=row.get_kind_display(),
            value=row.value,
            source=row.source,
            by=row.by,
            by_label=row.get_by_display(),
            asserted_at=row.asserted_at,
            expires_at=row.expires_at,
            note=row.note,
            words=words[row.pk].words if row.pk in words else "",
        )
        for row in rows
    ]
    if for_reviewer:
        known += _doubts(user, referrals)
    return known


def _standing_rows(user: User, at: datetime) -> list[IdentityEvidence]:
    """Return the rows that count, the newest of each kind and value, the oldest kind first."""
    addresses = EmailAddress.objects.filter(user=user, verified=True).values_list(
        "email", flat=True
    )
    confirmed = {address.lower() for address in addresses}
    institutions = {
        found.domain
        for found in map(domains.standing_of, confirmed)
        if found and found.standing == DomainEntry.Standing.INSTITUTION
    }
    accounts = set(SocialAccount.objects.filter(user=user).values_list("uid", flat=True))
    rests_on = {
        Kind.EMAIL: lambda row: row.value.lower() in confirmed,
        Kind.INSTITUTION: lambda row: row.value in institutions,
        Kind.ORCID: lambda row: row.value in accounts,
        Kind.OPENID: lambda row: row.value in accounts,
    }
    newest: dict[tuple[str, str], IdentityEvidence] = {}
    for row in user.evidence.in_force(at).order_by("asserted_at"):
        if rests_on.get(Kind(row.kind), lambda row: True)(row):
            # of what people say of themselves only the last counts
            newest[row.kind, "" if row.kind == Kind.AFFILIATION else row.value] = row
    return list(newest.values())


def _doubts(user: User, referrals: list[Referral]) -> list[Known]:
    """Return what speaks against a person, for reviewers."""
    doubts = []
    for address in EmailAddress.objects.filter(user=user, verified=True):
        standing = domains.standing_of(address.email)
        if standing and standing.standing != DomainEntry.Standing.INSTITUTION:
            doubts.append(
                Known(
                    kind=f"domain-{standing.standing}",
                    label=DomainEntry.Standing(standing.standing).label,
                    value=address.email,
                    source=standing.entry,
                    by=By.SYSTEM,
                    by_label=By.SYSTEM.label,
                    asserted_at=user.joined_at,
                    expires_at=None,
                )
            )
    for referral in referrals:
        if referral.confirmed is False and referral.answered_at:
            doubts.append(
                Known(
                    kind="referee-declined",
                    label="a referee could not confirm",
                    value=f"{referral.name} <{referral.address}>",
                    source=referral.get_relation_display(),
                    by=referral.by,
                    by_label=By(referral.by).label,
                    asserted_at=referral.answered_at,
                    expires_at=None,
                    words=referral.words,
                )
            )
    return doubts
