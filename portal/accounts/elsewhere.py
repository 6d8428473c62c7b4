"""Accounts elsewhere, by OpenID Connect and ORCID: signing in with one is evidence of who one is."""

from typing import Any

from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialAccount, SocialLogin
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.http import HttpRequest
from django.urls import reverse
from django.utils.timezone import now

from portal.accounts import evidence
from portal.accounts.models import User
from portal.accounts.people import confirm_address

MOST_LETTERS = 100


class SocialAccountAdapter(DefaultSocialAccountAdapter):
    """The portal's choices for accounts elsewhere."""

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        """Believe a provider's word on addresses only where operators said so; renew evidence."""
        sociallogin.account.extra_data = _kept(sociallogin.account)
        if not _settings_of(sociallogin.account).get("trust_email"):
            for address in sociallogin.email_addresses:
                address.verified = False
        if sociallogin.is_existing and sociallogin.state.get("process") != "connect":
            note(sociallogin.account)

    def save_user(
        self, request: HttpRequest, sociallogin: SocialLogin, form: Any = None
    ) -> AbstractBaseUser:
        """Make somebody who signs up with an account elsewhere, with the evidence of it."""
        user: User = super().save_user(request, sociallogin, form)
        note(sociallogin.account)
        for address in sociallogin.email_addresses:
            if address.verified:
                confirm_address(
                    user,
                    address.email,
                    source=issuer_of(sociallogin.account),
                    by=user.actor,
                    asserted_by=evidence.By.SYSTEM,
                    at=now(),
                )
        return user

    def populate_user(
        self, request: HttpRequest, sociallogin: SocialLogin, data: dict[str, Any]
    ) -> AbstractBaseUser:
        """Take the name over."""
        user: User = super().populate_user(request, sociallogin, data)
        user.name = str(data.get("name") or "")[:MOST_LETTERS]
        return user

    def get_connect_redirect_url(self, request: HttpRequest, socialaccount: SocialAccount) -> str:
        """Note the evidence of an account that was just connected, and go where it is shown."""
        if socialaccount.pk and socialaccount.user_id == request.user.pk:
            note(socialaccount)
        return reverse("identity")


def note(account: SocialAccount) -> None:
    """Write down that its person has signed in with ``account``, and what it says of them."""
    at = now()
    known = account.extra_data
    if account.provider == "orcid":
        kind, about = evidence.Kind.ORCID, _of_orcid(known)
    else:
        kind, about = evidence.Kind.OPENID, _of_openid(known)
    evidence.add(
        account.user,
        kind,
        account.uid,
        source=issuer_of(account),
        by=evidence.By.SYSTEM,
        brought_by=account.user.actor,
        at=at,
        expires_at=at + evidence.LASTS,
        note=about,
    )


def issuer_of(account: SocialAccount) -> str:
    """Return whose word an account is: a name and an address."""
    if account.provider == "orcid":
        return f"ORCID, {settings.ORCID_URL}"
    for app in settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]["APPS"]:
        if app["provider_id"] == account.provider:
            return f"{app['name']}, {app['settings']['server_url']}"
    return account.provider


def _settings_of(account: SocialAccount) -> dict[str, Any]:
    for app in settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]["APPS"]:
        if app["provider_id"] == account.provider:
            return dict(app["settings"])
    return {}


def _kept(account: SocialAccount) -> dict[str, Any]:
    """Return the claims that are kept of an account; the rest is nobody's business here."""
    data = account.extra_data
    if account.provider == "orcid":
        return dict(data)
    claims = data.get("userinfo") or data.get("id_token") or data
    wanted = ("sub", "name", "email", "email_verified", "eduperson_scoped_affiliation")
    return {"userinfo": {name: claims[name] for name in wanted if name in claims}}


def _of_orcid(known: dict[str, Any]) -> str:
    works = known.get("works", 0)
    said = [known.get("name", ""), f"{works} work{'' if works == 1 else 's'}"]
    return ", ".join(part for part in [*said, known.get("employment", "")] if part)


def _of_openid(known: dict[str, Any]) -> str:
    claims = known.get("userinfo", {})
    affiliation = claims.get("eduperson_scoped_affiliation", "")
    if isinstance(affiliation, list):
        affiliation = " ".join(map(str, affiliation))
    email = claims.get("email", "") if claims.get("email_verified") is True else ""
    said = (claims.get("name", ""), email, affiliation)
    return ", ".join(str(part)[:MOST_LETTERS] for part in said if part)
