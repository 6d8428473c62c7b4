from django.contrib import admin

from portal.audit.admin import ReadOnlyAdmin
from portal.outbox.models import Message


@admin.register(Message)
class MessageAdmin(ReadOnlyAdmin):
    """Facts: written once, shown here."""
