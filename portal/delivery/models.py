"""The issue of signed URLs: which shards, under which grant, when, to where. Never the URL."""

from django.db import models

from portal.access.models import Grant
from portal.accounts.models import ApiToken, User
from portal.catalog.models import Shard


class Download(models.Model):
    """One issue of URLs under a grant. Written once, before the URLs are handed over."""

    grant = models.ForeignKey(Grant, on_delete=models.PROTECT, related_name="downloads")
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="downloads")
    token = models.ForeignKey(ApiToken, on_delete=models.PROTECT, null=True, blank=True)
    shards = models.ManyToManyField(Shard, related_name="downloads")
    at = models.DateTimeField()
    expires_at = models.DateTimeField()
    address = models.GenericIPAddressField(null=True, blank=True)
    agent = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-at", "-pk"]

    def __str__(self) -> str:
        return f"Download {self.pk}"
