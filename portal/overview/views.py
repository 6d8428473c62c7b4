"""The home page."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from portal.catalog.models import Family


@require_safe
def home_view(request: HttpRequest) -> HttpResponse:
    """Show what can be had here, and how to find out whether a copy is real."""
    families = Family.objects.prefetch_related("checkpoints")
    return render(request, "overview/home.html", {"families": families})
