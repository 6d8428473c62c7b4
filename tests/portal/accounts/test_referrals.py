"""A referee is asked by a link, answers once, and their words are the reviewers'."""

import re
from datetime import timedelta

import pytest

from portal.accounts import evidence, referrals
from portal.accounts.models import IdentityEvidence, Referral
from portal.audit.models import Event
from portal.outbox.models import Message

DAY = timedelta(days=1)
WORDS = "We have shared an office for three years."


def ask(user, at, address="prof@uni.example", relation="supervisor"):
    return referrals.ask(user, name="Prof. R.", address=address, relation=relation, at=at)


def key_in(address="prof@uni.example"):
    body = Message.objects.filter(address=address).latest("pk").body
    return re.search(r"/account/refer/\?key=(\S+)", body).group(1)


@pytest.fixture
def referral(applicant, at):
    return ask(applicant, at)


def reply(client, key, yes="yes", **more):
    return client.post("/account/refer/", {"key": key, "confirmed": yes, "words": WORDS} | more)


def test_a_referee_sees_who_asks_and_what_and_confirms_once(client, referral, applicant, at):
    page = client.get(f"/account/refer/?key={key_in()}")
    for words in (applicant.email, "supervisor", "Do you know", "you can answer once"):
        assert words in page.text
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert "Thank you" in reply(client, key_in()).text
    (row,) = IdentityEvidence.objects.filter(kind="referee")
    assert (row.by, row.value) == ("peer", "Prof. R. <prof@uni.example>")
    again = reply(client, key_in(), yes="no")
    assert again.status_code == 404 and "answered this already" in again.text
    assert Referral.objects.get().confirmed is True


def test_the_words_are_for_reviewers_and_for_the_person_only_where_the_referee_says_so(
    client, applicant, at
):
    for address, opened in (("a@uni.example", {}), ("b@uni.example", {"words_open": "on"})):
        ask(applicant, at, address)
        reply(client, key_in(address), words=f"{WORDS} {address}", **opened)
    client.force_login(applicant)
    page = client.get("/account/identity/").text
    assert f"{WORDS} b@uni.example" in page and f"{WORDS} a@uni.example" not in page
    own = "".join(m.body for m in Message.objects.filter(to=applicant))
    assert WORDS not in own
    seen = [known.words for known in evidence.of(applicant, for_reviewer=True)]
    assert f"{WORDS} a@uni.example" in seen


def test_a_no_is_no_evidence_and_the_reviewers_see_it(client, referral, applicant):
    reply(client, key_in(), yes="no")
    assert not IdentityEvidence.objects.exists() and evidence.of(applicant) == []
    (doubt,) = evidence.of(applicant, for_reviewer=True)
    assert (doubt.kind, doubt.words) == ("referee-declined", WORDS)


def test_who_signs_for_the_institution_is_a_signing_official(client, applicant, at):
    ask(applicant, at, relation="official")
    reply(client, key_in())
    assert IdentityEvidence.objects.get().by == "so"


def test_only_a_digest_of_the_key_is_kept_and_the_mail_forgets_it(referral, settings, at):
    from portal.outbox import sending

    key = key_in()
    assert key not in str(vars(Referral.objects.get()))
    sending.send_due(at)
    assert key not in Message.objects.get(address="prof@uni.example").body


def test_a_link_ends_after_two_weeks_and_says_so(referral, at):
    key = key_in()
    assert referrals.opened_by(key, at=at + 13 * DAY) == referral
    with pytest.raises(referrals.ReferralError, match="has ended"):
        referrals.opened_by(key, at=at + 14 * DAY)


def test_a_new_link_ends_the_old_one_and_lasts_two_weeks_more(referral, at):
    old, later = key_in(), at + 10 * DAY
    referrals.resend(referral, at=later)
    with pytest.raises(referrals.ReferralError, match="newer one"):
        referrals.opened_by(old, at=later)
    assert referrals.opened_by(key_in(), at=later + 13 * DAY) == referral


def test_a_link_goes_out_at_most_once_an_hour_and_five_times(referral, at):
    with pytest.raises(referrals.ReferralError, match="once an hour"):
        referrals.resend(referral, at=at + timedelta(minutes=59))
    for hour in range(1, 5):
        referrals.resend(referral, at=at + timedelta(hours=hour))
    with pytest.raises(referrals.ReferralError, match="5 times"):
        referrals.resend(referral, at=at + timedelta(hours=9))


def test_a_withdrawn_question_cannot_be_answered(client, referral, at):
    referrals.withdraw(referral, at=at)
    answer = reply(client, key_in())
    assert answer.status_code == 404 and "taken back" in answer.text
    with pytest.raises(referrals.ReferralError, match="before"):
        referrals.withdraw(referral, at=at)


def test_replacing_withdraws_one_and_asks_another_or_neither(referral, applicant, at):
    with pytest.raises(referrals.ReferralError, match="your own"):
        referrals.replace(referral, name="Me", address=applicant.email, relation="colleague", at=at)
    assert Referral.objects.get().withdrawn_at is None
    referrals.replace(referral, name="B", address="b@uni.example", relation="colleague", at=at)
    assert [r.state(at) for r in Referral.objects.order_by("pk")] == ["withdrawn", "waiting"]


def test_nobody_confirms_themselves_or_is_asked_twice_at_once(referral, applicant, at):
    for address, says in (("APPLICANT@uni.example", "your own"), ("Prof@uni.example", "already")):
        with pytest.raises(referrals.ReferralError, match=says):
            ask(applicant, at, address)


def test_nobody_is_flooded(applicant, at):
    for number in range(3):
        ask(applicant, at, f"r{number}@uni.example")
    with pytest.raises(referrals.ReferralError, match="withdraw one first"):
        ask(applicant, at, "r3@uni.example")


def test_keys_cannot_be_tried_without_end(client, db):
    statuses = [client.get("/account/refer/?key=x").status_code for _ in range(21)]
    assert statuses == [404] * 20 + [429]


def test_the_page_asks_resends_replaces_and_withdraws(client, applicant, stranger, at):
    client.force_login(applicant)
    form = {"referee-name": "R", "referee-address": "r@uni.example", "referee-relation": "official"}
    wrong = client.post("/account/identity/referees/", form | {"referee-address": applicant.email})
    assert "your own address" in wrong.text
    client.post("/account/identity/referees/", form)
    one = Referral.objects.get()
    place = f"/account/identity/referees/{one.pk}"
    assert "once an hour" in client.post(f"{place}/resend/", follow=True).text
    assert "in the place of R" in client.get(f"{place}/replace/").text
    client.post(f"{place}/replace/", form | {"referee-address": "s@uni.example"})
    other = Referral.objects.latest("pk")
    client.post(f"/account/identity/referees/{other.pk}/withdraw/")
    assert [r.state(at) for r in Referral.objects.all()] == ["withdrawn", "withdrawn"]
    client.force_login(stranger)
    assert client.post(f"{place}/resend/").status_code == 404


def test_the_audit_tells_the_story_without_a_name(client, referral):
    reply(client, key_in())
    events = Event.objects.filter(subject=referral.subject)
    assert {e.action for e in events} == {"referral.asked", "referral.answered"}
    assert not any("prof" in e.detail.lower() for e in events)
