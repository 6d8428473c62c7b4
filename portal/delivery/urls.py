from django.urls import path

from portal.delivery import api, views

urlpatterns = [
    path("access/", views.my_access_view, name="my-access"),
    path("access/<int:grant>/urls/", views.urls_view, name="urls"),
    path("d/<int:grant>/<int:shard>/<path:name>", views.shard_view, name="shard"),
    path("d/check/<str:name>", views.probe_view, name="probe"),
    path("manifests/<path:name>/files/<path:path>", views.manifest_view, name="manifest"),
    path("api/v1/", api.urls()),
]
