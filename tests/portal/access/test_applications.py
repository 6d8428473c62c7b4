"""An application as its applicant types it."""

from datetime import timedelta

import pytest

from portal.access import applications, decisions
from portal.access.models import AccessRequest
from tests.conftest import ANSWERS

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def signed_in(client, applicant):
    client.force_login(applicant)
    return client


@pytest.fixture
def draft(signed_in, checkpoint, applicant):
    signed_in.post("/families/llama/apply/")
    return AccessRequest.objects.get(applicant=applicant)


def place(request, page=""):
    return f"/requests/{request.pk}/{page}"


# where the default form asks what
CHECKPOINTS, YOU, WORK = "edit/1/", "edit/2/", "edit/3/"
ASKED = {YOU: ("name", "affiliation", "role"), WORK: ("purpose", "publications")}


def type_in(client, request, button="continue", **changes):
    """Fill in all pages, those with ``changes`` last; return what the last answered."""
    typed = (
        {"checkpoints": [one.pk for one in request.family.checkpoints.all()]} | ANSWERS | changes
    )
    pages = {CHECKPOINTS: ("checkpoints",)} | ASKED
    for page in sorted(pages, key=lambda page: not changes.keys().isdisjoint(pages[page])):
        said = {name: typed[name] for name in pages[page]}
        answer = client.post(place(request, page), said | {button: "1"})
    return answer


def test_an_application_goes_from_the_family_to_the_queue(signed_in, draft):
    assert type_in(signed_in, draft).url == place(draft, "check/")
    sent = signed_in.post(place(draft, "check/"), {"accept": "on", "version": "1"}, follow=True)
    assert "waiting for a reviewer" in sent.text and "1st in the queue" in sent.text
    acceptance = draft.applicant.acceptances.get()
    assert (acceptance.terms, acceptance.address) == (draft.family.terms, "127.0.0.1")


def test_applying_twice_goes_on_with_the_same_draft(signed_in, draft):
    assert signed_in.post("/families/llama/apply/").url == place(draft, "edit/")


def test_a_draft_is_kept_though_it_is_invalid(signed_in, draft):
    long = "x" * 400
    type_in(signed_in, draft, button="save", name=long, role="nonsense", purpose="", checkpoints=[])
    draft.refresh_from_db()
    assert draft.answers["name"] == long and draft.status == "draft"
    assert long in signed_in.get(place(draft, YOU)).text


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"name": ""}, "Answer this question"),
        ({"name": "x" * 301}, "at most 300 characters"),
        ({"role": SCRIPT}, "Select a valid choice"),
        ({"checkpoints": []}, "Choose at least one"),
        ({"checkpoints": ["9999"]}, "Choose at least one"),
    ],
)
def test_continuing_with_a_wrong_answer_says_what_to_change_and_loses_nothing(
    signed_in, draft, wrong, error
):
    page = type_in(signed_in, draft, **wrong)
    (name,) = wrong
    assert page.status_code == 422
    assert error in page.text and f'href="#id_{name}' in page.text
    assert SCRIPT not in page.text
    draft.refresh_from_db()
    assert draft.answers["purpose"] == ANSWERS["purpose"]


def test_markup_in_an_answer_is_shown_as_text(signed_in, draft):
    type_in(signed_in, draft, purpose=SCRIPT)
    for page in (WORK, "check/", ""):
        text = signed_in.get(place(draft, page)).text
        assert "&lt;script&gt;" in text and SCRIPT not in text


def test_an_unfinished_application_cannot_be_submitted_past_the_form(signed_in, draft):
    answer = signed_in.post(place(draft, "check/"), {"accept": "on"})
    assert answer.url == place(draft, "edit/1/?check=1&from=check")
    assert "Choose at least one" in signed_in.get(answer.url).text
    draft.refresh_from_db()
    assert draft.status == "draft"


def test_terms_that_are_not_accepted_submit_nothing(signed_in, draft):
    type_in(signed_in, draft)
    page = signed_in.post(place(draft, "check/"), {"version": "1"})
    assert page.status_code == 422 and "Accept the terms" in page.text
    assert not draft.applicant.acceptances.exists()


def test_terms_that_changed_while_they_were_read_must_be_read_again(signed_in, draft, at):
    from portal.catalog.publishing import add_terms

    type_in(signed_in, draft)
    add_terms(draft.family, "Other words.", at=at)
    page = signed_in.post(place(draft, "check/"), {"accept": "on", "version": "1"}, follow=True)
    assert "The terms have changed" in page.text and "Other words." in page.text
    assert not draft.applicant.acceptances.exists()


@pytest.mark.parametrize("page", ["", "edit/", YOU, "check/"])
def test_only_the_applicant_sees_a_request(client, application, stranger, operator, page):
    for other in (stranger, operator):
        client.force_login(other)
        assert client.get(place(application, page)).status_code == 404
    client.logout()
    assert client.get(place(application, page)).url.startswith("/account/login/")


def test_nobody_else_withdraws_a_request(client, application, stranger):
    client.force_login(stranger)
    assert client.post(place(application, "withdraw/")).status_code == 404
    application.refresh_from_db()
    assert application.status == "submitted"


def test_a_withdrawn_request_leaves_the_queue_and_one_may_apply_again(signed_in, application):
    page = signed_in.post(place(application, "withdraw/"), follow=True)
    assert "You took it back" in page.text
    assert not AccessRequest.objects.waiting().exists()
    signed_in.post("/families/llama/apply/")
    assert AccessRequest.objects.open().get() != application


def test_a_submitted_request_is_no_longer_changed(signed_in, application):
    page = type_in(signed_in, application, name="Other")
    assert page.status_code == 409 and "Other" in page.text
    application.refresh_from_db()
    assert application.answers == ANSWERS


def test_a_returned_request_shows_the_reviewers_words_and_the_way_back(
    signed_in, application, reviewer, at
):
    decisions.return_(application, by=reviewer, reason=f"Which data? {SCRIPT}", at=at)
    page = signed_in.get(place(application)).text
    assert "Which data?" in page and SCRIPT not in page
    assert place(application, "edit/") in page


def test_a_rejected_applicant_reads_why_and_the_date(signed_in, application, reviewer, at):
    again = at + timedelta(days=40)
    decisions.reject(application, by=reviewer, reason="Vague.", at=at, apply_again_at=again)
    page = signed_in.get(place(application)).text
    assert "Vague." in page and f"{again.day} {again:%B %Y}" in page


def test_the_place_in_the_queue_counts_those_who_submitted_before(
    client, application, stranger, at
):
    later = at + timedelta(hours=1)
    second = applications.begin(stranger, application.family, at=later)
    applications.save(second, answers=ANSWERS, checkpoints=application.checkpoints.all(), at=later)
    applications.submit(second, terms=second.family.terms, at=later, address=None, agent="tests")
    client.force_login(stranger)
    assert "2nd in the queue" in client.get(place(second)).text
