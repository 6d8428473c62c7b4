import threading
from datetime import timedelta

import pytest
from django.core import mail
from django.db import connections
from django.utils.timezone import now

from portal.access import applications, decisions, policy
from portal.access.models import AccessRequest, Decision, Grant
from portal.audit.chain import breaks
from portal.audit.models import Event
from tests.conftest import ANSWERS

DAY = timedelta(days=1)


def approve(request, by, at=None, **changes):
    at = at or now()
    return decisions.approve(
        request, by=by, **{"reason": "Sound.", "at": at, "until": at + 30 * DAY} | changes
    )


def test_approving_begins_a_grant_and_tells_the_applicant(
    application, reviewer, at, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        (grant,) = approve(application, reviewer, at)
    assert grant.is_active(at) and not grant.is_active(at + 31 * DAY)
    assert "Sound." in mail.outbox[-1].body
    actions = set(Event.objects.values_list("action", flat=True))
    assert {"request.submitted", "request.approved", "grant.begun"} <= actions
    assert list(breaks()) == []


def test_nobody_approves_their_own_request(application, applicant):
    with pytest.raises(decisions.DecisionError, match="their own"):
        approve(application, applicant)


def test_a_decided_request_cannot_be_decided_again(application, reviewer, operator):
    approve(application, reviewer)
    with pytest.raises(decisions.DecisionError, match="Already approved by reviewer@lab.example"):
        decisions.reject(application, by=operator, reason="No.", at=now())
    assert Decision.objects.count() == 1


def test_a_decision_needs_a_reason(application, reviewer):
    with pytest.raises(decisions.DecisionError, match="Write the reason"):
        approve(application, reviewer, reason="  ")


def test_a_grant_does_not_end_before_it_begins(application, reviewer, at):
    with pytest.raises(decisions.DecisionError, match="later date"):
        approve(application, reviewer, at, until=at)


def test_a_returned_request_is_changed_and_submitted_again(application, reviewer, checkpoint, at):
    decisions.return_(application, by=reviewer, reason="Which data?", at=at)
    assert application.is_editable
    applications.submit(
        application, terms=checkpoint.family.terms, at=at, address=None, agent="tests"
    )
    approve(application, reviewer, at)


def test_a_rejected_applicant_may_apply_again_from_the_date_they_were_told(
    application, reviewer, applicant, at
):
    decision = decisions.reject(application, by=reviewer, reason="Too vague.", at=at)
    with pytest.raises(applications.ApplicationError, match="again from"):
        applications.begin(applicant, application.family, at=at + DAY)
    assert applications.begin(applicant, application.family, at=decision.apply_again_at)


def test_a_withdrawn_request_cannot_be_decided(application, reviewer, at):
    applications.withdraw(application, at=at)
    with pytest.raises(decisions.DecisionError, match="withdrawn"):
        approve(application, reviewer)


def test_revoking_keeps_the_grant_and_says_who_when_why(grant, reviewer, at):
    decisions.revoke(grant, by=reviewer, reason="Project ended.", at=at + DAY)
    assert grant.is_active(at) and not grant.is_active(at + DAY)
    with pytest.raises(decisions.DecisionError, match="Already revoked"):
        decisions.revoke(grant, by=reviewer, reason="Again.", at=at + DAY)


def test_many_are_decided_one_by_one(application, reviewer, stranger, checkpoint, at):
    second = applications.begin(stranger, checkpoint.family, at=at)
    applications.save(second, answers=ANSWERS, checkpoints=[checkpoint], at=at)
    applications.submit(second, terms=checkpoint.family.terms, at=at, address=None, agent="")
    applications.withdraw(second, at=at)
    results = decisions.decide_each([application, second], lambda one: approve(one, reviewer))
    assert [bool(result.error) for result in results] == [False, True]
    assert Decision.objects.count() == 1
    assert Event.objects.filter(action="request.approved").count() == 1


def test_an_operators_grant_is_decision_acceptance_and_audit_like_any(
    checkpoint, stranger, reviewer, at
):
    grant = decisions.grant_directly(
        stranger, checkpoint, by=reviewer, reason="Paper form.", at=at, until=at + DAY
    )
    assert policy.decide(stranger, checkpoint, at).grant == grant
    assert stranger.acceptances.get().attested_by == reviewer
    assert Event.objects.filter(action="request.approved", actor=reviewer.actor).exists()


def test_a_grant_ends_at_its_last_moment(grant, applicant, checkpoint):
    last = grant.expires_at - timedelta(microseconds=1)
    assert policy.decide(applicant, checkpoint, last).allowed
    refused = policy.decide(applicant, checkpoint, grant.expires_at)
    assert not refused.allowed and "ended" in refused.reason


def test_staff_and_superusers_need_a_grant_like_anyone(checkpoint, operator, reviewer, at):
    for person in (operator, reviewer):
        assert not policy.decide(person, checkpoint, at).allowed
        assert not policy.downloadable_by(person, at).exists()


def test_of_two_reviewers_who_race_one_wins_and_the_other_is_told_who(committed_db):
    from tests.conftest import make_person
    from tests.portal.access.rows import checkpoint_row, submitted_request

    checkpoint = checkpoint_row()
    request = submitted_request(make_person("applicant@uni.example"), checkpoint)
    reviewers = [make_person(f"reviewer{n}@lab.example") for n in (1, 2)]
    start, outcomes = threading.Barrier(2), []

    def decide(by):
        start.wait()
        try:
            approve(AccessRequest.objects.get(pk=request.pk), by)
            outcomes.append("won")
        except decisions.DecisionError as error:
            outcomes.append(str(error))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=decide, args=[by]) for by in reviewers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("won") == 1
    assert any("Already approved by reviewer" in outcome for outcome in outcomes)
    assert Grant.objects.count() == 1
