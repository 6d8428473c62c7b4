from django.urls import path

from portal.access.views import families, files, status, steps, terms

urlpatterns = [
    path("families/<slug:slug>/", families.family_view, name="family"),
    path("families/<slug:slug>/terms/", terms.terms_view, name="terms"),
    path("acceptances/", terms.acceptances_view, name="acceptances"),
    path("acceptances/<int:pk>/", terms.acceptance_view, name="acceptance"),
    path("acceptances/<int:pk>/terms.pdf", terms.acceptance_pdf_view, name="acceptance-pdf"),
    path("families/<slug:slug>/apply/", families.apply_view, name="apply"),
    path("requests/", status.requests_view, name="requests"),
    path("requests/<int:pk>/", status.status_view, name="request"),
    path("requests/<int:pk>/edit/", steps.edit_view, name="request-edit"),
    path("requests/<int:pk>/edit/<int:number>/", steps.step_view, name="request-step"),
    path("requests/<int:pk>/edit/<int:number>/save/", steps.save_view, name="request-save"),
    path("requests/<int:pk>/check/", steps.check_view, name="request-check"),
    path("requests/<int:pk>/files/<int:file>/", files.file_view, name="attachment"),
    path("requests/<int:pk>/messages/", status.message_view, name="request-message"),
    path("requests/<int:pk>/appeal/", status.appeal_view, name="request-appeal"),
    path("requests/<int:pk>/copy/", status.copy_view, name="request-copy"),
    path("requests/<int:pk>/withdraw/", status.withdraw_view, name="request-withdraw"),
]
