"""Find people, make them known, and say whether their address is confirmed."""

from datetime import datetime

from allauth.account.models import EmailAddress
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.http import HttpRequest

from portal.accounts import evidence
from portal.accounts.evidence import By
from portal.accounts.models import User
from portal.audit.chain import record


def signed_in(request: HttpRequest) -> User:
    """Return the person who asks, on pages that only signed-in people reach."""
    assert isinstance(request.user, User)
    return request.user


class PersonError(Exception):
    """A person cannot be made or found; the message says what to change."""


def has_confirmed_address(user: User) -> bool:
    """Whether ``user`` has shown that mail to their address reaches them."""
    return EmailAddress.objects.filter(user=user, email__iexact=user.email, verified=True).exists()


@transaction.atomic
def confirm_address(
    user: User, address: str, *, source: str, by: str, asserted_by: By, at: datetime
) -> None:
    """Write down that ``address`` is ``user``'s, by what evidence, and what its domain says.

    ``by`` is the audit's id of who brought the evidence, ``asserted_by`` who vouches for it.
    """
    evidence.add(
        user,
        evidence.Kind.EMAIL,
        address,
        source=source,
        by=asserted_by,
        brought_by=by,
        at=at,
    )
    record("address.confirmed", subject=user.actor, actor=by, at=at, source=source)
    evidence.add_domain(user, address, brought_by=by, at=at)


@transaction.atomic
def describe(user: User, *, name: str, affiliation: str, at: datetime) -> None:
    """Keep who ``user`` says they are, as their own word."""
    User.objects.filter(pk=user.pk).update(name=name)
    evidence.add(
        user,
        evidence.Kind.AFFILIATION,
        affiliation,
        source="the person's own word",
        by=By.SELF,
        brought_by=user.actor,
        at=at,
        expires_at=at + evidence.LASTS,
    )


@transaction.atomic
def find_or_make(email: str, *, by: str, at: datetime) -> User:
    """Return the person with this address, made known (address attested, no password) if new.

    Raises:
        PersonError: ``email`` is no e-mail address.
    """
    try:
        validate_email(email)
    except ValidationError:
        raise PersonError(f"{email!r} is not an e-mail address.") from None
    known = User.objects.filter(email__iexact=email).first()
    if known:
        return known
    user = User.objects.create_user(email)
    EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
    record("user.made", subject=user.actor, actor=by, at=at)
    confirm_address(
        user, user.email, source="attested by an operator", by=by, asserted_by=By.DAC, at=at
    )
    return user
