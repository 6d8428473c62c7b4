"""The one policy: may this person have the bytes of this checkpoint at this moment?

`decide` answers for one checkpoint and says why; `downloadable_by` answers for all, as a queryset.
A property test shows that the two agree. Neither looks at `is_staff` or `is_superuser`.
"""

from dataclasses import dataclass
from datetime import datetime

from allauth.account.models import EmailAddress
from django.conf import settings
from django.db.models import Exists, OuterRef, QuerySet, Subquery
from django.db.models.functions import Lower
from django.urls import reverse

from portal.access.models import Acceptance, AccessRequest, Grant, GrantQuerySet
from portal.accounts.models import User
from portal.catalog.models import Checkpoint, Terms


@dataclass(frozen=True, slots=True)
class Answer:
    """What the policy says: the grant in force, or the reason why there is none.

    ``way`` is the path of the page where the person can mend it, if there is one.
    """

    grant: Grant | None
    reason: str
    way: str = ""

    @property
    def allowed(self) -> bool:
        return self.grant is not None


def grants_in_force(at: datetime) -> GrantQuerySet:
    """Grants that open their checkpoint at ``at``: active, of an active person with a confirmed
    address who accepted the terms of the grant, and newer ones whose date has come."""
    accepted = Acceptance.objects.filter(
        user=OuterRef("grantee"), terms=OuterRef("terms"), at__lte=at
    )
    confirmed = EmailAddress.objects.annotate(lower=Lower("email")).filter(
        user=OuterRef("grantee"), lower=Lower(OuterRef("grantee__email")), verified=True
    )
    return Grant.objects.active(at).filter(
        Exists(accepted), Exists(confirmed), ~Exists(_unaccepted(at)), grantee__is_active=True
    )


def _unaccepted(at: datetime, *, due_by: datetime | None = None) -> QuerySet[Terms]:
    """Newer versions of a grant's terms with a date, up to ``due_by`` (else ``at``), of which its
    holder has accepted neither that nor a later one at ``at``; to be used under a grant."""
    accepted = Acceptance.objects.filter(
        user=OuterRef(OuterRef("grantee")),
        terms__family=OuterRef("family"),
        terms__version__gte=OuterRef("version"),
        at__lte=at,
    )
    return Terms.objects.filter(
        ~Exists(accepted),
        family=OuterRef("terms__family"),
        version__gt=OuterRef("terms__version"),
        accept_by__lte=due_by or at,
    )


def opens_until(grant: Grant, at: datetime) -> datetime:
    """Return when ``grant``, in force at ``at``, stops opening its checkpoint if nothing is done:
    when it ends, or rests for newer terms."""
    first = _unaccepted(at, due_by=grant.expires_at).order_by("accept_by").values("accept_by")[:1]
    rests = Grant.objects.filter(pk=grant.pk).values_list(Subquery(first), flat=True).first()
    return min(grant.expires_at, rests) if rests else grant.expires_at


def downloadable_by(user: User, at: datetime) -> QuerySet[Checkpoint]:
    """Checkpoints whose bytes ``user`` may have at ``at``: the twin of `decide`."""
    return Checkpoint.objects.filter(
        Exists(grants_in_force(at).filter(grantee=user.pk, checkpoint=OuterRef("pk")))
    )


def decide(user: User, checkpoint: Checkpoint, at: datetime) -> Answer:
    """Say whether ``user`` may have the bytes of ``checkpoint`` at ``at``, by which grant or why not.

    Of several grants in force the one that ends last is named.
    """
    if not user.is_authenticated:
        return Answer(None, "Sign in first.")
    of_user = Grant.objects.filter(grantee=user.pk, checkpoint=checkpoint)
    in_force = (
        grants_in_force(at)
        .filter(grantee=user.pk, checkpoint=checkpoint)
        .select_related("checkpoint__family", "grantee", "terms")
        .order_by("-expires_at", "pk")
        .first()
    )
    if in_force:
        return Answer(in_force, "")
    return _why_not(user, checkpoint, of_user, at)


def decide_for_grant(grant_id: int, at: datetime) -> Answer:
    """Say whether the grant with this id opens its checkpoint at ``at``; else why not."""
    in_force = (
        grants_in_force(at)
        .filter(pk=grant_id)
        .select_related("checkpoint__family", "grantee", "terms")
        .first()
    )
    if in_force:
        return Answer(in_force, "")
    grant = (
        Grant.objects.filter(pk=grant_id).select_related("grantee", "checkpoint__family").first()
    )
    if grant is None:
        return Answer(None, "There is no such grant.")
    of_user = Grant.objects.filter(pk=grant_id)
    return _why_not(grant.grantee, grant.checkpoint, of_user, at)


def _why_not(user: User, checkpoint: Checkpoint, grants: GrantQuerySet, at: datetime) -> Answer:
    """Return the answer that says why nothing is in force, and the way back."""
    resting = grants.active(at).filter(Exists(_unaccepted(at))).first()
    if user.is_active and resting:
        path = reverse("terms", args=[checkpoint.family.slug])
        reason = (
            "The grant rests: its terms have a newer version that you have not accepted. "
            f"Accept it at {settings.PUBLIC_URL}{path} and it goes on."
        )
        return Answer(None, reason, path)
    return Answer(None, _reason(user, checkpoint, grants, at))


def _reason(user: User, checkpoint: Checkpoint, grants: GrantQuerySet, at: datetime) -> str:
    """Return the sentence that says why nothing is in force, and the way back."""
    if not user.is_active:
        return "This account is closed; write to the operators."
    last = grants.order_by("-expires_at").first()
    if last is None:
        waiting = AccessRequest.objects.waiting().filter(applicant=user, checkpoints=checkpoint)
        if waiting.exists():
            return "Your request waits for a reviewer; you will have a mail when it is decided."
        return f"You have no grant for {checkpoint}: apply on the page of its family."
    if last.revoked_at and last.revoked_at <= at:
        return f"The grant was revoked: {last.revoke_reason} You may answer the reviewers by mail."
    if last.starts_at > at:
        return f"The grant begins on {last.starts_at:%d %B %Y, %H:%M} UTC."
    if last.expires_at <= at:
        return f"The grant ended on {last.expires_at:%d %B %Y, %H:%M} UTC: apply again to renew it."
    if not grants.active(at).filter(terms__acceptances__user=user).exists():
        return "No acceptance of the terms of this grant is on record: apply again to accept them."
    return "Your e-mail address is not confirmed: confirm it in your account."
