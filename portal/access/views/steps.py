"""An application in steps. Whatever is typed is kept first and judged afterwards."""

import secrets
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import redirect_to_login
from django.core.files.uploadedfile import UploadedFile
from django.forms import Form
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.timezone import now
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.access import applications, attachments
from portal.access.forms import (
    AcceptForm,
    PageForm,
    Step,
    Typed,
    base_of,
    first_unfinished,
    form_of,
    questions_of,
    read_typed,
    steps_of,
)
from portal.access.models import AccessRequest
from portal.access.questions.asking import is_asked, visible
from portal.access.questions.words import in_words
from portal.access.views import lost_sessions
from portal.storage.stores import StoreError

FORM_BYTES = 2_000_000  # what a page has besides its files


def own(request: HttpRequest, pk: int) -> AccessRequest:
    """Return one's own application; anybody else's is not found."""
    mine = AccessRequest.objects.select_related("family", "form_version", "applicant")
    return get_object_or_404(
        mine.prefetch_related("checkpoints__family"), pk=pk, applicant=request.user.pk
    )


def step_numbered(application: AccessRequest, number: int) -> Step:
    """Return the step at this address, if it lies before this applicant."""
    for step in steps_of(application):
        if step.number == number:
            return step
    raise Http404


@login_required
@require_safe
def edit_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Go to the first step with something left to answer, else to the page of all answers."""
    application = own(request, pk)
    if not application.is_editable:
        return redirect(application)
    unfinished = first_unfinished(application, attachments.attached_to(application))
    if unfinished is None:
        return redirect("request-check", application.pk)
    return redirect("request-step", application.pk, unfinished[0].number)


@csrf_exempt  # a token that became old must not cost what was typed: `token_fault` looks at it
@require_http_methods(["GET", "HEAD", "POST"])
def step_view(request: HttpRequest, pk: int, number: int) -> HttpResponse:
    """Ask the questions of one step. What was typed is saved; continuing checks this step."""
    if _announced(request) > attachments.PER_REQUEST + FORM_BYTES:
        return render(request, "access/too_large.html", {"pk": pk, "number": number}, status=413)
    if not request.user.is_authenticated:
        if request.method == "POST":
            lost_sessions.keep(request, pk, number)
        return redirect_to_login(reverse("request-step", args=[pk, number]))
    application = own(request, pk)
    if not application.is_editable:
        return _not_saved(request, application, number)
    step = step_numbered(application, number)
    if request.method == "POST":
        if lost_sessions.token_fault(request):
            return _shown_again(request, application, step)
        return _answered(request, application, step)
    if data := lost_sessions.take_up(request, pk, number):
        _keep(application, read_typed(application, step, data))
        messages.success(request, "You were signed out. What you typed before is here, and saved.")
    form = form_of(
        application,
        step,
        check="check" in request.GET,
        attached=attachments.attached_to(application),
    )
    return _page(request, application, step, form)


def _announced(request: HttpRequest) -> int:
    """Return how many bytes the request says that it has."""
    return int(request.META.get("CONTENT_LENGTH") or 0)


def _keep(application: AccessRequest, typed: Typed) -> None:
    applications.save(
        application,
        answers=typed.answers,
        checkpoints=typed.checkpoints,
        base=typed.base,
        window=typed.window,
        at=now(),
    )


def _answered(request: HttpRequest, application: AccessRequest, step: Step) -> HttpResponse:
    """Save what was typed and the files that were chosen; then go where the button leads."""
    typed = read_typed(application, step, request.POST)
    try:
        _keep(application, typed)
    except applications.ApplicationError:  # submitted meanwhile, in another window
        return _not_saved(request, application, step.number)
    here = reverse("request-step", args=[application.pk, step.number])
    if "from-check" in request.POST:
        here += "?from=check"
    refused = _take_files(request, application, step)
    if "save" in request.POST and not refused:
        messages.success(request, "Saved. You can come back to it at any time.")
        return redirect(application)
    if "back" in request.POST and not refused:
        return redirect(_before(application, step))
    for button in ("add-row", "remove-file", "upload-file"):
        if button in request.POST and not refused:
            anchor = request.POST.get("add-row") or ""
            return redirect(f"{here}#id_{anchor}" if anchor.isidentifier() else here)
    shown = visible(questions_of(application), application.answers)
    asked = {one["id"] for one in step.page.questions if is_asked(one) and one["id"] in shown}
    if asked - typed.asked and not step.asks_checkpoints and not refused:
        messages.info(request, "Your answer brought up something more to ask, on this page.")
        return redirect(here)
    form = form_of(application, step, check=True, attached=attachments.attached_to(application))
    for name, error in refused.items():
        form.is_valid()
        form.add_error(name, error)
    if not form.is_valid():
        return _page(request, application, step, form)
    if "from-check" in request.POST:
        return redirect("request-check", application.pk)
    return redirect(_after(application, step))


def _take_files(request: HttpRequest, application: AccessRequest, step: Step) -> dict[str, str]:
    """Store the files chosen and drop those taken back; return what was refused, by question."""
    refused: dict[str, str] = {}
    shown = visible(questions_of(application), application.answers)
    wanted = request.POST.get("remove-file", "")
    if wanted.isascii() and wanted.isdigit() and len(wanted) < 19:
        there = application.attachments.filter(pk=int(wanted), removed_at=None).first()
        if there is not None:
            attachments.remove(there, at=now())
    for question in step.page.questions:
        file = request.FILES.get(question["id"])
        if question["type"] != "attachment" or question["id"] not in shown or file is None:
            continue
        assert isinstance(file, UploadedFile)
        try:
            attachments.attach(application, question, file, at=now())
        except attachments.AttachmentError as error:
            refused[question["id"]] = str(error)
        except StoreError:
            refused[question["id"]] = "The file could not be stored now; try again later."
    return refused


def _before(application: AccessRequest, step: Step) -> str:
    earlier = [one for one in steps_of(application) if one.number < step.number]
    if not earlier:
        return application.get_absolute_url()
    return reverse("request-step", args=[application.pk, earlier[-1].number])


def _after(application: AccessRequest, step: Step) -> str:
    for one in steps_of(application):
        if one.number > step.number:
            return reverse("request-step", args=[application.pk, one.number])
    return reverse("request-check", args=[application.pk])


def _page(
    request: HttpRequest,
    application: AccessRequest,
    step: Step,
    form: Form,
    *,
    base: str | None = None,
    status: int = 200,
) -> HttpResponse:
    # answers may have brought pages up or down: where this one lies is told anew
    step = next((one for one in steps_of(application) if one.number == step.number), step)
    context = {
        "application": application,
        "step": step,
        "form": form,
        "items": form.items() if isinstance(form, PageForm) else [],
        "base": base if base is not None else base_of(application, form),
        "window": request.POST.get("page-window", "")[:32] or secrets.token_hex(8),
        "from_check": "from-check" in request.POST or request.GET.get("from") == "check",
        "last": application.decisions.last(),
        "others": _typed_elsewhere(application, form),
    }
    return render(request, "access/step.html", context, status=422 if form.errors else status)


def _typed_elsewhere(application: AccessRequest, form: Form) -> list[Any]:
    """Return what another window held as answers to the questions of this page."""
    notes = application.meanwhile
    other = {name: notes[name]["other"] for name in form.fields if "other" in notes.get(name, {})}
    asked = [one for one in questions_of(application) if one["id"] in other]
    plain = [{key: one[key] for key in one if key != "visible_if"} for one in asked]
    return in_words(plain, other)


def _shown_again(request: HttpRequest, application: AccessRequest, step: Step) -> HttpResponse:
    """Show what was typed on a page that was opened before one signed in anew; nothing is saved."""
    attached = attachments.attached_to(application)
    base = base_of(application, form_of(application, step, check=False, attached=attached))
    typed = read_typed(application, step, request.POST)
    application.answers = application.answers | typed.answers
    form = form_of(application, step, check=False, attached=attached)
    if typed.checkpoints is not None:
        form.initial["checkpoints"] = [one.pk for one in typed.checkpoints]
    messages.warning(
        request,
        "This page was opened before you signed in again, so nothing is saved yet. "
        "What you typed is below: continue to save it.",
    )
    return _page(request, application, step, form, base=base, status=403)


def _not_saved(request: HttpRequest, application: AccessRequest, number: int) -> HttpResponse:
    """Show what was typed into a page whose request was submitted elsewhere meanwhile."""
    if request.method != "POST":
        return redirect(application)
    step = next((one for one in steps_of(application) if one.number == number), None)
    typed = read_typed(application, step, request.POST).answers if step else {}
    context = {
        "application": application,
        "said": [one for one in in_words(questions_of(application), typed) if one.id in typed],
    }
    return render(request, "access/not_saved.html", context, status=409)


@csrf_exempt  # as for `step_view`
@require_POST
def save_view(request: HttpRequest, pk: int, number: int) -> HttpResponse:
    """Save what is being typed, and answer with one quiet line; nothing is judged."""
    if _announced(request) > FORM_BYTES:
        return HttpResponse(status=413)
    if not request.user.is_authenticated:
        kept = lost_sessions.keep(request, pk, number)
        return render(request, "access/saved.html", {"signed_out": True, "kept": kept})
    application = own(request, pk)
    if lost_sessions.token_fault(request):
        return render(request, "access/saved.html", {"old_page": True})
    if not application.is_editable:
        return render(request, "access/saved.html", {"closed": True})
    step = step_numbered(application, number)
    typed = read_typed(application, step, request.POST)
    try:
        _keep(application, typed)
    except applications.ApplicationError:
        return render(request, "access/saved.html", {"closed": True})
    form = form_of(application, step, check=False, attached=attachments.attached_to(application))
    items = form.items() if isinstance(form, PageForm) else []
    changed = [
        (question, field)
        for question, field, may_be_hidden in items
        if may_be_hidden and (question["id"] in typed.asked) != (field is not None)
    ]
    context = {
        "at": now(),
        "changed": changed,
        "base": base_of(application, form),
        "others": _typed_elsewhere(application, form),
    }
    return render(request, "access/saved.html", context)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def check_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Show all answers and the terms; on POST, submit, or lead to the first mistake."""
    application = own(request, pk)
    if not application.is_editable:
        return redirect(application)
    attached = attachments.attached_to(application)
    if unfinished := first_unfinished(application, attached):
        place = reverse("request-step", args=[application.pk, unfinished[0].number])
        return redirect(f"{place}?check=1&from=check")
    terms = application.family.terms
    form = AcceptForm(request.POST or None, terms=terms)
    if form.is_valid():
        # who was shown a version accepts that one, and `submit` refuses all but the newest
        read = get_object_or_404(
            application.family.terms_versions, version=form.cleaned_data["version"]
        )
        try:
            applications.submit(
                application,
                terms=read,
                at=now(),
                address=request.META.get("REMOTE_ADDR"),
                agent=request.headers.get("User-Agent", ""),
                seen=request.POST.get("page-seen"),
            )
        except applications.ApplicationError as error:
            messages.error(request, str(error))
            return redirect("request-check", application.pk)
        return redirect(application)
    steps = steps_of(application)
    context = {
        "application": application,
        "form": form,
        "terms": terms,
        "seen": applications.digest_of_all(application),
        "last": application.decisions.last(),
        "said": in_words(questions_of(application), application.answers, attached),
        "step_of": {
            question["id"]: step.number for step in steps for question in step.page.questions
        },
        "count": steps[-1].of,
    }
    return render(request, "access/check.html", context, status=422 if form.errors else 200)
