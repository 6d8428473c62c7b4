from django.contrib import admin

from portal.audit.admin import ReadOnlyAdmin
from portal.outbox.models import Message


@admin.register(Message)
class MessageAdmin(ReadOnlyAdmin):
    """What was written to whom; no text, which may hold a link that opens something."""

    list_display = ("subject", "to", "created_at", "sent_at", "attempts")
    exclude = ("body",)
