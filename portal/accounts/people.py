"""Find people, make them known, and say whether their address is confirmed."""

from datetime import datetime

from allauth.account.models import EmailAddress
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.http import HttpRequest

from portal.accounts.models import IdentityEvidence, User
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
def confirm_address(user: User, *, source: str, by: str, at: datetime) -> None:
    """Write down that ``user``'s address is confirmed, and by what evidence."""
    IdentityEvidence.objects.create(
        user=user,
        kind=IdentityEvidence.Kind.EMAIL,
        value=user.email,
        source=source,
        by=by,
        asserted_at=at,
    )
    record("address.confirmed", subject=user.actor, actor=by, at=at, source=source)


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
    confirm_address(user, source="attested by an operator", by=by, at=at)
    return user
