from django.urls import path

from portal.accounts import views

urlpatterns = [
    path("tokens/", views.tokens_view, name="tokens"),
    path("tokens/<int:pk>/revoke/", views.revoke_view, name="token-revoke"),
]
