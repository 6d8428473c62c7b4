"""Sessions in browsers: known to their person, ended by them; short and twice proved for staff."""

import time
from collections.abc import Callable
from typing import Any

from allauth.account.authentication import get_authentication_records
from allauth.mfa.utils import is_mfa_enabled
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.views import redirect_to_login
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode

from portal.accounts.models import User
from portal.audit.chain import record

# `last_seen_at` is for people; writing it at every request would make each a write.
SEEN_NOTED_EVERY = 300
STAFF_SECONDS = 8 * 3600
# How long after signing in nobody is asked again who they are.
FRESH_SECONDS = 300

Answer = Callable[[HttpRequest], HttpResponse]


def of(user: User) -> list[UserSession]:
    """Return the sessions that ``user`` is signed in with, the one used last first."""
    sessions = UserSession.objects.purge_and_list(user)
    return sorted(sessions, key=lambda session: session.last_seen_at, reverse=True)


@transaction.atomic
def end(user: User, sessions: list[UserSession], *, by: str, why: str) -> int:
    """Sign ``user`` out of ``sessions``; return how many there were."""
    for session in sessions:
        session.end()
    if sessions:
        record("sessions.ended", subject=user.actor, actor=by, count=len(sessions), why=why)
    return len(sessions)


def begin(request: HttpRequest) -> None:
    """Note in a session that it began now; whoever signs somebody in says so."""
    request.session["signed_in_at"] = request.session["seen_at"] = int(time.time())


def proofs(request: HttpRequest) -> list[dict[str, Any]]:
    """Return how this session has proved who it is: `method`, `at` in seconds, and what it was."""
    return get_authentication_records(request, request.user)


def is_fresh(request: HttpRequest) -> bool:
    """Whether the person of this session has proved within minutes that it is them."""
    return any(time.time() - proof["at"] < FRESH_SECONDS for proof in proofs(request))


def has_second_factor(request: HttpRequest) -> bool:
    """Whether this session was opened, or confirmed since, with a second factor or a passkey."""
    return any(proof["method"] == "mfa" for proof in proofs(request))


class SessionRules:
    """Lists each session for its person, and holds staff to what their rights ask."""

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        user = request.user
        if isinstance(user, User):
            refusal = self._staff(request, user) if user.is_staff else None
            if refusal:
                return refusal
            self._note(request)
        return self.get_response(request)

    def _note(self, request: HttpRequest) -> None:
        at = int(time.time())
        if at - request.session.get("seen_at", at) >= SEEN_NOTED_EVERY:
            request.session["seen_at"] = at
            UserSession.objects.create_from_request(request)

    def _staff(self, request: HttpRequest, user: User) -> HttpResponse | None:
        """Return where a member of staff must go first, if anywhere."""
        if "signed_in_at" not in request.session:
            begin(request)
        if time.time() - request.session["signed_in_at"] > STAFF_SECONDS:
            logout(request)
            messages.info(request, "Sessions of staff end after 8 hours. Please sign in again.")
            return redirect_to_login(request.get_full_path())
        inside = request.path.startswith(reverse("admin:index"))
        if not (settings.STAFF_MFA and inside) or has_second_factor(request):
            return None
        if request.path == reverse("admin:logout"):
            return None
        if not is_mfa_enabled(user):
            messages.warning(
                request, "Staff pages need a second factor. Set one up here, then go there again."
            )
            return redirect("mfa_index")
        return redirect(f"{_second_factor_of(user)}?{urlencode({'next': request.path})}")


def _second_factor_of(user: User) -> str:
    by_code = is_mfa_enabled(user, types=["totp", "recovery_codes"])
    return reverse("mfa_reauthenticate" if by_code else "mfa_reauthenticate_webauthn")
