"""What the accounts hold of a person: given to them, and taken away with the account."""

from datetime import datetime
from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import F, Q

from portal.accounts import referrals, sessions, tokens
from portal.accounts.models import ApiToken, DeviceCode, IdentityEvidence, Referral, User
from portal.outbox.models import Message

REMOVED = "removed with the account"


def export(user: User) -> dict[str, Any]:
    """Return everything that is kept of ``user`` here, secrets and others' words left out."""
    return {
        "account": {
            "id": user.pk,
            "email": user.email,
            "name": user.name,
            "joined_at": user.joined_at,
            "last_login": user.last_login,
            "is_staff": user.is_staff,
            "groups": list(user.groups.values_list("name", flat=True)),
        },
        "addresses": _rows(EmailAddress, user, "email", "verified", "primary"),
        "evidence": _rows(
            IdentityEvidence,
            user,
            *("kind", "value", "source", "by", "note", "asserted_at", "expires_at"),
        ),
        "referees": [
            {
                "name": one.name,
                "address": one.address,
                "relation": one.relation,
                "asked_at": one.asked_at,
                "answered_at": one.answered_at,
                "confirmed": one.confirmed,
                "words": one.words if one.words_open else None,
            }
            for one in Referral.objects.filter(user=user)
        ],
        "elsewhere": _rows(SocialAccount, user, "provider", "uid", "extra_data", "date_joined"),
        "second_factors": _rows(Authenticator, user, "type", "created_at", "last_used_at"),
        "sessions": _rows(UserSession, user, "ip", "user_agent", "created_at", "last_seen_at"),
        "tokens": _rows(
            ApiToken,
            user,
            *("hint", "name", "scopes", "checkpoint", "ranges", "created_at", "expires_at"),
            *("revoked_at", "revoked_why", "last_used_at"),
        ),
    }


def erase(user: User, *, by: str, at: datetime) -> None:
    """Take away who ``user`` is: the row stays, because others point at it, and names nobody.

    Their sessions and tokens end. Of evidence and referees it stays that there were some, of which
    kind and when.
    """
    sessions.end(user, sessions.of(user), by=by, why="the account was deleted")
    for token in ApiToken.objects.filter(user=user, revoked_at=None):
        tokens.revoke(token, by=by, at=at, why="the account was deleted")
    ApiToken.objects.filter(user=user).update(name="", ranges=[])
    for referral in Referral.objects.filter(user=user, answered_at=None, withdrawn_at=None):
        referrals.withdraw(referral, at=at)
    for referral in Referral.objects.filter(user=user):
        Message.objects.filter(about=referral.subject).delete()
    Referral.objects.filter(user=user).update(name="", address="", words="")
    mine = IdentityEvidence.objects.filter(user=user)
    mine.update(value=REMOVED, source=REMOVED, note="")
    mine.filter(Q(expires_at=None) | Q(expires_at__gt=at)).update(expires_at=at)
    EmailAddress.objects.filter(user=user).delete()
    SocialAccount.objects.filter(user=user).delete()
    Authenticator.objects.filter(user=user).delete()
    DeviceCode.objects.filter(user=user).delete()
    # what operators changed in the admin is noted there with the address
    LogEntry.objects.filter(
        content_type=ContentType.objects.get_for_model(User), object_id=str(user.pk)
    ).update(object_repr=REMOVED, change_message="")
    user.groups.clear()
    user.user_permissions.clear()
    user.email = f"deleted-{user.pk}@account.invalid"  # a name that never resolves (RFC 2606)
    user.name = ""
    user.last_login = None
    user.is_active = user.is_staff = user.is_superuser = False
    user.set_unusable_password()
    user.save()


def _rows(model: Any, user: User, *fields: str) -> list[dict[str, Any]]:
    return list(model.objects.filter(user=user).order_by(F("pk").asc()).values(*fields))
