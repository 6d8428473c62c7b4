"""Mistakes in a form are found before it is published, each in a sentence."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.access.questions.defaults import DEFAULT_QUESTIONS
from portal.access.questions.fields import FIELDS
from portal.access.questions.schema import KEYS, mistakes
from tests.portal.access.forms_of_tests import EVERY_TYPE

TEXT = {"id": "a", "type": "text", "label": "A"}
OPTION = {"id": "o", "type": "option", "label": "O", "options": [["x", "X"]]}


def test_the_default_form_and_one_with_every_type_have_no_mistake():
    assert mistakes(DEFAULT_QUESTIONS) == mistakes(EVERY_TYPE) == []
    assert {question["type"] for question in EVERY_TYPE} == set(KEYS)


def test_every_type_that_asks_has_a_field():
    assert set(KEYS) - {"header", "label"} == set(FIELDS)


@pytest.mark.parametrize(
    ("questions", "says"),
    [
        ([], "at least one question"),
        ({}, "at least one question"),
        ([TEXT] * 101, "at most 100 questions"),
        (["a"], "not an object"),
        ([TEXT | {"id": "A b"}], "its id must begin"),
        ([TEXT | {"id": "a\n"}], "its id must begin"),
        ([TEXT | {"id": "save"}], "taken by the page"),
        ([TEXT, TEXT], "another question's too"),
        ([TEXT | {"label": " "}], "its label must be"),
        ([TEXT | {"label": "x" * 301}], "its label must be"),
        ([TEXT | {"label": "a\0"}], "NUL"),
        ([TEXT | {"help": 3}], "its help must be"),
        ([TEXT | {"type": "colour"}], "its type must be one of"),
        ([TEXT | {"type": ["text"]}], "its type must be one of"),
        ([TEXT | {"pattern": "a+"}], "pattern is not known"),
        ([TEXT | {"options": []}], "options is not known of a question of type text"),
        ([TEXT | {"required": "yes"}], "required must be true or false"),
        ([TEXT | {"max_length": 0}], "max_length must be a whole number"),
        ([TEXT | {"max_length": True}], "max_length must be a whole number"),
        ([TEXT | {"min_length": 9, "max_length": 3}], "min_length is above max_length"),
        ([TEXT | {"autocomplete": "password"}], "autocomplete must be one of"),
        ([TEXT | {"type": "number", "min": 5, "max": 1}], "min is above max"),
        ([TEXT | {"type": "date", "min": "soon"}], "min must be a date"),
        ([TEXT | {"type": "date", "min": "2027-01-02", "max": "2027-01-01"}], "min is after max"),
        ([OPTION | {"options": []}], "options must be a list of 1"),
        ([OPTION | {"options": ["x"]}], "must be a pair of texts"),
        ([OPTION | {"options": [["x", "X"], ["x", "Y"]]}], "the same value"),
        ([OPTION | {"type": "options", "min_length": 2}], "min_length must be a whole number"),
        ([TEXT | {"type": "table"}], "columns must be a list"),
        ([TEXT | {"type": "table", "columns": [["a-0", "A"]]}], "value of a column"),
        ([TEXT | {"type": "attachment", "extensions": ["exe"]}], "extensions must be"),
        ([TEXT | {"type": "attachment", "max_size": 10**9}], "max_size must be"),
        ([TEXT | {"type": "attachment", "max_files": 0}], "max_files must be"),
        ([{"id": "h", "type": "header", "label": "H"}], "asks nothing"),
        ([TEXT | {"visible_if": "o"}], "visible_if must be an object"),
        ([TEXT | {"visible_if": {"question": "o", "is": "x"}}], "does not come before"),
        ([TEXT | {"visible_if": {"question": "a", "is": "x"}}], "does not come before"),
        ([OPTION, TEXT | {"visible_if": {"question": "o", "is": "y"}}], "does not offer"),
        ([OPTION, TEXT | {"visible_if": {"question": "o", "is": []}}], "does not offer"),
        (
            [TEXT, TEXT | {"id": "b", "visible_if": {"question": "a", "is": "x"}}],
            "must name a question of type option",
        ),
    ],
)
def test_a_mistake_is_told_in_a_sentence(questions, says):
    assert any(says in sentence for sentence in mistakes(questions))


@given(st.data())
def test_whatever_is_put_in_a_question_is_judged_without_a_fault(data):
    questions = copy.deepcopy(EVERY_TYPE)
    question = data.draw(st.sampled_from(questions))
    key = data.draw(st.sampled_from(sorted(set().union(*KEYS.values()))))
    question[key] = data.draw(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        )
    )
    assert all(isinstance(sentence, str) for sentence in mistakes(questions))
