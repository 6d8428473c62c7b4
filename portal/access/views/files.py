"""Hand an attachment to its applicant or to a reviewer; never to be shown by the browser."""

from django.contrib.auth.decorators import login_required
from django.http import FileResponse, Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils.timezone import now
from django.views.decorators.http import require_safe

from portal.access.attachments import note_reading
from portal.access.models import AccessRequest, Attachment
from portal.accounts.models import User
from portal.accounts.people import signed_in
from portal.storage.stores import StoreError, store

BLOCK = 1 << 16


def may_review(user: User, request: AccessRequest) -> bool:
    """Whether ``user`` reads this request as a reviewer; a draft is nobody's business."""
    return (
        request.status != AccessRequest.Status.DRAFT
        and user.is_staff
        and user.has_perm("access.view_accessrequest")
    )


@login_required
@require_safe
def file_view(request: HttpRequest, pk: int, file: int) -> HttpResponseBase:
    """Send the file, to be saved under its name; a reviewer's reading is an event."""
    user = signed_in(request)
    every = Attachment.objects.select_related("request")
    found = get_object_or_404(every, pk=file, request=pk)
    is_own = found.request.applicant_id == user.pk
    if not is_own and not may_review(user, found.request):
        raise Http404
    if not is_own and request.method == "GET":
        note_reading(found, by=user, at=now())
    try:
        content = store().open(found.store_key)
    except StoreError:
        raise Http404 from None
    response = FileResponse(
        content, as_attachment=True, filename=found.name, content_type="application/octet-stream"
    )
    response.block_size = BLOCK
    response["Content-Length"] = str(found.size)
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "sandbox; default-src 'none'"
    response["Cache-Control"] = "private, no-store"
    return response
