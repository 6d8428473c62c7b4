"""The reviewer's desk, used as a reviewer does: by its pages and forms."""

from datetime import timedelta

import pytest
from django.utils.timezone import now

from portal.access import applications
from portal.access.models import AccessRequest, Decision, Grant
from portal.audit.models import Event
from tests.conftest import ANSWERS

QUEUE = "/admin/access/accessrequest/"


@pytest.fixture
def desk(client, reviewer):
    client.force_login(reviewer)
    return client


@pytest.fixture
def second(stranger, checkpoint, at):
    request = applications.begin(stranger, checkpoint.family, at=at)
    applications.save(request, answers=ANSWERS, checkpoints=[checkpoint], at=at)
    applications.submit(request, terms=checkpoint.family.terms, at=at, address=None, agent="")
    return request


def next_month():
    return (now() + timedelta(days=30)).date().isoformat()


def decide(desk, request, verb, **typed):
    place = f"{QUEUE}{request.pk}/decide/{verb}/"
    return desk.post(place, {"decide": "1", "reason": "Sound."} | typed, follow=True)


def test_the_queue_shows_who_waits_the_oldest_first(desk, application, second):
    page = desk.get(QUEUE).content.decode()
    assert page.index(f"Request {application.pk}") < page.index(f"Request {second.pk}")
    assert "applicant@uni.example" in page


def test_a_draft_is_nobodys_business(desk, applicant, family, at):
    draft = applications.begin(applicant, family, at=at)
    assert f"Request {draft.pk}" not in desk.get(f"{QUEUE}?status=all").content.decode()
    assert desk.get(f"{QUEUE}{draft.pk}/change/").status_code == 302


def test_what_an_applicant_typed_is_text_to_the_reviewer(desk, application):
    AccessRequest.objects.filter(pk=application.pk).update(answers={"name": "<script>x</script>"})
    page = desk.get(f"{QUEUE}{application.pk}/change/").content.decode()
    assert "&lt;script&gt;x" in page and "<script>x" not in page


def test_approving_begins_a_grant_until_the_end_of_the_day(desk, application, reviewer):
    decide(desk, application, "approve", until=next_month())
    grant = Grant.objects.get()
    assert grant.expires_at.isoformat().startswith(f"{next_month()}T23:59:59")
    assert grant.decision.by == reviewer


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ({"until": ""}, "This field is required"),
        ({"until": "2001-01-01"}, "This day has passed"),
        ({"until": "soon"}, "Enter a valid date"),
        ({"reason": " "}, "This field is required"),
        ({"reason": "x" * 5001}, "at most 5000"),
    ],
)
def test_a_decision_that_cannot_be_is_asked_again(desk, application, typed, says):
    page = decide(desk, application, "approve", **({"until": next_month()} | typed))
    assert says in page.content.decode()
    assert not Decision.objects.exists()


def test_who_comes_second_is_told_who_was_first(desk, application):
    decide(desk, application, "return")
    page = decide(desk, application, "reject").content.decode()
    assert "Already returned by reviewer@lab.example" in page
    assert Decision.objects.count() == 1


def test_many_are_decided_with_one_decision_and_one_event_each(desk, application, second):
    chosen = {"_selected_action": [application.pk, second.pk], "action": "approve_many"}
    page = desk.post(QUEUE, chosen).content.decode()
    assert "Approve and begin the grant" in page and not Decision.objects.exists()
    typed = {"decide": "1", "reason": "Sound.", "until": next_month()}
    page = desk.post(QUEUE, chosen | typed, follow=True)
    assert Decision.objects.count() == Grant.objects.count() == 2
    assert Event.objects.filter(action="request.approved").count() == 2


def test_who_only_reads_cannot_decide(client, stranger, application):
    from django.contrib.auth.models import Permission

    stranger.is_staff = True
    stranger.save()
    stranger.user_permissions.add(Permission.objects.get(codename="view_accessrequest"))
    client.force_login(stranger)
    assert client.get(f"{QUEUE}{application.pk}/change/").status_code == 200
    assert decide(client, application, "approve", until=next_month()).status_code == 403
    chosen = {"_selected_action": [application.pk], "action": "approve_many", "decide": "1"}
    client.post(QUEUE, chosen | {"reason": "R", "until": next_month()})
    assert not Decision.objects.exists()


def test_revoking_asks_for_a_reason(desk, grant):
    place = f"/admin/access/grant/{grant.pk}/revoke/"
    assert b"This field is required" in desk.post(place, {"reason": ""}).content
    desk.post(place, {"reason": "The project has ended."})
    grant.refresh_from_db()
    assert grant.revoke_reason == "The project has ended."
