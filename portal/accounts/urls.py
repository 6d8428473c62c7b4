from django.urls import path

from portal.accounts import identity_views, views

urlpatterns = [
    path("tokens/", views.tokens_view, name="tokens"),
    path("tokens/<int:pk>/revoke/", views.revoke_view, name="token-revoke"),
    path("identity/", identity_views.identity_view, name="identity"),
    path("identity/about/", identity_views.about_view, name="identity-about"),
    path("identity/referees/", identity_views.ask_view, name="referee-ask"),
    path("identity/referees/<int:pk>/resend/", identity_views.resend_view, name="referee-resend"),
    path(
        "identity/referees/<int:pk>/withdraw/",
        identity_views.withdraw_view,
        name="referee-withdraw",
    ),
    path(
        "identity/referees/<int:pk>/replace/", identity_views.replace_view, name="referee-replace"
    ),
    path("refer/", identity_views.refer_view, name="refer"),
    path("sessions/", views.sessions_view, name="sessions"),
    path("sessions/end-others/", views.end_others_view, name="sessions-end-others"),
    path("sessions/<int:pk>/end/", views.end_session_view, name="session-end"),
]
