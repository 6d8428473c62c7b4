"""The holder's pages: draw a challenge, get its file, send the answer, see what it is worth."""

import uuid
from typing import Any

from django import forms
from django.contrib.auth.decorators import login_required
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.timezone import now
from django.views.decorators.http import require_http_methods, require_safe

from portal.accounts.people import signed_in
from portal.catalog.models import Checkpoint
from portal.verification import challenges
from portal.verification.models import Challenge
from verifier.challenges import MAX_ANSWER_BYTES


class DrawForm(forms.Form):
    """What the questions are to be about."""

    checkpoint = forms.ModelChoiceField(
        Checkpoint.objects.filter(has_reference=True).select_related("family"),
        label="Which checkpoint does the copy claim to be?",
        empty_label=None,
    )


class AnswerForm(forms.Form):
    """The file that the command printed."""

    answer = forms.FileField(
        label="Answer",
        help_text="The file answer.json, or a report of verify --challenge --json.",
    )

    def clean_answer(self) -> bytes:
        """Return the content, if it is not larger than an answer can be."""
        file: UploadedFile = self.cleaned_data["answer"]
        if (file.size or 0) > MAX_ANSWER_BYTES:
            raise forms.ValidationError(
                f"The answer has {file.size:,} bytes, and no more than {MAX_ANSWER_BYTES:,} can be."
            )
        return file.read()


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def draw_view(request: HttpRequest) -> HttpResponse:
    """Say what a challenge is; on POST, draw one."""
    form = DrawForm(request.POST or None)
    status = 200
    if request.method == "POST":
        status = 422
        if form.is_valid():
            try:
                return redirect(
                    challenges.draw(signed_in(request), form.cleaned_data["checkpoint"], at=now())
                )
            except challenges.ChallengeError as error:
                form.add_error(None, str(error))
                status = error.status
    return render(request, "verification/draw.html", {"form": form}, status=status)


def _visible(request: HttpRequest, pk: uuid.UUID) -> Challenge:
    seen = Challenge.objects.visible_to(signed_in(request))
    return get_object_or_404(seen.select_related("checkpoint__family", "verification"), pk=pk)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def challenge_view(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Show the challenge and the command to run; on POST, take the answer."""
    challenge = _visible(request, pk)
    form = AnswerForm(request.POST or None, request.FILES or None)
    context: dict[str, Any] = {"challenge": challenge, "form": form}
    status = 200
    if request.method == "POST":
        status = 422
        if form.is_valid():
            try:
                data = form.cleaned_data["answer"]
                return redirect(challenges.answer(challenge, data, by=signed_in(request), at=now()))
            except challenges.ChallengeError as error:
                form.add_error(None, str(error))
                status = error.status
    context["open"] = challenge.is_open(now())
    return render(request, "verification/challenge.html", context, status=status)


@login_required
@require_safe
def challenge_file_view(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Return the file that the holder's command takes."""
    challenge = _visible(request, pk)
    response = JsonResponse(
        challenges.content(challenge).content(), json_dumps_params={"indent": 1}
    )
    response["Content-Disposition"] = 'attachment; filename="challenge.json"'
    response["Cache-Control"] = "no-store"
    return response
