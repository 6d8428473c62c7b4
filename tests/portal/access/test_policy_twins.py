"""The policy function and its queryset twin agree, whatever the facts are."""

from datetime import timedelta

import pytest
from allauth.account.models import EmailAddress
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portal.access import policy
from portal.access.applications import accept
from portal.access.models import AccessRequest, Decision, Grant
from tests.conftest import make_person
from tests.portal.access.rows import checkpoint_row

HOUR = timedelta(hours=1)
hours = st.integers(-3, 3)
facts = st.lists(
    st.fixed_dictionaries(
        {
            "starts": hours,
            "length": st.integers(1, 4),
            "revoked": st.none() | hours,
            "checkpoint": st.integers(0, 1),
        }
    ),
    max_size=4,
)


@pytest.fixture
def cast(db):
    checkpoints = [checkpoint_row("7b"), checkpoint_row("13b")]
    return make_person("grantee@uni.example"), make_person("reviewer@lab.example"), checkpoints


@given(
    grants=facts,
    accepted=st.booleans(),
    confirmed=st.booleans(),
    active=st.booleans(),
    staff=st.booleans(),
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_one_answer_and_the_list_of_answers_agree(
    cast, at, grants, accepted, confirmed, active, staff
):
    user, reviewer, checkpoints = cast
    Grant.objects.all().delete()
    user.acceptances.all().delete()
    terms = checkpoints[0].family.terms
    user.is_active, user.is_staff, user.is_superuser = active, staff, staff
    user.save()
    EmailAddress.objects.filter(user=user).update(verified=confirmed)
    if accepted:
        accept(user, terms, at=at - HOUR)
    request = AccessRequest.objects.create(
        applicant=user,
        family=terms.family,
        by_operator=True,
        status="approved",
        created_at=at,
        saved_at=at,
        submitted_at=at,
    )
    decision = Decision.objects.create(
        request=request, outcome="approved", reason="R", by=reviewer, at=at
    )
    for fact in grants:
        revoked = None if fact["revoked"] is None else at + fact["revoked"] * HOUR
        starts = at + fact["starts"] * HOUR
        Grant.objects.create(
            grantee=user,
            checkpoint=checkpoints[fact["checkpoint"]],
            decision=decision,
            terms=terms,
            starts_at=starts,
            expires_at=starts + fact["length"] * HOUR,
            revoked_at=revoked,
            revoked_by=reviewer if revoked else None,
            revoke_reason="R" if revoked else "",
        )
    listed = set(policy.downloadable_by(user, at))
    for checkpoint in checkpoints:
        answer = policy.decide(user, checkpoint, at)
        assert answer.allowed == (checkpoint in listed)
        assert bool(answer.reason) != answer.allowed
