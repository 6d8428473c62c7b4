from django.urls import path

from portal.verification import challenge_views, views

urlpatterns = [
    path("verify/", views.verify_view, name="verify"),
    path("verifications/", views.verifications_view, name="verifications"),
    path("verifications/<uuid:pk>/", views.verification_view, name="verification"),
    path("verifications/<uuid:pk>/report.json", views.report_json_view, name="report-json"),
    path("verifications/<uuid:pk>/report.html", views.report_html_view, name="report-html"),
    path("challenges/", challenge_views.draw_view, name="challenges"),
    path("challenges/<uuid:pk>/", challenge_views.challenge_view, name="challenge"),
    path(
        "challenges/<uuid:pk>/challenge.json",
        challenge_views.challenge_file_view,
        name="challenge-file",
    ),
    path("report.css", views.report_css_view, name="report-css"),
]
