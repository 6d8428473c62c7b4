"""The page where a person answers a command that asks for a token."""

from typing import Any

from allauth.account.decorators import reauthentication_required
from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.timezone import now
from django.views.decorators.http import require_http_methods

from portal.accounts import devices
from portal.accounts.models import ApiToken
from portal.accounts.people import signed_in
from portal.accounts.rates import RateError, count

GUESSES, GUESS_SECONDS = 10, 600


class CodeForm(forms.Form):
    """The code that a terminal shows."""

    code = forms.CharField(
        max_length=40,
        label="Which code does your terminal show?",
        help_text="Eight letters, such as BCDF-GHJK.",
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "autocapitalize": "characters", "spellcheck": "false"}
        ),
    )


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@reauthentication_required(allow_get=True)
def device_view(request: HttpRequest) -> HttpResponse:
    """Ask for the code, show what would be given, and keep the answer."""
    user, at = signed_in(request), now()
    form = CodeForm(request.POST or None, initial={"code": request.GET.get("code", "")[:40]})
    shown: dict[str, Any] = {"form": form}
    if form.is_valid():
        try:
            count("device", user.actor, most=GUESSES, seconds=GUESS_SECONDS)
            question = devices.typed(form.cleaned_data["code"], at=at)
            answer = request.POST.get("answer")
            if answer in ("approve", "deny"):
                devices.decide(question, user=user, approved=answer == "approve", at=at)
                said = (
                    "Approved: go back to your terminal."
                    if answer == "approve"
                    else ("Denied: nothing was given.")
                )
                messages.success(request, said)
                return redirect("tokens")
            scopes = [ApiToken.Scope(scope).label for scope in question.scopes]
            until = at + devices.TOKEN_LASTS
            shown |= {"question": question, "scopes": scopes, "until": until}
        except (devices.CodeError, RateError) as error:
            form.add_error("code", str(error))
    response = render(request, "accounts/device.html", shown)
    response["Cache-Control"] = "no-store"
    return response
