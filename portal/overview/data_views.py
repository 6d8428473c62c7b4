"""One's own data: taken away as a file, or deleted with the account."""

from allauth.account.decorators import reauthentication_required
from django import forms
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_required
from django.http import FileResponse, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.timezone import now
from django.views.decorators.http import require_http_methods, require_POST

from portal.accounts.people import signed_in
from portal.accounts.rates import RateError, count
from portal.overview import personal

EXPORTS_PER_HOUR = 6


class DeletionForm(forms.Form):
    """A deliberate yes."""

    email = forms.CharField(
        max_length=254,
        label="Type your e-mail address to delete the account",
        widget=forms.TextInput(attrs={"autocomplete": "off", "inputmode": "email"}),
    )

    def __init__(self, address: str, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # Django's own, passed through
        self.address = address

    def clean_email(self) -> str:
        typed: str = self.cleaned_data["email"]
        if typed.strip().lower() != self.address.lower():
            raise forms.ValidationError(f"This is not your address; yours is {self.address}.")
        return typed


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@reauthentication_required(allow_get=True)
def data_view(request: HttpRequest) -> HttpResponse:
    """Show what can be done with one's data; on POST, delete the account."""
    user = signed_in(request)
    form = DeletionForm(user.email, request.POST or None)
    if form.is_valid():
        try:
            personal.delete(user, at=now())
        except personal.DeletionError as error:
            form.add_error(None, str(error))
        else:
            logout(request)
            messages.success(request, "Your account is deleted.")
            return redirect("home")
    return render(request, "overview/data.html", {"form": form})


@login_required
@require_POST
@reauthentication_required()
def export_view(request: HttpRequest) -> HttpResponse | FileResponse:
    """Hand over everything of one's own as a zip."""
    user = signed_in(request)
    try:
        count("export", user.actor, most=EXPORTS_PER_HOUR, seconds=3600)
    except RateError as error:
        messages.error(request, str(error))
        return redirect("data")
    at = now()
    response = FileResponse(
        personal.export(user, at=at),
        as_attachment=True,
        filename=f"weighbridge-data-{at:%Y-%m-%d}.zip",
        content_type="application/zip",
    )
    response["Cache-Control"] = "no-store"
    return response
