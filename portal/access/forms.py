"""The steps of an application: the choice of checkpoints, the pages of its form, the terms."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.http import QueryDict

from portal.access.models import AccessRequest
from portal.access.questions import Question
from portal.access.questions.asking import Page, is_asked, pages_of, visible
from portal.access.questions.fields import AttachmentField, as_kept, field_of, typed_answer
from portal.catalog.models import Checkpoint, Terms

CHECKPOINTS = Page("The checkpoints", "", ())
MOST_CHECKPOINTS = 1000


@dataclass(frozen=True, slots=True)
class Step:
    """One page on the applicant's way; ``number`` is its address, ``place`` its place of ``of``."""

    number: int
    page: Page
    place: int
    of: int

    @property
    def asks_checkpoints(self) -> bool:
        return self.page is CHECKPOINTS


def questions_of(request: AccessRequest) -> Sequence[Question]:
    """Return the questions of the form version that ``request`` answers."""
    return request.form_version.questions if request.form_version else []


def steps_of(request: AccessRequest) -> list[Step]:
    """Return the steps that lie before this applicant; pages with nothing to ask are left out."""
    questions = questions_of(request)
    shown = visible(questions, request.answers)
    pages = [(1, CHECKPOINTS)]
    for number, page in enumerate(pages_of(questions), 2):
        if page.header and page.header["id"] not in shown:
            continue
        if any(question["id"] in shown for question in page.questions):
            pages.append((number, page))
    # the page that shows all answers is a step too
    return [
        Step(number, page, place, len(pages) + 1) for place, (number, page) in enumerate(pages, 1)
    ]


class PageForm(forms.Form):
    """The visible questions of one page, bound to what is kept of them."""

    def __init__(
        self,
        questions: Sequence[Question],
        shown: set[str],
        data: Mapping[str, Any] | None,
        attached: Mapping[str, list[Any]],
        **options: Any,
    ) -> None:
        super().__init__(data, **options)
        self.questions = questions
        for question in questions:
            if question["id"] in shown and is_asked(question):
                field = field_of(question)
                if isinstance(field, AttachmentField):
                    field.attached = attached.get(question["id"], [])
                self.fields[question["id"]] = field
        self.shown = shown

    def items(self) -> list[tuple[Question, Any, bool]]:
        """Return each question, the field that asks it if one does, and whether it may be hidden."""
        return [
            (
                question,
                self[question["id"]] if question["id"] in self.fields else None,
                "visible_if" in question,
            )
            for question in self.questions
            if question["id"] in self.shown or "visible_if" in question
        ]


class CheckpointsForm(forms.Form):
    """Which checkpoints of the family; one control ticks all that are published now."""

    everything = forms.BooleanField(required=False)
    checkpoints = forms.ModelMultipleChoiceField(
        Checkpoint.objects.none(),
        widget=forms.CheckboxSelectMultiple,
        label="Which checkpoints do you need?",
        help_text="Two layouts of the same weights are two checkpoints.",
        error_messages={"required": "Choose at least one."},
    )

    def __init__(self, request: AccessRequest, data: Mapping[str, Any] | None) -> None:
        chosen = [one.pk for one in request.checkpoints.all()]
        super().__init__(data, initial={"checkpoints": chosen})
        field = self.fields["checkpoints"]
        assert isinstance(field, forms.ModelMultipleChoiceField)
        field.queryset = request.family.checkpoints.select_related("family")
        count = request.family.checkpoints.count()
        if count > 1:
            self.fields["everything"].label = f"All {count} that are published now"
        else:
            del self.fields["everything"]


def form_of(
    request: AccessRequest, step: Step, *, check: bool, attached: Mapping[str, list[Any]]
) -> forms.Form:
    """Return the form of ``step`` with what is kept; with ``check`` its mistakes are shown."""
    if step.asks_checkpoints:
        kept = {"checkpoints": [one.pk for one in request.checkpoints.all()]}
        return CheckpointsForm(request, kept if check else None)
    shown = visible(questions_of(request), request.answers)
    answers = dict(request.answers)
    if check:
        return PageForm(step.page.questions, shown, answers, attached)
    return PageForm(step.page.questions, shown, None, attached, initial=answers)


def first_unfinished(
    request: AccessRequest, attached: Mapping[str, list[Any]]
) -> tuple[Step, forms.Form] | None:
    """Return the first step with a mistake, and its form with the mistakes in it."""
    for step in steps_of(request):
        form = form_of(request, step, check=True, attached=attached)
        if not form.is_valid():
            return step, form
    return None


def answers_to_send(request: AccessRequest, attached: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Return the checked answers of a finished application; those of hidden questions are left out."""
    kept: dict[str, Any] = {}
    for step in steps_of(request):
        form = form_of(request, step, check=True, attached=attached)
        if isinstance(form, PageForm) and form.is_valid():
            kept |= {name: as_kept(value) for name, value in form.cleaned_data.items()}
    return kept


@dataclass(frozen=True, slots=True)
class Typed:
    """What one page of one window held: answers as typed, and what the page had shown before.

    ``base`` maps the questions that were on the page to the digest of the answer it showed, so
    that two windows can be told from one another; ``asked`` are those questions, also where a
    client sends no digests; ``window`` names the window.
    """

    answers: dict[str, Any]
    base: dict[str, str]
    asked: set[str]
    window: str
    checkpoints: list[Checkpoint] | None = None


def read_typed(request: AccessRequest, step: Step, data: QueryDict) -> Typed:
    """Return what was typed on ``step``, valid or not, so that none of it is lost."""
    window = data.get("page-window", "")[:32]
    base = _base_in(data.get("page-base", ""))
    if step.asks_checkpoints:
        return Typed({}, base, set(), window, chosen_checkpoints(request, data))
    shown = visible(questions_of(request), request.answers)
    asked = set(base) if "page-base" in data else shown
    answers = {
        question["id"]: typed_answer(question, data)
        for question in step.page.questions
        if is_asked(question) and question["type"] != "attachment" and question["id"] in asked
    }
    return Typed(answers, base, asked, window)


def chosen_checkpoints(request: AccessRequest, data: QueryDict) -> list[Checkpoint]:
    """Return the checkpoints of this family that were ticked, one by one or all at once."""
    every = request.family.checkpoints.select_related("family")
    if data.get("everything"):
        return list(every)
    ids = [value for value in data.getlist("checkpoints") if value.isascii() and value.isdigit()]
    numbers = [int(value) for value in ids[:MOST_CHECKPOINTS] if len(value) < 19]
    return list(every.filter(pk__in=numbers))


def _base_in(text: str) -> dict[str, str]:
    try:
        base = json.loads(text[:20_000])
    except (ValueError, RecursionError):
        return {}
    if not isinstance(base, dict):
        return {}
    return {str(key): value for key, value in base.items() if isinstance(value, str)}


def base_of(request: AccessRequest, form: forms.Form) -> str:
    """Return what a page says of the answers that it shows: JSON, digests by question."""
    if isinstance(form, CheckpointsForm):
        return json.dumps({"checkpoints": digest_of_chosen(request.checkpoints.all())})
    return json.dumps({name: digest_of(request.answers.get(name)) for name in form.fields})


def digest_of_chosen(checkpoints: Iterable[Checkpoint]) -> str:
    """Return a short digest of a choice of checkpoints, in whatever order it comes."""
    return digest_of(sorted(one.pk for one in checkpoints))


def digest_of(answer: Any) -> str:
    """Return a short digest by which two answers are told apart; no answer is an empty one."""
    text = json.dumps(answer or "", sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class AcceptForm(forms.Form):
    """The acceptance of one version of the terms."""

    accept = forms.BooleanField(error_messages={"required": "Accept the terms to go on."})

    def __init__(self, data: Mapping[str, Any] | None, *, terms: Terms) -> None:
        super().__init__(data)
        self.fields["accept"].label = f"I accept version {terms.version} of these terms"
        self.fields["version"] = forms.IntegerField(
            widget=forms.HiddenInput, initial=terms.version, label="The version you read"
        )
