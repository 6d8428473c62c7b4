"""The operator's page for the next version of a form."""

import json

import pytest

from portal.access.models import FormVersion
from portal.access.questions.defaults import DEFAULT_QUESTIONS
from portal.audit.models import Event
from tests.portal.access.forms_of_tests import EVERY_TYPE

ADD = "/admin/access/formversion/add/"


@pytest.fixture
def desk(client, operator):
    client.force_login(operator)
    return client


def send(desk, family, text, button="publish"):
    return desk.post(ADD, {"family": family.pk, "questions": text, button: "1"}, follow=True)


def test_a_form_is_looked_at_before_it_is_published(desk, family):
    page = send(desk, family, json.dumps(EVERY_TYPE), button="preview").text
    assert "Who works with you?" in page and "Add a row" in page and "Shown only if" in page
    assert 'name="publish"' in page and not FormVersion.objects.exists()
    send(desk, family, json.dumps(EVERY_TYPE))
    assert FormVersion.objects.get().questions == EVERY_TYPE
    assert Event.objects.get(action="form.published").subject == "form:llama:1"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"id": 1}', "This is not JSON: Expecting"),
        ("[" * 100_000, "too deep"),
        ('[{"id": "a", "type": "text", "label": "A", "colour": 1}]', "colour is not known"),
        ("3", "at least one question"),
        ('[{"id": "a", "type": "text", "label": "<script>"}, 3]', "Question 2: it is not"),
    ],
)
def test_mistakes_are_told_and_nothing_is_published(desk, family, text, says):
    page = send(desk, family, text).text
    assert says in page and 'name="publish"' not in page and "<script>" not in page
    assert not FormVersion.objects.exists()


def test_the_next_version_starts_from_the_one_before(desk, application):
    version = application.form_version
    page = desk.get(f"/admin/access/formversion/{version.pk}/change/").text
    assert f"../../add/?from={version.pk}" in page and 'name="_save"' not in page
    assert "What is your full name?" in desk.get(f"{ADD}?from={version.pk}").text
    send(desk, application.family, json.dumps(DEFAULT_QUESTIONS))
    assert list(FormVersion.objects.values_list("version", flat=True)) == [1, 2]
