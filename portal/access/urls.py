from django.urls import path

from portal.access import views

urlpatterns = [
    path("families/<slug:slug>/", views.family_view, name="family"),
    path("families/<slug:slug>/apply/", views.apply_view, name="apply"),
    path("requests/", views.requests_view, name="requests"),
    path("requests/<int:pk>/", views.status_view, name="request"),
    path("requests/<int:pk>/edit/", views.edit_view, name="request-edit"),
    path("requests/<int:pk>/check/", views.check_view, name="request-check"),
    path("requests/<int:pk>/withdraw/", views.withdraw_view, name="request-withdraw"),
]
