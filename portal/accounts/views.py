"""One's API tokens: made, shown once, revoked."""

from datetime import timedelta

from django import forms
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.timezone import now
from django.views.decorators.http import require_http_methods, require_POST

from portal.accounts import tokens
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
    days = forms.IntegerField(
        min_value=1, max_value=366, initial=90, label="For how many days?", help_text="1 to 366."
    )


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def tokens_view(request: HttpRequest) -> HttpResponse:
    """List one's tokens; on POST, make one and show its secret this once."""
    form = TokenForm(request.POST or None)
    secret = ""
    if form.is_valid():
        at = now()
        user = signed_in(request)
        _, secret = tokens.make(
            user,
            name=form.cleaned_data["name"],
            scopes=form.cleaned_data["scopes"],
            expires_at=at + timedelta(days=form.cleaned_data["days"]),
            by=user.actor,
            at=at,
        )
        form = TokenForm()
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
