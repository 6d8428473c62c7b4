"""Find the mistakes in a form's questions, each told in one sentence."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from django_countries import countries

from portal.access.questions import SILENT

COMMON = {"id", "type", "label", "help", "visible_if"}
ASKS = COMMON | {"required"}
LENGTHS = {"min_length", "max_length", "autocomplete"}
# type → the keys that a question of this type may have
KEYS: dict[str, set[str]] = {
    "text": ASKS | LENGTHS,
    "long_text": ASKS | LENGTHS - {"autocomplete"},
    "number": ASKS | {"min", "max"},
    "date": ASKS | {"min", "max"},
    "country": ASKS | {"autocomplete"},
    "email": ASKS | {"autocomplete"},
    "option": ASKS | {"options"},
    "options": ASKS | {"options", "min_length", "max_length"},
    "table": ASKS | {"columns", "min_rows", "max_rows"},
    "attachment": ASKS | {"extensions", "max_size", "max_files"},
    "header": COMMON | {"page"},
    "label": COMMON,
    "phone": ASKS | {"autocomplete"},
    "ip_address": ASKS,
}
CONDITIONS = ("option", "options", "country")
# The purposes of the HTML standard (autofill field names) that fit such questions.
AUTOCOMPLETE = {
    "name",
    "given-name",
    "family-name",
    "organization",
    "organization-title",
    "email",
    "tel",
    "url",
    "country",
    "street-address",
    "postal-code",
}
ATTACHMENT_EXTENSIONS = ("pdf", "png", "jpg", "jpeg", "txt", "docx", "odt")
ID = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
# Names that the pages' own controls have; theirs otherwise hold a dash, which an id cannot.
TAKEN = {"checkpoints", "continue", "save", "csrfmiddlewaretoken"}
MOST_QUESTIONS, MOST_OPTIONS, MOST_COLUMNS, MOST_ROWS, MOST_FILES = 100, 300, 8, 50, 5
LONGEST_LABEL, LONGEST_HELP, LONGEST_TEXT, LONGEST_LONG_TEXT = 300, 2000, 1000, 20_000
LARGEST_FORM, LARGEST_FILE = 200_000, 20_000_000  # characters of JSON; bytes
LARGEST_NUMBER = 10**15


def mistakes(questions: Any) -> list[str]:
    """Return what is wrong with ``questions``, an empty list if nothing is."""
    if not isinstance(questions, list) or not questions:
        return ["A form is a list of at least one question."]
    if len(questions) > MOST_QUESTIONS:
        return [f"A form has at most {MOST_QUESTIONS} questions; this one has {len(questions)}."]
    try:
        text = json.dumps(questions)
    except (TypeError, ValueError, RecursionError):
        return ["The questions are not plain JSON."]
    if len(text) > LARGEST_FORM:
        return [f"The questions take more than {LARGEST_FORM:,} characters of JSON."]
    if "\\u0000" in text:
        return ["The questions hold a NUL character; remove it."]
    found: list[str] = []
    before: dict[str, Mapping[str, Any]] = {}
    for number, question in enumerate(questions, 1):
        name = question.get("id") if isinstance(question, dict) else None
        place = f"Question {number}" + (f" (“{name}”)" if isinstance(name, str) else "")
        found += [f"{place}: {sentence}" for sentence in _of_one(question, before)]
        if isinstance(name, str) and isinstance(question.get("type"), str):
            before[name] = question
    if not found and all(question["type"] in SILENT for question in questions):
        found.append("The form asks nothing: add a question.")
    return found


def _of_one(question: Any, before: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what is wrong with one question, given those before it."""
    if not isinstance(question, dict):
        return ["it is not an object with id, type and label."]
    found = []
    name, kind = question.get("id"), question.get("type")
    if not isinstance(name, str) or not ID.fullmatch(name):
        found.append(
            "its id must begin with a small letter and hold only small letters, digits and _, "
            "40 at most."
        )
    elif name in TAKEN:
        found.append(f"the id {name} is taken by the page's own controls; choose another.")
    elif name in before:
        found.append("its id is another question's too; answers are kept by id.")
    if not _is_text(question.get("label"), LONGEST_LABEL):
        found.append(f"its label must be text of 1 to {LONGEST_LABEL} characters.")
    if "help" in question and not _is_text(question["help"], LONGEST_HELP, least=0):
        found.append(f"its help must be text of at most {LONGEST_HELP} characters.")
    if not isinstance(kind, str) or kind not in KEYS:
        return [*found, f"its type must be one of {', '.join(KEYS)}."]
    if unknown := sorted(str(key) for key in question.keys() - KEYS[kind]):
        found.append(f"{', '.join(unknown)} is not known of a question of type {kind}.")
    for key in ("required", "page"):
        if key in question and not isinstance(question[key], bool):
            found.append(f"{key} must be true or false.")
    if "autocomplete" in question and str(question["autocomplete"]) not in AUTOCOMPLETE:
        found.append(f"autocomplete must be one of {', '.join(sorted(AUTOCOMPLETE))}.")
    if kind in LIMITS:
        found += LIMITS[kind](question)
    if "visible_if" in question:
        found += _of_condition(question["visible_if"], before)
    return found


def _is_text(value: Any, most: int, least: int = 1) -> bool:
    return isinstance(value, str) and least <= len(value.strip()) and len(value) <= most


def _is_number(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _of_range(question: Mapping[str, Any], low: str, high: str, least: int, most: int) -> list[str]:
    """Return what is wrong with a pair of whole numbers, both optional, the first not above the other."""
    found = [
        f"{key} must be a whole number from {least} to {most}."
        for key in (low, high)
        if key in question and not _is_number(question[key], least, most)
    ]
    if not found and question.get(low, least) > question.get(high, most):
        found.append(f"{low} is above {high}.")
    return found


def _of_text(question: Mapping[str, Any]) -> list[str]:
    most = LONGEST_TEXT if question["type"] == "text" else LONGEST_LONG_TEXT
    return _of_range(question, "min_length", "max_length", 1, most)


def _of_number(question: Mapping[str, Any]) -> list[str]:
    return _of_range(question, "min", "max", -LARGEST_NUMBER, LARGEST_NUMBER)


def _of_date(question: Mapping[str, Any]) -> list[str]:
    days = {}
    for key in ("min", "max"):
        if key in question:
            try:
                days[key] = date.fromisoformat(question[key])
            except (TypeError, ValueError):
                return [f"{key} must be a date such as 2027-06-30."]
    if len(days) == 2 and days["min"] > days["max"]:
        return ["min is after max."]
    return []


def _of_pairs(pairs: Any, what: str, most: int) -> list[str]:
    """Return what is wrong with a list of [value, label] pairs."""
    if not isinstance(pairs, list) or not 1 <= len(pairs) <= most:
        return [f"{what} must be a list of 1 to {most} [value, label] pairs."]
    for pair in pairs:
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not _is_text(pair[0], 100)
            or not _is_text(pair[1], LONGEST_LABEL)
        ):
            return [f"each of its {what} must be a pair of texts, [value, label]."]
    if len({pair[0] for pair in pairs}) < len(pairs):
        return [f"two of its {what} have the same value."]
    return []


def _of_options(question: Mapping[str, Any]) -> list[str]:
    return _of_pairs(question.get("options"), "options", MOST_OPTIONS) or _of_range(
        question, "min_length", "max_length", 1, len(question["options"])
    )


def _of_table(question: Mapping[str, Any]) -> list[str]:
    found = _of_pairs(question.get("columns"), "columns", MOST_COLUMNS)
    if not found and not all(ID.fullmatch(value) for value, _ in question["columns"]):
        found.append("the value of a column must be small letters, digits and _, 40 at most.")
    return found + _of_range(question, "min_rows", "max_rows", 1, MOST_ROWS)


def _of_attachment(question: Mapping[str, Any]) -> list[str]:
    found = []
    allowed = question.get("extensions", ["pdf"])
    if (
        not isinstance(allowed, list)
        or not allowed
        or not all(one in ATTACHMENT_EXTENSIONS for one in allowed if isinstance(one, str))
        or not all(isinstance(one, str) for one in allowed)
    ):
        found.append(f"extensions must be a list of some of {', '.join(ATTACHMENT_EXTENSIONS)}.")
    if "max_size" in question and not _is_number(question["max_size"], 1, LARGEST_FILE):
        found.append(f"max_size must be a number of bytes from 1 to {LARGEST_FILE:,}.")
    if "max_files" in question and not _is_number(question["max_files"], 1, MOST_FILES):
        found.append(f"max_files must be a whole number from 1 to {MOST_FILES}.")
    return found


LIMITS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "text": _of_text,
    "long_text": _of_text,
    "number": _of_number,
    "date": _of_date,
    "option": _of_options,
    "options": _of_options,
    "table": _of_table,
    "attachment": _of_attachment,
}


def _of_condition(condition: Any, before: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what is wrong with a ``visible_if``."""
    if not isinstance(condition, dict) or condition.keys() != {"question", "is"}:
        return ["visible_if must be an object with question and is, and nothing else."]
    asked, wanted = condition["question"], condition["is"]
    if not isinstance(asked, str) or asked not in before:
        return ["visible_if names a question that does not come before this one."]
    other = before[asked]
    if other["type"] not in CONDITIONS:
        return [f"visible_if must name a question of type {', '.join(CONDITIONS)}."]
    values = wanted if isinstance(wanted, list) else [wanted]
    if other["type"] == "country":
        known = set(dict(countries))
    else:
        options = other.get("options")
        known = (
            {
                pair[0]
                for pair in options
                if isinstance(pair, list) and pair and isinstance(pair[0], str)
            }
            if isinstance(options, list)
            else set()
        )
    if not values or not all(isinstance(value, str) and value in known for value in values):
        return [f"visible_if asks for an answer that “{asked}” does not offer."]
    return []
