from django.urls import path

from portal.overview import views

urlpatterns = [path("", views.home_view, name="home")]
