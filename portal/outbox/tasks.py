from celery import shared_task
from django.utils.timezone import now

from portal.outbox import sending


@shared_task(name="outbox.send_due")
def send_due() -> None:
    """Send what the outbox holds."""
    sending.send_due(now())
