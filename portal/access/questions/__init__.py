"""A form's questions as data. One question is an object:

    {"id": "purpose", "type": "long_text", "label": "What will you use the weights for?",
     "help": "A few sentences.", "required": true, "max_length": 2000,
     "visible_if": {"question": "role", "is": ["student", "academic"]}}

`id`        small letters, digits and `_`; answers are kept by it, with the form version answered
`type`      one of the keys of `schema.KEYS`, where each type's own limits are named too
`label`     the question, or the words of a `header` or `label`
`help`      under the question
`required`  default true
`visible_if` an earlier question of type option, options or country, and the answer or answers
            that bring this one up; hidden questions are not required and their answers not sent
`page`      on a `header`: a new page begins here; its `visible_if` then holds for the whole page

`schema.py` finds mistakes in such a list, `fields.py` makes the field that asks a question,
`asking.py` says which questions are on which page and visible, `words.py` writes answers for people.
"""

from collections.abc import Mapping
from typing import Any

Question = Mapping[str, Any]
Answers = Mapping[str, Any]

# Types that say something and ask nothing.
SILENT = ("header", "label")
