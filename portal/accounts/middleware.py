"""What holds for every request of an account."""

from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse

# These look at a password and change nothing but the session: no lock is held while they hash.
WITHOUT_CHANGES = frozenset({"account_login", "account_reauthenticate"})

Answer = Callable[[HttpRequest], HttpResponse]


class AccountTransactions:
    """Runs each change of allauth's in one transaction with the mail that tells of it.

    Its own views open none: an account could be made and its confirmation lost.
    """

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Any, args: Any, kwargs: Any
    ) -> HttpResponse | None:
        """Answer a change of allauth's; leave everything else to the others."""
        match = request.resolver_match
        theirs = getattr(view, "__module__", "").startswith("allauth.")
        if request.method != "POST" or not theirs or (match and match.url_name in WITHOUT_CHANGES):
            return None
        with transaction.atomic():
            answer: HttpResponse = view(request, *args, **kwargs)
            return answer
