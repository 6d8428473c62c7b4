"""The field that asks a question, and what was typed into it."""

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from django import forms
from django.core.validators import MaxLengthValidator, MinLengthValidator, RegexValidator
from django.utils.datastructures import MultiValueDict
from django_countries import countries

from portal.access.questions import Question

LONGEST_TEXT, LONGEST_LONG_TEXT = 300, 5000
LARGEST_NUMBER = 10**12
# What is kept of one answer as it was typed, valid or not.
LONGEST_TYPED, LONGEST_CELL, MOST_TICKED = 100_000, 1000, 300
MOST_ROWS = 20
# ITU-T E.164: at most 15 digits; below 5 no country has numbers that can be called from abroad.
PHONE = re.compile(r"\+?(?:[ ().\-/]*[0-9]){5,15}[ ().\-/]*", re.ASCII)


class TableInput(forms.Widget):
    """Rows of text inputs under named columns, with one blank row to fill."""

    template_name = "access/widgets/table.html"
    is_table = True

    def __init__(self, columns: list[list[str]], most: int) -> None:
        super().__init__()
        self.columns, self.most = columns, most

    def value_from_datadict(self, data: Mapping[str, Any], files: Any, name: str) -> Any:
        """Return the rows with something in them, each a mapping from column to text."""
        kept = data.get(name)
        if isinstance(kept, list):
            return kept
        rows = (
            {column: data.get(f"{name}-{row}-{column}", "") for column, _ in self.columns}
            for row in range(self.most)
        )
        return [row for row in rows if any(text.strip() for text in row.values())]

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return False

    def id_for_label(self, id_: str, index: str = "0") -> str:
        return f"{id_}-0-{self.columns[0][0]}"

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        rows = value if isinstance(value, list) else []
        shown = [*rows, {}][: self.most]
        context["widget"] |= {
            "labels": [label for _, label in self.columns],
            "rows": [
                [
                    {
                        "name": f"{name}-{number}-{column}",
                        "id": f"{context['widget']['attrs'].get('id', name)}-{number}-{column}",
                        "label": f"{label}, row {number + 1}",
                        "column": label,
                        "value": row.get(column, ""),
                    }
                    for column, label in self.columns
                ]
                for number, row in enumerate(shown)
            ],
            "may_grow": len(shown) < self.most,
        }
        return context


class TableField(forms.Field):
    """A table; each cell is short text."""

    def __init__(self, question: Question, **common: Any) -> None:
        self.least = question.get("min_rows", 1)
        widget = TableInput(question["columns"], question.get("max_rows", MOST_ROWS))
        super().__init__(widget=widget, **common)

    def clean(self, value: Any) -> list[dict[str, str]]:
        rows = [{key: text.strip() for key, text in row.items()} for row in value or []]
        super().clean(rows)
        if rows and len(rows) < self.least:
            raise forms.ValidationError(f"Fill in at least {self.least} rows.")
        for number, row in enumerate(rows, 1):
            if any(not text for text in row.values()):
                raise forms.ValidationError(f"Fill in every column of row {number}.")
            if any(len(text) > LONGEST_TEXT for text in row.values()):
                raise forms.ValidationError(
                    f"Row {number} has more than {LONGEST_TEXT} characters in a column."
                )
        return rows


class AttachmentField(forms.Field):
    """Files that were stored before; ``attached`` is set by the page that asks."""

    def __init__(self, question: Question, **common: Any) -> None:
        endings = question.get("extensions", ["pdf"])
        accept = ",".join(f".{ending}" for ending in endings)
        widget = forms.FileInput(attrs={"accept": accept})
        super().__init__(widget=widget, **common)
        self.attached: list[Any] = []
        self.most = question.get("max_files", 1)
        self.widget.is_required = False  # a file may be there already

    def clean(self, value: Any) -> list[int]:
        if self.required and not self.attached:
            raise forms.ValidationError(self.error_messages["required"], code="required")
        return [one.pk for one in self.attached]


def _text(question: Question, **common: Any) -> forms.Field:
    limit = question.get("max_length", LONGEST_TEXT)
    return forms.CharField(max_length=limit, min_length=question.get("min_length"), **common)


def _long_text(question: Question, **common: Any) -> forms.Field:
    limit = question.get("max_length", LONGEST_LONG_TEXT)
    return forms.CharField(
        max_length=limit,
        min_length=question.get("min_length"),
        widget=forms.Textarea(attrs={"rows": 6}),
        **common,
    )


def _number(question: Question, **common: Any) -> forms.Field:
    # inputs of type number lose what is no number, and scroll away what is one
    return forms.IntegerField(
        min_value=question.get("min", 0),
        max_value=question.get("max", LARGEST_NUMBER),
        widget=forms.TextInput(attrs={"inputmode": "numeric", "class": "short"}),
        error_messages={"invalid": "Write a whole number in digits."},
        **common,
    )


def _date(question: Question, **common: Any) -> forms.Field:
    def within(value: date) -> None:
        low, high = question.get("min"), question.get("max")
        if low and value < date.fromisoformat(low):
            raise forms.ValidationError(f"The date must not be before {low}.")
        if high and value > date.fromisoformat(high):
            raise forms.ValidationError(f"The date must not be after {high}.")

    return forms.DateField(
        widget=forms.DateInput(attrs={"type": "date"}),
        validators=[within],
        input_formats=["%Y-%m-%d"],
        error_messages={"invalid": "Write a date such as 2027-06-30."},
        **common,
    )


def _email(question: Question, **common: Any) -> forms.Field:
    return forms.EmailField(max_length=254, **common)


def _phone(question: Question, **common: Any) -> forms.Field:
    said = "Write a telephone number, such as +44 20 7946 0958."
    return forms.CharField(
        max_length=40,
        widget=forms.TextInput(attrs={"type": "tel", "inputmode": "tel"}),
        validators=[RegexValidator(re.compile(rf"^(?:{PHONE.pattern})$", re.ASCII), said)],
        **common,
    )


def _ip_address(question: Question, **common: Any) -> forms.Field:
    return forms.GenericIPAddressField(
        error_messages={"invalid": "Write an address such as 192.0.2.7 or 2001:db8::7."}, **common
    )


def _country(question: Question, **common: Any) -> forms.Field:
    return forms.ChoiceField(choices=[("", "Choose a country"), *countries], **common)


def _option(question: Question, **common: Any) -> forms.Field:
    return forms.ChoiceField(choices=question["options"], widget=forms.RadioSelect, **common)


def _options(question: Question, **common: Any) -> forms.Field:
    least, most = question.get("min_length"), question.get("max_length")
    return forms.MultipleChoiceField(
        choices=question["options"],
        widget=forms.CheckboxSelectMultiple,
        validators=[
            *([MinLengthValidator(least, f"Choose at least {least}.")] if least else []),
            *([MaxLengthValidator(most, f"Choose at most {most}.")] if most else []),
        ],
        **common,
    )


FIELDS: dict[str, Callable[..., forms.Field]] = {
    "text": _text,
    "long_text": _long_text,
    "number": _number,
    "date": _date,
    "country": _country,
    "email": _email,
    "option": _option,
    "options": _options,
    "table": TableField,
    "attachment": AttachmentField,
    "phone": _phone,
    "ip_address": _ip_address,
}
# What a browser may fill in by itself, where the form does not say.
AUTOCOMPLETE = {"email": "email", "phone": "tel", "country": "country"}


def field_of(question: Question) -> forms.Field:
    """Return the form field that asks ``question``."""
    field = FIELDS[question["type"]](
        question,
        label=question["label"],
        help_text=question.get("help", ""),
        required=question.get("required", True),
    )
    field.error_messages["required"] = "Answer this question."
    # Browsers cut what is pasted at maxlength, silently; we say it is too long and keep it.
    field.widget.attrs.pop("maxlength", None)
    field.widget.attrs.pop("minlength", None)
    complete = question.get("autocomplete", AUTOCOMPLETE.get(question["type"]))
    if complete:
        field.widget.attrs["autocomplete"] = complete
    return field


def typed_answer(question: Question, data: MultiValueDict[str, str]) -> Any:
    """Return what was typed as the answer to ``question``, valid or not, within bounds.

    NUL, which no database of ours keeps in JSON, is left out; line ends become one character.
    """
    name, kind = question["id"], question["type"]
    if kind == "options":
        return [_tidy(one, LONGEST_CELL) for one in data.getlist(name)[:MOST_TICKED]]
    if kind == "table":
        widget = TableInput(question["columns"], question.get("max_rows", MOST_ROWS))
        rows = widget.value_from_datadict(data, None, name)
        return [{key: _tidy(text, LONGEST_CELL) for key, text in row.items()} for row in rows]
    return _tidy(data.get(name, ""), LONGEST_TYPED)


def _tidy(text: str, most: int) -> str:
    return text.replace("\0", "").replace("\r\n", "\n")[:most]


def as_kept(value: Any) -> Any:
    """Return a cleaned answer in the form in which JSON keeps it."""
    if value is None:
        return ""
    return value if isinstance(value, list | str) else str(value)
