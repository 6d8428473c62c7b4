from celery import shared_task

from portal.audit import chain


@shared_task(name="audit.note_head")
def note_head() -> None:
    """Note the head of the chain outside the database."""
    chain.note_head()
