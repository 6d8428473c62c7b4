from django.apps import AppConfig


class HubConfig(AppConfig):
    name = "portal.hub"
    label = "hub"
    verbose_name = "Hub"
