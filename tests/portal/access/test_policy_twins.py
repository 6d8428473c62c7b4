"""The policy function and its queryset twin agree, whatever the facts are."""

from datetime import timedelta

import pytest
from allauth.account.models import EmailAddress
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portal.access import policy
from portal.access.applications import accept
from portal.access.models import AccessRequest, Decision, Grant
from portal.catalog.publishing import add_terms
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
    newer=st.lists(
        st.tuples(st.none() | hours, st.none() | hours), max_size=3
    ),  # of each newer version: when it is due, when it was accepted
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
    cast, at, grants, accepted, newer, confirmed, active, staff
):
    user, reviewer, checkpoints = cast
    Grant.objects.all().delete()
    user.acceptances.all().delete()
    family = checkpoints[0].family
    family.terms_versions.filter(version__gt=1).delete()
    terms = family.terms
    user.is_active, user.is_staff, user.is_superuser = active, staff, staff
    user.save()
    EmailAddress.objects.filter(user=user).update(verified=confirmed)
    if accepted:
        accept(user, terms, at=at - HOUR)
    for due, taken in newer:
        made = add_terms(
            family, "Words.", at=at, accept_by=None if due is None else at + due * HOUR
        )
        if taken is not None:
            accept(user, made, at=at + taken * HOUR)
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
    rests = _rests(newer)
    listed = set(policy.downloadable_by(user, at))
    for checkpoint in checkpoints:
        answer = policy.decide(user, checkpoint, at)
        assert not (rests and answer.allowed)
        assert answer.allowed == (checkpoint in listed)
        assert bool(answer.reason) != answer.allowed
        if answer.grant:
            assert at < policy.opens_until(answer.grant, at) <= answer.grant.expires_at


def _rests(newer):
    """Whether a version was due by now, and neither it nor a later one accepted by now."""
    return any(
        due is not None
        and due <= 0
        and not any(taken is not None and taken <= 0 for _, taken in newer[place:])
        for place, (due, _) in enumerate(newer)
    )
