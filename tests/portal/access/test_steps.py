"""Answering in pages: nothing typed is lost, whatever happens meanwhile."""

import html
import json
import re

import pytest
from django.conf import settings
from django.test import Client
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from portal.access import applications
from portal.access.attachments import attached_to
from portal.access.form_versions import current_form, publish_form
from portal.access.forms import answers_to_send, first_unfinished, steps_of
from portal.access.models import AccessRequest, FormMistake, FormVersion
from tests.portal.access.forms_of_tests import EVERY_TYPE, GOOD

YOU, WORK, THESIS, MACHINES = 2, 3, 4, 5


@pytest.fixture
def draft(applicant, checkpoint, operator, at):
    publish_form(checkpoint.family, EVERY_TYPE, by=operator, at=at)
    return applications.begin(applicant, checkpoint.family, at=at)


@pytest.fixture
def window(client, applicant):
    client.force_login(applicant)
    return client


def place(draft, number, more=""):
    return f"/requests/{draft.pk}/edit/{number}/{more}"


def hidden(page):
    """Return the hidden inputs of a page that has answers on it."""
    inputs = re.findall(r'<input type="hidden"\s+name="(page-\w+)"[^>]*?value="([^"]*)"', page.text)
    return {name: html.unescape(value) for name, value in inputs}


def open_page(client, draft, number):
    page = client.get(place(draft, number))
    assert page.status_code == 200
    return hidden(page)


def kept(draft):
    return AccessRequest.objects.get(pk=draft.pk).answers


def send(client, draft, number, hidden_fields, **typed):
    return client.post(place(draft, number), hidden_fields | {"continue": "1"} | typed)


def test_the_pages_of_the_form_follow_the_choice_of_checkpoints(draft):
    titles = [step.page.title for step in steps_of(draft)]
    assert titles == ["The checkpoints", "You", "Your work", "Your machines"]
    draft.answers = {"role": "student"}
    assert [step.page.title for step in steps_of(draft)][3] == "Your thesis"
    assert [(step.place, step.of) for step in steps_of(draft)][-1] == (5, 6)


def test_an_answer_brings_up_a_question_which_is_asked_before_going_on(window, draft):
    fields = open_page(window, draft, WORK)
    typed = {"role": "other", "fields": ["nlp"], "purpose": "We study quantization."}
    asked = window.post(place(draft, WORK), fields | {"continue": "1"} | typed, follow=True)
    assert "Your answer brought up something more" in asked.text
    assert "What describes you, then?" in asked.text
    fields = hidden(asked)
    assert send(window, draft, WORK, fields, **typed).status_code == 422
    assert send(window, draft, WORK, fields, other="A poet", **typed).status_code == 302


def test_the_answer_to_a_hidden_question_waits_in_the_draft_and_is_not_sent(draft, at):
    applications.save(draft, answers=GOOD | {"role": "other", "other": "A poet"}, at=at)
    assert answers_to_send(draft, {})["other"] == "A poet"
    applications.save(draft, answers={"role": "staff"}, at=at)
    assert draft.answers["other"] == "A poet"
    assert "other" not in answers_to_send(draft, {})


def test_saving_while_typing_judges_nothing_and_says_so_quietly(window, draft):
    fields = open_page(window, draft, YOU)
    answer = window.post(place(draft, YOU, "save/"), fields | {"name": "", "country": "nonsense"})
    assert answer.status_code == 200 and re.search(r"Saved at \d\d:\d\d UTC", answer.text)
    assert "error" not in answer.text.lower()
    assert kept(draft)["country"] == "nonsense"


def test_saving_while_typing_brings_up_only_what_the_answer_asks_for(window, draft):
    fields = open_page(window, draft, WORK)
    answer = window.post(place(draft, WORK, "save/"), fields | {"role": "other"})
    assert 'id="q-other" hx-swap-oob="true"' in answer.text and 'name="other"' in answer.text
    fields |= hidden(answer)
    assert "other" in json.loads(fields["page-base"])
    answer = window.post(place(draft, WORK, "save/"), fields | {"role": "staff"})
    assert 'id="q-other" hx-swap-oob="true"' in answer.text and 'name="other"' not in answer.text


def test_two_windows_that_change_different_questions_keep_both(window, draft):
    first, second = open_page(window, draft, YOU), open_page(window, draft, YOU)
    send(window, draft, YOU, first, name="A", country="NZ")
    send(window, draft, YOU, second, name="", phone="+44 20 7946 0958", country="")
    assert kept(draft)["name"] == "A" and kept(draft)["phone"] == "+44 20 7946 0958"


def test_two_windows_that_change_one_question_lose_neither_answer(window, draft):
    first, second = open_page(window, draft, YOU), open_page(window, draft, YOU)
    send(window, draft, YOU, first, name="Written first")
    page = send(window, draft, YOU, second, name="Written second")
    assert kept(draft)["name"] == "Written second"
    assert "Another window held other words" in page.text and "Written first" in page.text


def test_one_window_that_goes_on_typing_is_not_told_of_itself(window, draft):
    fields = open_page(window, draft, YOU)
    for name in ("A", "A. App", "A. Applicant", ""):
        window.post(place(draft, YOU, "save/"), fields | {"name": name})
        assert kept(draft)["name"] == name
    assert "Another window" not in window.get(place(draft, YOU)).text


def test_what_was_typed_into_a_lost_session_is_there_after_signing_in(draft, applicant):
    browser = Client(enforce_csrf_checks=True)
    browser.get("/account/login/")
    token = browser.cookies["csrftoken"].value
    typed = {"name": "Typed while signed out", "csrfmiddlewaretoken": token}
    answer = send(browser, draft, YOU, {"page-window": "w"}, **typed)
    assert answer.url == f"/account/login/?next={place(draft, YOU)}"
    word = {"login": applicant.email, "password": "weighbridge-test"}
    page = browser.post(answer.url, word | {"csrfmiddlewaretoken": token}, follow=True)
    assert "You were signed out." in page.text and "Typed while signed out" in page.text
    assert kept(draft)["name"] == "Typed while signed out"
    assert "You were signed out." not in browser.get(place(draft, YOU)).text


def test_what_was_typed_into_a_lost_session_is_for_its_applicant_alone(draft, stranger):
    browser = Client(enforce_csrf_checks=True)
    browser.get("/account/login/")
    token = browser.cookies["csrftoken"].value
    send(browser, draft, YOU, {}, name="Typed", csrfmiddlewaretoken=token)
    word = {"login": stranger.email, "password": "weighbridge-test", "csrfmiddlewaretoken": token}
    page = browser.post(f"/account/login/?next={place(draft, YOU)}", word, follow=True)
    assert page.status_code == 404 and "Typed" not in page.text
    assert kept(draft) == {}


@pytest.mark.parametrize("more", ["", "save/"])
def test_a_form_of_another_site_leaves_nothing(draft, applicant, more):
    other = Client(enforce_csrf_checks=True)
    other.post(place(draft, YOU, more), {"name": "Planted"})
    assert "sessionid" not in other.cookies
    other.force_login(applicant)
    other.post(place(draft, YOU, more), {"name": "Planted"})
    assert kept(draft) == {}


def test_a_page_from_before_signing_in_again_shows_what_was_typed(draft, applicant):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(applicant)
    page = browser.post(
        place(draft, YOU), {"name": "Typed before", "csrfmiddlewaretoken": "x" * 32}
    )
    assert page.status_code == 403
    assert "Typed before" in page.text and "nothing is saved yet" in page.text
    token = re.search(r'csrfmiddlewaretoken" value="([^"]+)"', page.text).group(1)
    fields = hidden(page) | {"name": "Typed before", "csrfmiddlewaretoken": token}
    browser.post(place(draft, YOU), fields | {"save": "1"})
    assert kept(draft)["name"] == "Typed before"


def test_a_page_of_a_request_submitted_elsewhere_gives_the_words_back(window, application):
    typed = {"continue": "1", "name": "Typed too late"}
    page = window.post(f"/requests/{application.pk}/edit/2/", typed)
    assert page.status_code == 409 and "Typed too late" in page.text
    saved = window.post(f"/requests/{application.pk}/edit/2/save/", typed)
    assert "is not saved" in saved.text


def test_answers_that_changed_since_they_were_checked_are_checked_again(window, draft, at):
    chosen = draft.family.checkpoints.all()
    applications.save(draft, answers=GOOD, checkpoints=chosen, at=at)
    seen = hidden(window.get(f"/requests/{draft.pk}/check/"))
    applications.save(draft, answers={"name": "Somebody else"}, at=at)
    accepted = seen | {"accept": "on", "version": "1"}
    page = window.post(f"/requests/{draft.pk}/check/", accepted, follow=True)
    assert "changed in another window" in page.text and "Somebody else" in page.text
    accepted |= hidden(page)
    page = window.post(f"/requests/{draft.pk}/check/", accepted, follow=True)
    assert "waiting for a reviewer" in page.text


def test_the_check_page_leads_back_to_each_question_and_returns(window, draft, at):
    applications.save(draft, answers=GOOD, checkpoints=draft.family.checkpoints.all(), at=at)
    page = window.get(f"/requests/{draft.pk}/check/").text
    for question, number in (("name", YOU), ("purpose", WORK), ("people", MACHINES)):
        assert f"{place(draft, number)}?from=check#id_{question}" in page
    assert "New Zealand" in page and "Language, Security" in page and "Student" not in page
    changed = window.get(place(draft, YOU) + "?from=check")
    assert 'name="from-check"' in changed.text
    fields = hidden(changed) | {"from-check": "1", "name": "B", "country": "NZ"}
    assert send(window, draft, YOU, fields).url == f"/requests/{draft.pk}/check/"


def test_back_keeps_what_was_typed(window, draft):
    fields = open_page(window, draft, WORK)
    answer = window.post(place(draft, WORK), fields | {"purpose": "Half a sen", "back": "1"})
    assert answer.url == place(draft, YOU)
    assert kept(draft)["purpose"] == "Half a sen"


def test_a_table_grows_row_by_row_up_to_its_limit(window, draft):
    fields = open_page(window, draft, MACHINES)
    for row in range(3):
        fields |= {f"people-{row}-person": f"P{row}", f"people-{row}-task": "Reads"}
        answer = window.post(place(draft, MACHINES), fields | {"add-row": "people"})
        assert answer.url == f"{place(draft, MACHINES)}#id_people"
    page = window.get(place(draft, MACHINES)).text
    assert "people-2-person" in page and "people-3-person" not in page and "Add a row" not in page
    assert [row["person"] for row in kept(draft)["people"]] == ["P0", "P1", "P2"]


def test_one_control_ticks_every_checkpoint(window, draft):
    from tests.portal.access.rows import checkpoint_row

    for name in ("13b", "70b"):
        checkpoint_row(name)
    assert "All 3 that are published now" in window.get(place(draft, 1)).text
    send(window, draft, 1, {}, everything="on")
    assert draft.checkpoints.count() == 3


def test_a_window_that_did_not_touch_the_choice_of_checkpoints_leaves_it(window, draft, checkpoint):
    first, second = open_page(window, draft, 1), open_page(window, draft, 1)
    send(window, draft, 1, first, checkpoints=[checkpoint.pk])
    send(window, draft, 1, second, checkpoints=[])
    assert list(draft.checkpoints.all()) == [checkpoint]
    send(window, draft, 1, first, checkpoints=[])  # the same window takes its tick back
    assert not draft.checkpoints.exists()


def test_a_published_form_is_never_changed_and_a_wrong_one_never_published(draft, operator, at):
    version = FormVersion.objects.get()
    version.questions = [{"id": "a", "type": "text", "label": "A"}]
    with pytest.raises(FormMistake, match="not changed"):
        version.save()
    with pytest.raises(FormMistake, match="its type must be"):
        publish_form(draft.family, [{"id": "a", "type": "x", "label": "A"}], by=operator, at=at)
    assert FormVersion.objects.count() == 1


def test_old_answers_stay_under_the_version_they_answered(client, draft, reviewer, operator, at):
    applications.save(draft, answers=GOOD, checkpoints=draft.family.checkpoints.all(), at=at)
    publish_form(draft.family, [{"id": "name", "type": "text", "label": "N"}], by=operator, at=at)
    applications.submit(draft, terms=draft.family.terms, at=at, address=None, agent="")
    assert current_form(draft.family, at=at).version == 2
    assert "Language, Security" in draft.applicant.messages.get(kind="request.submitted").body
    client.force_login(reviewer)
    page = client.get(f"/admin/access/accessrequest/{draft.pk}/change/").text
    assert "What best describes you?" in page and "Language, Security" in page


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"gpus": "many"}, "whole number"),
        ({"gpus": "9" * 5000}, "whole number"),
        ({"gpus": "0"}, "greater than or equal to 1"),
        ({"phone": "call me"}, "telephone number"),
        ({"address": "300.1.1.1"}, "such as 192.0.2.7"),
        ({"country": "Atlantis"}, "valid choice"),
        ({"fields": ["nlp", "cv", "sec"]}, "Choose at most 2"),
        ({"purpose": "Short"}, "at least 10 characters"),
        ({"people": [{"person": "B", "task": ""}]}, "every column of row 1"),
        ({"role": "student", "title": "T", "due": "2025-12-31"}, "must not be before"),
        ({"country": "KP"}, "Answer this question"),
    ],
)
def test_submitting_past_the_pages_is_refused_by_the_verb_itself(draft, at, answers, says):
    chosen = draft.family.checkpoints.all()
    applications.save(draft, answers=GOOD | answers, checkpoints=chosen, at=at)
    with pytest.raises(applications.ApplicationError, match=says):
        applications.submit(draft, terms=draft.family.terms, at=at, address=None, agent="")
    assert kept(draft) == GOOD | answers


NAMES = [question["id"] for question in EVERY_TYPE] + ["people-0-person", "people-1-task", "x"]
ANYTHING = st.text(max_size=30) | st.sampled_from(
    [
        "",
        "student",
        "other",
        "NZ",
        "KP",
        "8",
        "2027-01-01",
        "::1",
        "nlp",
        "A. Applicant",
        "\0",
        "+49 30 1234",
    ]
)


@given(
    typed=st.dictionaries(st.sampled_from(NAMES), st.lists(ANYTHING, min_size=1, max_size=3)),
    base=st.text(max_size=20) | st.just("{}") | st.just('{"name": "x", "fields": ""}') | st.none(),
    number=st.sampled_from([1, YOU, WORK, MACHINES]),
    finish=st.booleans(),
)
@hypothesis_settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_saving_never_fails_and_submitting_succeeds_or_names_the_first_mistake(
    window, draft, at, typed, base, number, finish
):
    AccessRequest.objects.filter(pk=draft.pk).update(answers={}, meanwhile={}, status="draft")
    draft.refresh_from_db()
    if finish:
        applications.save(draft, answers=GOOD, checkpoints=draft.family.checkpoints.all(), at=at)
    data = typed | ({} if base is None else {"page-base": base})
    assert window.post(place(draft, number, "save/"), data).status_code == 200
    assert window.post(place(draft, number), data | {"continue": "1"}).status_code in (302, 422)
    draft.refresh_from_db()
    unfinished = first_unfinished(draft, attached_to(draft))
    answer = window.get(f"/requests/{draft.pk}/check/")
    if unfinished is None:
        applications.submit(draft, terms=draft.family.terms, at=at, address=None, agent="")
        assert draft.status == "submitted"
    else:
        with pytest.raises(applications.ApplicationError, match=unfinished[0].page.title):
            applications.submit(draft, terms=draft.family.terms, at=at, address=None, agent="")
        page = window.get(answer.url)
        assert 'id="errors-title"' in page.text and page.status_code == 422


def test_an_application_page_asks_the_same_number_of_queries_however_many_checkpoints(
    window, draft, at, django_assert_num_queries
):
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from tests.portal.access.rows import checkpoint_row

    applications.save(draft, answers=GOOD, checkpoints=draft.family.checkpoints.all(), at=at)
    pages = [
        place(draft, 1),
        place(draft, WORK),
        f"/requests/{draft.pk}/check/",
        f"/requests/{draft.pk}/",
    ]

    def counts():
        seen = []
        for page in pages:
            with CaptureQueriesContext(
                connection,
            ) as queries:
                assert window.get(page).status_code == 200
            seen.append(len(queries))
        return seen

    before = counts()
    for number in range(5):
        checkpoint_row(f"v{number}")
    applications.save(draft, answers=GOOD, checkpoints=draft.family.checkpoints.all(), at=at)
    assert counts() == before and max(before) <= 15


def test_only_our_own_htmx_is_served_and_it_may_not_evaluate(window, draft):
    page = window.get(place(draft, YOU)).text
    assert "django_htmx/htmx-2.min.js" in page and '"allowEval": false' in page
    script = window.get(f"{settings.STATIC_URL}django_htmx/htmx-2.min.js")
    assert script.status_code == 200 and b"htmx" in script.getvalue()
