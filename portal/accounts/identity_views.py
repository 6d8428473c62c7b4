"""How we know you: shown, added to; and the one question that a referee is asked."""

from typing import Any

from allauth.socialaccount.adapter import get_adapter
from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.timezone import now
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.accounts import evidence, referrals
from portal.accounts.addresses import address_of
from portal.accounts.models import Referral, User
from portal.accounts.people import describe, signed_in
from portal.accounts.rates import RateError, count

LINKS_PER_MINUTE = 20


class AboutForm(forms.Form):
    """Who one says one is."""

    name = forms.CharField(
        max_length=200, label="Your name", widget=forms.TextInput(attrs={"autocomplete": "name"})
    )
    affiliation = forms.CharField(
        max_length=300,
        label="Where do you work or study?",
        help_text="Department and institution, such as “Computer Science, University of Example”.",
        widget=forms.TextInput(attrs={"autocomplete": "organization"}),
    )


class RefereeForm(forms.Form):
    """Whom to ask."""

    name = forms.CharField(max_length=200, label="Their name")
    address = forms.EmailField(
        label="Their e-mail address at work",
        help_text="They get a link that is good for two weeks.",
    )
    relation = forms.ChoiceField(
        choices=Referral.Relation.choices, widget=forms.RadioSelect, label="They are your …"
    )


class AnswerForm(forms.Form):
    """What a referee says."""

    confirmed = forms.ChoiceField(
        choices=[
            ("yes", "Yes, I know them, and that is right"),
            ("no", "No, I cannot confirm that"),
        ],
        widget=forms.RadioSelect,
        label="Do you know this person?",
    )
    words = forms.CharField(
        max_length=4000,
        label="How do you know them?",
        help_text="A sentence is enough. The reviewers read it.",
        widget=forms.Textarea(attrs={"rows": 5}),
    )
    words_open = forms.BooleanField(required=False, label="They may read what I wrote, too")


def _page(request: HttpRequest, user: User, status: int = 200, **forms_: Any) -> HttpResponse:
    """Return the page, with the forms that were not sent as they begin."""
    at = now()
    said = user.evidence.filter(kind=evidence.Kind.AFFILIATION).last()
    begun = {"name": user.name, "affiliation": said.value if said else ""}
    mine = Referral.objects.filter(user=user)
    shown = {
        "known": evidence.of(user, at=at),
        "referees": [{"referral": one, "state": one.state(at)} for one in mine],
        "providers": get_adapter().list_providers(request),
        "about": forms_.get("about") or AboutForm(initial=begun),
        "referee": forms_.get("referee") or RefereeForm(prefix="referee"),
        "replaces": forms_.get("replaces"),
    }
    return render(request, "accounts/identity.html", shown, status=status)


@login_required
@require_safe
def identity_view(request: HttpRequest) -> HttpResponse:
    """Show what is known of one's identity, and what one can add."""
    return _page(request, signed_in(request))


@login_required
@require_POST
def about_view(request: HttpRequest) -> HttpResponse:
    """Keep one's name and affiliation, as one says them."""
    user = signed_in(request)
    form = AboutForm(request.POST)
    if not form.is_valid():
        return _page(request, user, about=form)
    describe(user, **form.cleaned_data, at=now())
    messages.success(request, "Kept. Reviewers see that you say so yourself.")
    return redirect("identity")


@login_required
@require_POST
def ask_view(request: HttpRequest, pk: int | None = None) -> HttpResponse:
    """Ask a referee; in the place of the one with ``pk``, where that is given."""
    user = signed_in(request)
    old = get_object_or_404(Referral, pk=pk, user=user) if pk else None
    form = RefereeForm(request.POST, prefix="referee")
    if form.is_valid():
        try:
            if old:
                referrals.replace(old, **form.cleaned_data, at=now())
            else:
                referrals.ask(user, **form.cleaned_data, at=now())
            messages.success(request, f"A link is on its way to {form.cleaned_data['address']}.")
            return redirect("identity")
        except referrals.ReferralError as error:
            form.add_error(None, str(error))
    return _page(request, user, referee=form, replaces=old)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def replace_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the form that names somebody else in the place of a referee; on POST, ask them."""
    if request.method == "POST":
        return ask_view(request, pk)
    user = signed_in(request)
    return _page(request, user, replaces=get_object_or_404(Referral, pk=pk, user=user))


@login_required
@require_POST
def resend_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Send a referee a new link."""
    referral = get_object_or_404(Referral, pk=pk, user=signed_in(request))
    try:
        referrals.resend(referral, at=now())
        messages.success(request, f"A new link is on its way to {referral.address}.")
    except referrals.ReferralError as error:
        messages.error(request, str(error))
    return redirect("identity")


@login_required
@require_POST
def withdraw_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Take a question back."""
    referral = get_object_or_404(Referral, pk=pk, user=signed_in(request))
    try:
        referrals.withdraw(referral, at=now())
        messages.success(request, f"{referral.name} is not asked any more.")
    except referrals.ReferralError as error:
        messages.error(request, str(error))
    return redirect("identity")


@require_http_methods(["GET", "HEAD", "POST"])
def refer_view(request: HttpRequest) -> HttpResponse:
    """Ask a referee the one question, and keep the answer; the link is the only key."""
    key = request.POST.get("key") or request.GET.get("key", "")
    shown: dict[str, Any] = {"key": key}
    status = 200
    try:
        count("refer", address_of(request) or "unknown", most=LINKS_PER_MINUTE, seconds=60)
        referral = referrals.opened_by(key[:200], at=now())
        form = AnswerForm(request.POST or None)
        shown |= {"referral": referral, "form": form}
        if form.is_valid():
            given = form.cleaned_data
            yes = given.pop("confirmed") == "yes"
            referrals.answer(referral, confirmed=yes, **given, at=now())
            shown = {"thanks": True, "referral": referral}
    except (referrals.ReferralError, RateError) as error:
        shown = {"refusal": str(error)}
        status = 429 if isinstance(error, RateError) else 404
    response = render(request, "accounts/refer.html", shown, status=status)
    response["Cache-Control"] = "no-store"
    response["Referrer-Policy"] = "no-referrer"  # the address holds the key
    return response
