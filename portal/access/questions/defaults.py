"""The form of a family for which nobody has written another."""

from typing import Any

DEFAULT_QUESTIONS: list[dict[str, Any]] = [
    {"id": "you", "label": "You", "type": "header", "page": True},
    {
        "id": "name",
        "label": "What is your full name?",
        "type": "text",
        "autocomplete": "name",
    },
    {
        "id": "affiliation",
        "label": "Where do you work or study?",
        "type": "text",
        "help": "The institution and the department.",
        "autocomplete": "organization",
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
    {"id": "work", "label": "Your work", "type": "header", "page": True},
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
