"""What a client prints about a person and a checkpoint: recalls, the end of access, why there is none."""

from datetime import datetime
from textwrap import shorten

from django.conf import settings
from django.urls import reverse

from portal.access.models import AccessRequest, Decision
from portal.access.policy import Answer, opens_until
from portal.accounts.models import User
from portal.catalog.models import Checkpoint

Status = AccessRequest.Status
FULL_DAY = "%d %B %Y"
LONGEST_REASON = 500  # the page of the request shows all of it


def recall_of(checkpoint: Checkpoint) -> str:
    """Return why ``checkpoint`` should no longer be used, if it was recalled."""
    notice = checkpoint.notices.select_related("replacement__family").first()
    if notice is None:
        return ""
    instead = f" Use {notice.replacement} instead." if notice.replacement else ""
    return f"{checkpoint} was recalled: {notice.reason}{instead}"


def access_of(user: User, checkpoint: Checkpoint, answer: Answer, at: datetime) -> str:
    """Return until when ``user`` has access, or why not and what is the way to it."""
    if answer.grant:
        ends = opens_until(answer.grant, at)
        said = f"Your access to {checkpoint} ends on {ends:{FULL_DAY}}, {ends:%H:%M} UTC"
        if ends == answer.grant.expires_at:
            return f"{said}."
        terms = reverse("terms", args=[checkpoint.family.slug])
        return f"{said}, unless you accept the newer terms: {settings.PUBLIC_URL}{terms}"
    if answer.way:  # the reason names it
        return answer.reason
    request = (
        AccessRequest.objects.filter(applicant=user, checkpoints=checkpoint)
        .exclude(status=Status.WITHDRAWN)
        .order_by("-pk")
        .first()
    )
    page = f"{settings.PUBLIC_URL}{reverse('family', args=[checkpoint.family.slug])}"
    if request is None:
        return f"{answer.reason} {page}"
    here = f"{settings.PUBLIC_URL}{request.get_absolute_url()}"
    if request.status == Status.SUBMITTED and request.submitted_at:
        before = AccessRequest.objects.waiting().filter(submitted_at__lt=request.submitted_at)
        return (
            f"Your request waits since {request.submitted_at:{FULL_DAY}}; "
            f"{before.count()} before it. {here}"
        )
    if request.status == Status.DRAFT:
        return f"Your request is not sent yet: {here}"
    if request.status in (Status.RETURNED, Status.REJECTED):
        return f"{_decided(request)} {here}"
    return f"{answer.reason} {page}"


def _decided(request: AccessRequest) -> str:
    last = request.decisions.last()
    if last is None:
        return f"Your request was {request.status}."
    reason = shorten(last.reason, LONGEST_REASON, placeholder=" ...")
    said = f"Your request was {last.outcome} on {last.at:{FULL_DAY}}: {reason}"
    if last.outcome == Decision.Outcome.RETURNED:
        return f"{said} Change it and submit it again."
    if last.apply_again_at:
        return f"{said} You may apply again from {last.apply_again_at:{FULL_DAY}}."
    return said


def warning(topic: str, *sentences: str) -> str:
    """Return the value of `X-HF-Warning`: nothing where there is nothing to say."""
    said = " ".join(filter(None, sentences))
    return f"{topic}; {said}" if said else ""
