"""Which questions are on which page, and which of them are visible to whom answered so."""

from collections.abc import Sequence
from dataclasses import dataclass

from portal.access.questions import SILENT, Answers, Question


@dataclass(frozen=True, slots=True)
class Page:
    """Questions that are asked together."""

    title: str
    help: str
    questions: tuple[Question, ...]
    header: Question | None = None


def pages_of(questions: Sequence[Question]) -> list[Page]:
    """Return the pages of a form, broken before each header that says `page`."""
    pages: list[Page] = []
    header: Question | None = None
    gathered: list[Question] = []

    def close() -> None:
        if gathered:
            title = header["label"] if header else "Your answers"
            words = header.get("help", "") if header else ""
            pages.append(Page(title, words, tuple(gathered), header))

    for question in questions:
        if question["type"] == "header" and question.get("page"):
            close()
            header, gathered = question, []
        else:
            gathered.append(question)
    close()
    return pages


def visible(questions: Sequence[Question], answers: Answers) -> set[str]:
    """Return the ids of the questions that ``answers`` bring up.

    A question that depends on a hidden one is hidden, and so is all of a page whose header is.
    """
    shown: set[str] = set()
    page_is_hidden = False
    for question in questions:
        holds = _holds(question, answers, shown)
        if question["type"] == "header" and question.get("page"):
            page_is_hidden = not holds
        if holds and not page_is_hidden:
            shown.add(question["id"])
    return shown


def _holds(question: Question, answers: Answers, shown: set[str]) -> bool:
    condition = question.get("visible_if")
    if condition is None:
        return True
    if condition["question"] not in shown:
        return False
    given, wanted = answers.get(condition["question"]), condition["is"]
    given = given if isinstance(given, list) else [given]
    wanted = wanted if isinstance(wanted, list) else [wanted]
    return any(one in wanted for one in given)


def is_asked(question: Question) -> bool:
    """Whether this question wants an answer."""
    return question["type"] not in SILENT
