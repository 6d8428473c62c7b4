import contextlib
import uuid

from celery import shared_task
from django.conf import settings
from django.utils.timezone import now
from kombu.exceptions import OperationalError

from portal.verification import claims, copies


def queue() -> str:
    """Return where checks wait: all of them run inference, on a GPU where a worker has one."""
    return "gpu" if settings.GPU_WORKER else "default"


def wake(check_id: uuid.UUID) -> None:
    """Tell the queue that a check waits. If it cannot be told, the reconciler will find the row."""
    with contextlib.suppress(OperationalError, OSError):  # the row waits; nothing is lost
        run.apply_async([str(check_id)], queue=queue())


@shared_task(name="verification.run")
def run(check_id: str) -> None:
    """Run a check, if it is still to be run."""
    from portal.verification.running import run_check

    run_check(uuid.UUID(check_id))


@shared_task(name="verification.reconcile")
def reconcile() -> None:
    """Wake what waits though no message brings it, and give up what cannot be done."""
    at = now()
    claims.give_up(at)
    copies.sweep()
    for check_id in claims.due(at):
        wake(check_id)
