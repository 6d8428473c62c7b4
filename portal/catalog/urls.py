from django.urls import path

from portal.catalog import views

urlpatterns = [
    path("root.json", views.root_view, name="root"),
    path("<int:version>.root.json", views.root_view, name="root-version"),
    path("latest.json", views.latest_view, name="latest"),
]
