"""The addresses of django-allauth's pages, each change in one transaction with its mail.

Its own views open none: an account could be made and its confirmation lost.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db import transaction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern, URLResolver, include, path

from portal.accounts import orcid

View = Callable[..., HttpResponseBase]

# These look at a password and change nothing but the session: no lock is held while they hash.
WITHOUT_CHANGES = frozenset({"account_login", "account_reauthenticate"})


def _whole(view: View) -> View:
    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method != "POST":
            return view(request, *args, **kwargs)
        with transaction.atomic():
            return view(request, *args, **kwargs)

    return answer


def _each(patterns: list[URLPattern | URLResolver]) -> list[URLPattern | URLResolver]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            _each(pattern.url_patterns)
        elif pattern.name not in WITHOUT_CHANGES:
            pattern.callback = _whole(pattern.callback)
    return patterns


# Coming back from elsewhere is a GET that asks the provider on the way: it holds no lock meanwhile,
# and what it writes is whole by itself.
urlpatterns = _each(
    [
        path("", include("allauth.account.urls")),
        path("2fa/", include("allauth.mfa.urls")),
        path("elsewhere/", include("allauth.socialaccount.urls")),
        path("elsewhere/orcid/login/", orcid.login, name="orcid_login"),
        path("elsewhere/orcid/login/callback/", orcid.callback, name="orcid_callback"),
        path("elsewhere/", include("allauth.socialaccount.providers.openid_connect.urls")),
    ]
)
