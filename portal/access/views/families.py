"""The public page of a family, where applications begin."""

from typing import Any

from django.contrib import messages
from django.db.models import Count, Q, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.timezone import now
from django.views.decorators.http import require_POST, require_safe

from portal.access import applications, policy
from portal.access.models import AccessRequest
from portal.access.views.lost_sessions import sign_in_first
from portal.accounts.people import signed_in
from portal.catalog.models import Family

OF_WEIGHTS = Q(shards__is_manifest=False)


@require_safe
def family_view(request: HttpRequest, slug: str) -> HttpResponse:
    """Show what a family is, what its terms ask, and what this person can do next."""
    family = get_object_or_404(Family, slug=slug)
    context: dict[str, Any] = {
        "family": family,
        "checkpoints": family.checkpoints.select_related("family").annotate(
            file_count=Count("shards", filter=OF_WEIGHTS),
            total_size=Sum("shards__size", filter=OF_WEIGHTS),
        ),
        "terms": family.terms,
    }
    if request.user.is_authenticated:
        at = now()
        mine = AccessRequest.objects.filter(applicant=request.user.pk, family=family)
        context |= {
            "open_request": mine.open().filter(by_operator=False).first(),
            "last_request": mine.order_by("-pk").first(),
            "may_download": policy.downloadable_by(request.user, at).filter(family=family),
            "why_not": applications.may_apply(request.user, family, at),
        }
    return render(request, "access/family.html", context)


@sign_in_first("family")
@require_POST
def apply_view(request: HttpRequest, slug: str) -> HttpResponse:
    """Begin an application, or go on with the open one."""
    family = get_object_or_404(Family, slug=slug)
    try:
        application = applications.begin(signed_in(request), family, at=now())
    except applications.ApplicationError as error:
        messages.error(request, str(error))
        return redirect(family)
    if application.is_editable:
        return redirect("request-edit", application.pk)
    return redirect(application)
