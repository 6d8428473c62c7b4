"""ORCID as a provider of django-allauth, at a configured address, keeping little of a record.

https://info.orcid.org/documentation/api-tutorials/api-tutorial-get-and-authenticated-orcid-id/
"""

import re
from typing import Any

from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.models import SocialLogin
from allauth.socialaccount.providers.base import ProviderAccount
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.oauth2.provider import OAuth2Provider
from allauth.socialaccount.providers.oauth2.views import (
    OAuth2Adapter,
    OAuth2CallbackView,
    OAuth2LoginView,
)
from django.conf import settings
from django.http import HttpRequest

ID = re.compile(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]")
MOST_LETTERS = 200


def has_check_digit(orcid: str) -> bool:
    """Whether an iD is well formed and its last digit holds (ISO 7064, MOD 11-2)."""
    if not ID.fullmatch(orcid):
        return False
    total = 0
    for digit in orcid.replace("-", "")[:-1]:
        total = (total + int(digit)) * 2
    check = (12 - total % 11) % 11
    return orcid[-1] == ("X" if check == 10 else str(check))


def summary_of(record: Any) -> dict[str, Any]:
    """Return the little that is kept of a record: name, number of works, where they work now."""
    name = _at(record, "person", "name")
    parts = [_at(name, "given-names", "value"), _at(name, "family-name", "value")]
    works = _at(record, "activities-summary", "works", "group")
    groups = _at(record, "activities-summary", "employments", "affiliation-group")
    now_at = [
        _at(group, "summaries", 0, "employment-summary", "organization", "name")
        for group in groups or []
        if not _at(group, "summaries", 0, "employment-summary", "end-date")
    ]
    return {
        "name": " ".join(part for part in parts if isinstance(part, str))[:MOST_LETTERS],
        "works": len(works) if isinstance(works, list) else 0,
        "employment": next((str(one)[:MOST_LETTERS] for one in now_at if one), ""),
    }


def _at(value: Any, *keys: str | int) -> Any:
    for key in keys:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


class OrcidAccount(ProviderAccount):
    """Somebody's account there."""

    def get_profile_url(self) -> str:
        return f"{settings.ORCID_URL}/{self.account.uid}"

    def to_str(self) -> str:
        return str(self.account.uid)


class OrcidAdapter(OAuth2Adapter):
    """Where ORCID answers what."""

    provider_id = "orcid"

    @property
    def authorize_url(self) -> str:
        return f"{settings.ORCID_URL}/oauth/authorize"

    @property
    def access_token_url(self) -> str:
        return f"{settings.ORCID_URL}/oauth/token"

    def complete_login(
        self, request: HttpRequest, app: Any, token: Any, **kwargs: Any
    ) -> SocialLogin:
        """Take the iD from the answer with the token, and read its public record.

        Raises:
            OAuth2Error: the answer holds no iD.
        """
        orcid = str(kwargs["response"].get("orcid", ""))
        if not has_check_digit(orcid):
            raise OAuth2Error("The answer holds no ORCID iD.")
        with get_adapter().get_requests_session() as session:
            answer = session.get(
                f"{settings.ORCID_API_URL}/v3.0/{orcid}/record",
                headers={"Accept": "application/orcid+json"},  # what is public needs no token
            )
            answer.raise_for_status()
            record = answer.json()
        return self.get_provider().sociallogin_from_response(
            request, {"orcid": orcid} | summary_of(record)
        )


class OrcidProvider(OAuth2Provider):
    """ORCID, registered by `portal.accounts.provider`."""

    id = "orcid"
    name = "ORCID"
    account_class = OrcidAccount
    oauth2_adapter_class = OrcidAdapter

    def get_default_scope(self) -> list[str]:
        return ["/authenticate"]

    def extract_uid(self, data: dict[str, Any]) -> str:
        return str(data["orcid"])

    def extract_common_fields(self, data: dict[str, Any]) -> dict[str, Any]:
        return {"name": data["name"]}


login = OAuth2LoginView.adapter_view(OrcidAdapter)
callback = OAuth2CallbackView.adapter_view(OrcidAdapter)
