"""The site's addresses, by app in the order of the story."""

from django.contrib import admin
from django.urls import include, path

from portal.accounts.device_views import device_view
from portal.verification import api as _challenges  # noqa: F401 - its addresses join the API's

urlpatterns = [
    path("admin/", admin.site.urls),
    path("device/", device_view, name="device"),  # short, because people type it
    path("account/", include("portal.accounts.urls")),
    path("account/", include("portal.accounts.allauth_urls")),
    path("", include("portal.catalog.urls")),
    path("", include("portal.access.urls")),
    path("", include("portal.delivery.urls")),
    path("", include("portal.hub.urls")),
    path("", include("portal.verification.urls")),
    path("", include("portal.overview.urls")),
]
