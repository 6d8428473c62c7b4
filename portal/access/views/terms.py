"""Read the terms and what changed, accept them, and have what was accepted."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.timezone import now
from django.views.decorators.http import require_http_methods, require_safe

from portal.access import terms as agreements
from portal.access.acceptance_pdf import acceptance_pdf, facts
from portal.access.forms import AcceptForm
from portal.access.models import Acceptance
from portal.accounts.people import signed_in
from portal.catalog.models import Family


@require_http_methods(["GET", "HEAD", "POST"])
def terms_view(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the newest terms to anyone; to who accepted others, what changed, and a form to accept."""
    family = get_object_or_404(Family, slug=slug)
    newest = family.terms
    if not request.user.is_authenticated:
        if request.method == "POST":
            return redirect_to_login(request.path)
        return render(request, "access/terms.html", {"family": family, "terms": newest})
    user = signed_in(request)
    mine = Acceptance.objects.filter(user=user, terms__family=family).select_related("terms")
    last = mine.order_by("-at").first()
    is_asked = last is not None and not mine.filter(terms=newest).exists()
    form = AcceptForm(request.POST or None, terms=newest)
    if is_asked and request.method == "POST" and form.is_valid():
        try:
            agreements.accept_newest(
                user,
                family,
                form.cleaned_data["version"],
                at=now(),
                address=request.META.get("REMOTE_ADDR"),
                agent=request.headers.get("User-Agent", ""),
            )
        except agreements.TermsError as error:
            messages.error(request, str(error))
            return redirect("terms", family.slug)
        messages.success(request, f"You accepted version {newest.version}. Your access goes on.")
        return redirect("terms", family.slug)
    context = {
        "family": family,
        "terms": newest,
        "last": last,
        "is_asked": is_asked,
        "form": form,
        "rests": newest.accept_by is not None and newest.accept_by <= now(),
        "changes": list(agreements.changes(last.terms.text, newest.text))
        if last and is_asked
        else [],
    }
    wrong = is_asked and request.method == "POST"
    return render(request, "access/terms.html", context, status=422 if wrong else 200)


@login_required
@require_safe
def acceptances_view(request: HttpRequest) -> HttpResponse:
    """List what this person accepted."""
    mine = Acceptance.objects.filter(user=request.user.pk).select_related("terms__family")
    return render(request, "access/acceptances.html", {"acceptances": mine.order_by("-at")})


def _readable(request: HttpRequest, pk: int) -> Acceptance:
    """Return an acceptance of one's own, or any to who reads them as a reviewer."""
    every = Acceptance.objects.select_related("terms__family", "user", "attested_by")
    found = get_object_or_404(every, pk=pk)
    user = signed_in(request)
    if found.user_id != user.pk and not (user.is_staff and user.has_perm("access.view_acceptance")):
        raise Http404
    return found


@login_required
@require_safe
def acceptance_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the words that were accepted, their hash, and when."""
    found = _readable(request, pk)
    context = {"acceptance": found, "facts": facts(found)}
    return render(request, "access/acceptance.html", context)


@login_required
@require_safe
def acceptance_pdf_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Send the same as a PDF."""
    found = _readable(request, pk)
    name = f"{found.terms.family.slug}-terms-{found.terms.version}-accepted.pdf"
    return HttpResponse(
        acceptance_pdf(found),
        content_type="application/pdf",
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "private, no-store",
        },
    )
