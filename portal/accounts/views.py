"""One's account: tokens, made and shown once; sessions, listed and ended."""

from datetime import timedelta

from allauth.account.decorators import reauthentication_required
from allauth.usersessions.models import UserSession
from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.timezone import now
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.accounts import sessions, tokens
from portal.accounts.models import ApiToken
from portal.accounts.people import signed_in


class TokenForm(forms.Form):
    """What a token is for, and for how long."""

    name = forms.CharField(max_length=100, label="What is it for?", help_text="Such as “cluster”.")
    scopes = forms.MultipleChoiceField(
        choices=ApiToken.Scope.choices,
        widget=forms.CheckboxSelectMultiple,
        label="What may it do?",
        initial=["download"],
    )
    checkpoint = forms.CharField(
        max_length=200,
        required=False,
        label="Which checkpoint may it open?",
        help_text="Such as llama/7b@1. Left empty, it opens each that you may have.",
    )
    ranges = forms.CharField(
        max_length=2000,
        required=False,
        label="From which addresses may it be used?",
        help_text="Ranges such as 192.0.2.0/24 or 2001:db8::/32, one on each line. "
        "Left empty, from anywhere.",
        widget=forms.Textarea(attrs={"rows": 3}),
    )
    days = forms.IntegerField(
        min_value=1, max_value=366, initial=90, label="For how many days?", help_text="1 to 366."
    )


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@reauthentication_required(allow_get=True)
def tokens_view(request: HttpRequest) -> HttpResponse:
    """List one's tokens; on POST, make one and show its secret this once."""
    form = TokenForm(request.POST or None)
    secret = ""
    if form.is_valid():
        at, user, given = now(), signed_in(request), form.cleaned_data
        try:
            _, secret = tokens.make(
                user,
                name=given["name"],
                scopes=given["scopes"],
                checkpoint=given["checkpoint"],
                ranges=given["ranges"].split(),
                expires_at=at + timedelta(days=given["days"]),
                by=user.actor,
                at=at,
            )
            form = TokenForm()
        except tokens.TokenError as error:
            form.add_error(None, str(error))
    mine = ApiToken.objects.filter(user=request.user.pk)
    response = render(
        request,
        "accounts/tokens.html",
        {"form": form, "secret": secret, "tokens": mine, "at": now()},
    )
    response["Cache-Control"] = "no-store"
    return response


@login_required
@require_POST
def revoke_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Revoke one of one's tokens."""
    token = get_object_or_404(ApiToken, pk=pk, user=request.user.pk)
    tokens.revoke(token, by=signed_in(request).actor, at=now())
    return redirect("tokens")


@login_required
@require_safe
def sessions_view(request: HttpRequest) -> HttpResponse:
    """List where one is signed in."""
    mine = sessions.of(signed_in(request))
    return render(request, "accounts/sessions.html", {"sessions": mine})


@login_required
@require_POST
def end_session_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Sign out of one session of one's own."""
    user = signed_in(request)
    one = get_object_or_404(UserSession, pk=pk, user=user)
    sessions.end(user, [one], by=user.actor, why="ended by its person")
    messages.success(request, "That session is signed out.")
    return redirect("sessions")


@login_required
@require_POST
def end_others_view(request: HttpRequest) -> HttpResponse:
    """Sign out everywhere but here."""
    user = signed_in(request)
    others = [one for one in sessions.of(user) if not one.is_current()]
    count = sessions.end(user, others, by=user.actor, why="ended by its person")
    messages.success(request, f"Signed out of {count} other session{'' if count == 1 else 's'}.")
    return redirect("sessions")
