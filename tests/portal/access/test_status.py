"""The status page: where it is, who has it, what is missing, every message, and the way back."""

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from portal.access import applications, conversation, decisions
from portal.access.form_versions import publish_form
from portal.access.models import AccessRequest, Decision
from portal.access.views.status import time_to_decision
from portal.audit.models import Event
from portal.outbox.models import Message as Mail
from tests.conftest import ANSWERS, make_person

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def window(client, applicant):
    client.force_login(applicant)
    return client


@pytest.fixture
def second_reviewer(db):
    from django.contrib.auth.models import Group

    user = make_person("second@lab.example", is_staff=True)
    user.groups.add(Group.objects.get(name="Reviewers"))
    return user


@pytest.fixture
def rejected(application, reviewer, at):
    decisions.reject(application, by=reviewer, reason="Too vague.", at=at)
    return application


def page_of(client, request):
    return re.sub(r"\s+", " ", client.get(request.get_absolute_url()).text)


def submit_again(request, at):
    applications.submit(request, terms=request.family.terms, at=at, address=None, agent="")


def test_a_draft_says_which_questions_are_missing_and_on_which_page(window, family, applicant, at):
    draft = applications.begin(applicant, family, at=at)
    page = page_of(window, draft)
    assert "You have it." in page
    assert f'href="/requests/{draft.pk}/edit/2/">You</a>: What is your full name?;' in page


def test_who_waits_is_told_by_role_who_has_it_and_never_by_name(window, application, reviewer, at):
    conversation.write(application, by=reviewer, body="Which data?", at=at)
    page = page_of(window, application)
    assert "The reviewers have it." in page and "1st in the queue" in page
    assert "Your answer to the last message of a reviewer" in page
    assert "Which data?" in page and reviewer.email not in page


def test_a_message_goes_to_the_other_side_by_mail_and_is_on_both_pages(
    window, client, application, reviewer, operator, at
):
    window.post(f"/requests/{application.pk}/messages/", {"body": "When will you look? <b>"})
    mails = Mail.objects.filter(kind="request.message")
    assert {mail.to for mail in mails} == {reviewer, operator}
    assert "applicant@uni.example wrote" in mails[0].subject  # a reviewer's mail says who asks
    client.force_login(reviewer)
    place = f"/admin/access/accessrequest/{application.pk}/"
    assert "When will you look? &lt;b&gt;" in client.get(f"{place}change/").text
    client.post(f"{place}message/", {"body": "Today."})
    assert "Today." in Mail.objects.get(to=application.applicant, kind="request.message").body
    assert Event.objects.filter(action="message.written").count() == 2
    # from now on this reviewer has it, and the other is left in peace
    conversation.write(application, by=application.applicant, body="Thanks.", at=at + HOUR)
    assert Mail.objects.filter(to=operator, kind="request.message").count() == 1


@pytest.mark.parametrize(("body", "says"), [(" ", "Write something"), ("x" * 5001, "at most 5000")])
def test_a_message_that_is_not_taken_stays_in_its_box(window, application, body, says):
    page = window.post(f"/requests/{application.pk}/messages/", {"body": body})
    assert page.status_code == 422 and says in page.text and body.strip() in page.text
    assert not application.messages.exists()


@pytest.mark.parametrize(("page", "name"), [("messages", "body"), ("appeal", "appeal-body")])
def test_words_sent_from_a_lost_session_wait_in_their_box(client, rejected, applicant, page, name):
    answer = client.post(f"/requests/{rejected.pk}/{page}/", {name: "Typed while signed out"})
    assert answer.url == f"/account/login/?next=/requests/{rejected.pk}/"
    word = {"login": applicant.email, "password": "weighbridge-test"}
    shown = client.post(answer.url, word, follow=True).text
    assert "Typed while signed out</textarea>" in shown and "not sent yet" in shown
    assert not rejected.messages.exists()


@pytest.mark.parametrize("page", ["withdraw", "copy"])
def test_a_button_of_a_lost_session_leads_back_to_its_page(client, application, page):
    answer = client.post(f"/requests/{application.pk}/{page}/")
    assert answer.url == f"/account/login/?next=/requests/{application.pk}/"
    assert client.post("/families/llama/apply/").url.endswith("?next=/families/llama/")


def test_nobody_writes_without_end_or_about_a_draft(application, stranger, at):
    for _ in range(conversation.MOST_A_DAY):
        conversation.write(application, by=application.applicant, body="Hello?", at=at)
    with pytest.raises(conversation.ConversationError, match="tomorrow"):
        conversation.write(application, by=application.applicant, body="Hello?", at=at)
    draft = applications.begin(stranger, application.family, at=at)
    with pytest.raises(conversation.ConversationError, match="submit it first"):
        conversation.write(draft, by=stranger, body="Hello?", at=at)


def test_strangers_cannot_write_appeal_or_copy(client, rejected, stranger):
    client.force_login(stranger)
    for page in ("messages", "appeal", "copy"):
        answer = client.post(f"/requests/{rejected.pk}/{page}/", {"body": "x", "appeal-body": "x"})
        assert answer.status_code == 404


def test_who_only_reads_requests_does_not_write_to_applicants(client, stranger, application):
    from django.contrib.auth.models import Permission

    stranger.is_staff = True
    stranger.save()
    stranger.user_permissions.add(Permission.objects.get(codename="view_accessrequest"))
    client.force_login(stranger)
    place = f"/admin/access/accessrequest/{application.pk}/message/"
    assert client.post(place, {"body": "Hello"}).status_code == 403


def test_a_rejection_gives_the_reason_and_every_way_back(window, rejected):
    page = page_of(window, rejected)
    for said in ("Too vague.", "Ask another reviewer", "You may apply again from", "Copy to a new"):
        assert said in page
    mail = Mail.objects.get(kind="request.rejected").body
    assert "another reviewer" in mail and "apply again from" in mail


def test_an_appeal_goes_to_another_reviewer(
    window, client, rejected, reviewer, second_reviewer, at
):
    window.post(f"/requests/{rejected.pk}/appeal/", {"appeal-body": "Page 3 has it."})
    page = page_of(window, rejected)
    assert "A reviewer other than the one who rejected it has it." in page
    assert "Page 3 has it." in page and "1st in the queue" in page
    told = Mail.objects.filter(kind="request.message").values_list("to__email", flat=True)
    assert list(told) == [second_reviewer.email]
    rejected.refresh_from_db()
    with pytest.raises(decisions.DecisionError, match="goes to another reviewer"):
        decisions.reject(rejected, by=reviewer, reason="Still no.", at=at + HOUR)
    client.force_login(reviewer)
    change = f"/admin/access/accessrequest/{rejected.pk}/change/"
    assert "decide/approve" not in client.get(change).text
    client.force_login(second_reviewer)
    assert "decide/approve" in client.get(change).text
    decisions.approve(
        rejected, by=second_reviewer, reason="It does.", at=at + HOUR, until=at + 30 * DAY
    )


def test_a_rejection_is_appealed_once_and_the_rejection_of_an_appeal_not(
    window, rejected, second_reviewer, at
):
    conversation.appeal(rejected, reason="Look again.", at=at)
    with pytest.raises(conversation.ConversationError, match="once"):
        conversation.appeal(rejected, reason="And again.", at=at)
    decisions.reject(rejected, by=second_reviewer, reason="No.", at=at + HOUR)
    with pytest.raises(conversation.ConversationError, match="once"):
        conversation.appeal(rejected, reason="And again.", at=at + 2 * HOUR)
    page = page_of(window, rejected)
    assert "Ask another reviewer" not in page and "You may apply again from" in page


def test_an_appeal_needs_words_and_no_other_open_request(window, rejected, applicant, at):
    page = window.post(f"/requests/{rejected.pk}/appeal/", {"appeal-body": ""})
    assert page.status_code == 422 and 'href="#id_appeal-body"' in page.text
    later = at + 100 * DAY
    applications.begin(applicant, rejected.family, at=later)
    with pytest.raises(conversation.ConversationError, match="another application"):
        conversation.appeal(rejected, reason="Look again.", at=later)
    rejected.refresh_from_db()
    assert rejected.status == "rejected" and not Event.objects.filter(action="request.appealed")


@pytest.mark.parametrize("outcome", ["approve", "return_"])
def test_only_a_rejection_is_appealed(application, reviewer, at, outcome):
    more = {"until": at + DAY} if outcome == "approve" else {}
    getattr(decisions, outcome)(application, by=reviewer, reason="R.", at=at, **more)
    with pytest.raises(conversation.ConversationError, match="once"):
        conversation.appeal(application, reason="Look again.", at=at)


def test_a_copy_takes_the_answers_that_the_newest_form_still_asks_for(
    window, application, operator, at
):
    applications.withdraw(application, at=at)
    changed = [
        {"id": "name", "label": "N", "type": "text"},
        {"id": "role", "label": "R", "type": "text"},  # was an option
        {"id": "purpose", "label": "P", "type": "long_text"},
    ]
    publish_form(application.family, changed, by=operator, at=at)
    answer = window.post(f"/requests/{application.pk}/copy/")
    made = AccessRequest.objects.latest("pk")
    assert answer.url == f"/requests/{made.pk}/edit/" and made.form_version.version == 2
    assert made.answers == {key: ANSWERS[key] for key in ("name", "purpose")}
    assert list(made.checkpoints.all()) == list(application.checkpoints.all())


def test_a_copy_never_writes_over_an_open_request_nor_comes_before_the_date(
    window, application, reviewer, at
):
    page = window.post(f"/requests/{application.pk}/copy/", follow=True)
    assert "go on with that one" in page.text
    decisions.reject(application, by=reviewer, reason="No.", at=at)
    page = window.post(f"/requests/{application.pk}/copy/", follow=True)
    assert "You may apply again from" in page.text
    assert AccessRequest.objects.count() == 1


def test_the_median_is_of_what_each_decision_answered(application, reviewer, at):
    decisions.return_(application, by=reviewer, reason="Which?", at=at + 2 * HOUR)
    submit_again(application, at + 50 * HOUR)
    decisions.reject(application, by=reviewer, reason="No.", at=at + 54 * HOUR)
    assert time_to_decision() == (3 * HOUR, 2)
    assert Decision.objects.first().asked_at == at


def test_every_submission_stays_in_the_timeline(window, application, reviewer, at):
    decisions.return_(application, by=reviewer, reason="Which?", at=at + HOUR)
    submit_again(application, at + 2 * HOUR)
    assert page_of(window, application).count("<strong>Submitted</strong>") == 2


def test_the_status_page_asks_as_many_queries_however_long_the_story(
    window, client, application, reviewer, at
):
    def count(place):
        with CaptureQueriesContext(connection) as queries:
            assert client.get(place).status_code == 200
        return len(queries)

    review = f"/admin/access/accessrequest/{application.pk}/change/"
    conversation.write(application, by=application.applicant, body="A", at=at)
    before = count(application.get_absolute_url())
    client.force_login(reviewer)
    client.get("/")  # the first page of a session of staff notes when it began
    before_review = count(review)
    for number in range(5):
        conversation.write(application, by=application.applicant, body="A", at=at)
        decisions.return_(application, by=reviewer, reason="R", at=at + number * HOUR)
        submit_again(application, at + number * HOUR)
    assert count(review) == before_review
    client.force_login(application.applicant)
    assert count(application.get_absolute_url()) == before <= 15


def test_what_was_accepted_and_decided_cannot_be_deleted_with_what_it_is_about(
    application, reviewer, at
):
    from django.db.models import ProtectedError

    decisions.return_(application, by=reviewer, reason="Which?", at=at)
    submit_again(application, at + HOUR)
    assert application.decisions.count() == 1, "going on keeps what was decided before"
    for row in (application.family.terms, application, application.applicant, reviewer):
        with pytest.raises(ProtectedError):
            row.delete()
