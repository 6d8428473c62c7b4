"""A form's questions as data, and the Django form that asks them.

A question is an object with `id`, `label`, `type` and, where wanted, `help`, `required` (default
true), `max_length` and `options` ([value, label] pairs). The answers are kept by `id`, with the
form version that was answered.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from django import forms

LONGEST_TEXT, LONGEST_LONG_TEXT = 300, 5000
Question = Mapping[str, Any]


def _text(question: Question, **common: Any) -> forms.Field:
    return forms.CharField(max_length=question.get("max_length", LONGEST_TEXT), **common)


def _long_text(question: Question, **common: Any) -> forms.Field:
    limit = question.get("max_length", LONGEST_LONG_TEXT)
    return forms.CharField(max_length=limit, widget=forms.Textarea(attrs={"rows": 6}), **common)


def _number(question: Question, **common: Any) -> forms.Field:
    return forms.IntegerField(min_value=0, max_value=10**12, **common)


def _date(question: Question, **common: Any) -> forms.Field:
    return forms.DateField(widget=forms.DateInput(attrs={"type": "date"}), **common)


def _email(question: Question, **common: Any) -> forms.Field:
    return forms.EmailField(max_length=254, **common)


def _option(question: Question, **common: Any) -> forms.Field:
    return forms.ChoiceField(choices=question["options"], widget=forms.RadioSelect, **common)


def _options(question: Question, **common: Any) -> forms.Field:
    return forms.MultipleChoiceField(
        choices=question["options"], widget=forms.CheckboxSelectMultiple, **common
    )


FIELDS = {
    "text": _text,
    "long_text": _long_text,
    "number": _number,
    "date": _date,
    "email": _email,
    "option": _option,
    "options": _options,
}


def field_of(question: Question) -> forms.Field:
    """Return the form field that asks ``question``."""
    return FIELDS[question["type"]](
        question,
        label=question["label"],
        help_text=question.get("help", ""),
        required=question.get("required", True),
    )


def form_class(questions: Sequence[Question]) -> type[forms.Form]:
    """Return the form that asks ``questions`` in their order, fields named by the questions' ids."""
    return type(
        "ApplicationForm",
        (forms.Form,),
        {question["id"]: field_of(question) for question in questions},
    )


def as_kept(answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return cleaned answers in the form in which JSON keeps them."""
    return {
        key: value.isoformat() if hasattr(value, "isoformat") else value
        for key, value in answers.items()
    }


DEFAULT_QUESTIONS: list[dict[str, Any]] = [
    {"id": "name", "label": "What is your full name?", "type": "text"},
    {
        "id": "affiliation",
        "label": "Where do you work or study?",
        "type": "text",
        "help": "The institution and the department.",
    },
    {
        "id": "role",
        "label": "What best describes you?",
        "type": "option",
        "options": [
            ["student", "Student"],
            ["academic", "Academic researcher"],
            ["industry", "Industry researcher"],
            ["public", "Government or civil society"],
            ["other", "Something else"],
        ],
    },
    {
        "id": "purpose",
        "label": "What will you use the weights for?",
        "type": "long_text",
        "help": "A few sentences. A reviewer reads them, nobody else.",
    },
    {
        "id": "publications",
        "label": "Where can we read of your work?",
        "type": "text",
        "help": "A page, a paper or a profile.",
        "required": False,
    },
]
