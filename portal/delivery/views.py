"""Where files are handed over: the portal's signed URLs, the open manifests, one's own access."""

import logging
import shlex
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.timezone import now
from django.views.decorators.http import require_POST, require_safe

from portal.access import policy, terms
from portal.access.models import Grant
from portal.accounts.addresses import address_of
from portal.accounts.people import signed_in
from portal.audit.chain import record
from portal.catalog.models import Checkpoint, CheckpointNameError, Name, Shard
from portal.delivery import probes, serving, signers
from portal.delivery.issuing import IssueError, SignedFile, issue
from portal.storage.stores import StoreError, store

logger = logging.getLogger(__name__)


@require_safe
def shard_view(request: HttpRequest, grant: int, shard: int, name: str) -> HttpResponseBase:
    """Hand over a shard behind a signed URL, if the policy still says yes."""
    at = now()
    try:
        signers.check(
            grant,
            shard,
            method="GET",  # a URL for GET is good for HEAD, which gives less
            expires=request.GET.get("expires", ""),
            signature=request.GET.get("signature", ""),
            at=at,
        )
    except signers.UrlError as error:
        return _refuse(request, str(error))
    answer = policy.decide_for_grant(grant, at)
    if answer.grant is None:
        return _refuse(request, answer.reason)
    found = get_object_or_404(Shard, pk=shard, checkpoint=answer.grant.checkpoint_id)
    if settings.STORE == "folder":
        try:
            return serving.serve(request, found)
        except StoreError as error:
            return _unreadable(request, error)
    if request.method == "HEAD":
        # answered here: a signature for GET does not open HEAD, and a client that is redirected
        # would go on asking the store with a signature that ends, instead of asking us
        return HttpResponse(headers=serving.headers_behind_redirect(found))
    with transaction.atomic():
        record(
            "store_url.issued",
            subject=answer.grant.subject,
            actor=answer.grant.grantee.actor,
            at=at,
            shard=found.pk,
        )
    try:
        return _to_the_store(found)
    except StoreError as error:
        return _unreadable(request, error)


def _to_the_store(shard: Shard) -> HttpResponse:
    """Send the visitor on, with a signature of the store's that lives for a minute."""
    url = store().presign(
        shard.store_key,
        version=shard.store_version,
        seconds=settings.STORE_URL_SECONDS,
        disposition=serving.disposition(shard),
    )
    response = redirect(str(url))
    # neither is the answer kept, nor does the page behind the link learn where it came from
    response["Cache-Control"] = "no-store"
    response["Referrer-Policy"] = "no-referrer"
    return response


def _refuse(request: HttpRequest, reason: str, status: int = 403) -> HttpResponse:
    """Say no, with the reason: a page to a browser, one line to a download tool."""
    if "text/html" in request.headers.get("Accept", ""):
        return render(request, "delivery/refused.html", {"reason": reason}, status=status)
    return HttpResponse(reason + "\n", status=status, content_type="text/plain; charset=utf-8")


def _unreadable(request: HttpRequest, error: StoreError) -> HttpResponse:
    """Tell the operators which object the store lacks, and the visitor that it is not their fault."""
    logger.error("%s", error)
    reason = "The store cannot give this file now: try again later, or write to the operators."
    return _refuse(request, reason, status=503)


@require_safe
def probe_view(request: HttpRequest, name: str) -> HttpResponseBase:
    """Hand over what `manage.py store check` put, as shards are handed over from a folder."""
    if settings.STORE != "folder":
        raise Http404
    try:
        found = probes.probe(
            name,
            expires=request.GET.get("expires", ""),
            signature=request.GET.get("signature", ""),
        )
        return serving.serve(request, found)
    except signers.UrlError as error:
        return _refuse(request, str(error))
    except StoreError as error:
        return _unreadable(request, error)


@require_safe
def manifest_view(request: HttpRequest, name: str, path: str) -> HttpResponseBase:
    """Serve a file of a checkpoint's manifest to anyone: digests are open, weights are not."""
    try:
        checkpoint = Checkpoint.objects.named(Name.parse(name)).first()
    except CheckpointNameError:
        checkpoint = None
    if checkpoint is None:
        raise Http404
    shard = get_object_or_404(checkpoint.shards.manifest(), path=path)
    return open_file(request, shard)


def open_file(request: HttpRequest, shard: Shard) -> HttpResponseBase:
    """Serve a file of a manifest, of this or an earlier revision."""
    try:
        if settings.STORE == "folder":
            return serving.serve(request, shard)
        with store().open(shard.store_key, shard.store_version) as file:
            content = file.read()
    except StoreError as error:
        return _unreadable(request, error)
    return HttpResponse(
        content, content_type="application/octet-stream", headers=serving.headers_of(shard)
    )


@login_required
@require_safe
def my_access_view(request: HttpRequest) -> HttpResponse:
    """Show what this person may download, until when; and what ended, and why."""
    at = now()
    grants = Grant.objects.filter(grantee=request.user.pk).select_related("checkpoint__family")
    rows = []
    for grant in grants:
        answer = policy.decide_for_grant(grant.pk, at)
        rows.append(
            {"grant": grant, "allowed": answer.allowed, "reason": answer.reason, "way": answer.way}
        )
    rows.sort(key=lambda row: not row["allowed"])
    context = {"rows": rows, "asked": terms.asked_of(signed_in(request), at)}
    return render(request, "delivery/my_access.html", context)


@login_required
@require_POST
def urls_view(request: HttpRequest, grant: int) -> HttpResponse:
    """Issue URLs for all files of one's grant and show them with a command that works as it is."""
    found = get_object_or_404(
        Grant.objects.select_related("checkpoint__family"), pk=grant, grantee=request.user.pk
    )
    try:
        download, files = issue(
            signed_in(request),
            found.checkpoint,
            at=now(),
            address=address_of(request),
            agent=request.headers.get("User-Agent", ""),
        )
    except IssueError as error:
        return render(request, "delivery/refused.html", {"reason": str(error)}, status=error.status)
    context: dict[str, Any] = {
        "checkpoint": found.checkpoint,
        "download": download,
        "files": files,
        "command": shell_line(found.checkpoint, files),
    }
    response = render(request, "delivery/urls.html", context)
    response["Cache-Control"] = "no-store"
    return response


def shell_line(checkpoint: Checkpoint, files: list[SignedFile]) -> str:
    """Return a line for a POSIX shell that downloads ``files``, resuming what is there in part."""
    folder = checkpoint.name.replace("/", "-").replace("@", "-")
    lines = [f"mkdir -p {shlex.quote(folder)} && cd {shlex.quote(folder)}"]
    for file in files:
        path = shlex.quote(file.shard.path)
        lines.append(f"curl -fL --create-dirs -C - -o {path} {shlex.quote(file.url)}")
    return " && \\\n".join(lines)
