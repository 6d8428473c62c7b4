"""Answers as people read them: labels instead of values, under the version that was answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django_countries import countries

from portal.access.questions import Answers, Question
from portal.access.questions.asking import is_asked, visible


@dataclass(frozen=True, slots=True)
class Said:
    """One question with its answer: words, or the rows of a table, or files."""

    id: str
    label: str
    words: str = ""
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    files: list[Any] = field(default_factory=list)

    @property
    def cells(self) -> list[list[tuple[str, str]]]:
        """The rows of a table, each cell with the name of its column."""
        return [list(zip(self.columns, row, strict=True)) for row in self.rows]

    @property
    def as_text(self) -> str:
        """The answer as plain text, as mails have it."""
        lines = [" | ".join(row) for row in [self.columns, *self.rows]] if self.rows else []
        return self.words or "\n".join([*lines, *(str(file) for file in self.files)]) or "–"


def in_words(
    questions: Sequence[Question],
    answers: Answers,
    attached: Mapping[str, list[Any]] | None = None,
) -> list[Said]:
    """Return each question that was asked, with what was answered, in the form's order."""
    shown = visible(questions, answers)
    return [
        _said(question, answers.get(question["id"], ""), (attached or {}).get(question["id"], []))
        for question in questions
        if is_asked(question) and question["id"] in shown
    ]


def _said(question: Question, answer: Any, files: list[Any]) -> Said:
    name, label, kind = question["id"], question["label"], question["type"]
    if kind == "attachment":
        return Said(name, label, files=files)
    if kind == "table" and isinstance(answer, list):
        rows = [row for row in answer if isinstance(row, dict)]
        cells = [[str(row.get(key, "")) for key, _ in question["columns"]] for row in rows]
        return Said(name, label, columns=[text for _, text in question["columns"]], rows=cells)
    labels = dict(question.get("options", []))
    if kind == "country":
        labels = {str(answer): countries.name(str(answer)) or answer}
    values = answer if isinstance(answer, list) else [answer]
    return Said(name, label, ", ".join(str(labels.get(str(one), one)) for one in values))
