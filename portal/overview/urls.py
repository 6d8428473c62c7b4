from django.urls import path

from portal.overview import data_views, views

urlpatterns = [
    path("", views.home_view, name="home"),
    path("account/data/", data_views.data_view, name="data"),
    path("account/data/export/", data_views.export_view, name="data-export"),
]
