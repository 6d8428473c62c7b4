"""The queue: a wake-up call. The rows in the database say what is to be done, and own redelivery.

A broker of files loses the messages that a killed worker had fetched; so every task here can be
sent again at any time, and a reconciler sends again what a row says is due.
"""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

from django.conf import settings

app = Celery("portal")
app.conf.update(
    broker_url=settings.BROKER_URL,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    task_acks_late=False,
    broker_connection_retry_on_startup=True,
    task_default_queue="default",
    timezone="UTC",
    beat_schedule_filename=str(settings.DATA / "queue" / "beat"),
    beat_schedule={
        "send what the outbox holds": {"task": "outbox.send_due", "schedule": 15.0},
        "take up checks whose worker is gone": {"task": "verification.reconcile", "schedule": 5.0},
        "note the head of the audit chain": {"task": "audit.note_head", "schedule": 3600.0},
    },
)
if settings.BROKER_URL == "filesystem://":
    _QUEUE = settings.DATA / "queue"
    app.conf.broker_transport_options = {
        "data_folder_in": str(_QUEUE / "messages"),
        "data_folder_out": str(_QUEUE / "messages"),
        "control_folder": str(_QUEUE / "control"),
        "polling_interval": 0.5,
    }
app.autodiscover_tasks(["portal.audit", "portal.outbox", "portal.verification"])
