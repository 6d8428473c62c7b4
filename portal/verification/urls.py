from django.urls import path

from portal.verification import views

urlpatterns = [
    path("verify/", views.verify_view, name="verify"),
    path("verifications/", views.verifications_view, name="verifications"),
    path("verifications/<uuid:pk>/", views.verification_view, name="verification"),
    path("verifications/<uuid:pk>/report.json", views.report_json_view, name="report-json"),
    path("verifications/<uuid:pk>/report.html", views.report_html_view, name="report-html"),
    path("report.css", views.report_css_view, name="report-css"),
]
