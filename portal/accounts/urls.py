from django.urls import path

from portal.accounts import views

urlpatterns = [
    path("tokens/", views.tokens_view, name="tokens"),
    path("tokens/<int:pk>/revoke/", views.revoke_view, name="token-revoke"),
    path("sessions/", views.sessions_view, name="sessions"),
    path("sessions/end-others/", views.end_others_view, name="sessions-end-others"),
    path("sessions/<int:pk>/end/", views.end_session_view, name="session-end"),
]
