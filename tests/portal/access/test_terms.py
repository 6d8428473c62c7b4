"""A new version of the terms: asked for, rested upon, accepted, and kept for ever."""

import re
import zlib
from datetime import timedelta

import pytest

from portal.access import policy, terms
from portal.access.acceptance_pdf import acceptance_pdf
from portal.access.models import Acceptance, Grant
from portal.audit.models import Event
from portal.catalog.models import Terms
from portal.outbox.models import Message as Mail

DAY = timedelta(days=1)
NEW = "These weights are given to you for research.\n\n1. You cite us.\n"


@pytest.fixture
def window(client, applicant):
    client.force_login(applicant)
    return client


def publish(family, operator, at, text=NEW, days=10):
    accept_by = None if days is None else at + days * DAY
    return terms.publish_terms(family, text, accept_by=accept_by, by=operator, at=at)


def accept(user, family, at):
    version = family.terms.version
    return terms.accept_newest(user, family, version, at=at, address="192.0.2.7", agent="tests")


def test_holders_are_asked_by_mail_and_nobody_else(grant, stranger, operator, at):
    made = publish(grant.checkpoint.family, operator, at)
    mail = Mail.objects.get(kind="terms.changed")
    assert mail.to == grant.grantee and "/families/llama/terms/" in mail.body
    assert f"{made.accept_by:%d %B %Y}" in mail.subject and "it does not end" in mail.body
    event = Event.objects.get(action="terms.published")
    assert event.subject == "terms:llama:2" and made.sha256 in event.detail


@pytest.mark.parametrize("ended", ["revoked", "expired"])
def test_who_has_no_live_grant_is_not_asked(grant, reviewer, operator, at, ended):
    if ended == "revoked":
        change = {"revoked_at": at, "revoked_by": reviewer, "revoke_reason": "R"}
    else:
        change = {"starts_at": at - 2 * DAY, "expires_at": at - DAY}
    Grant.objects.filter(pk=grant.pk).update(**change)
    publish(grant.checkpoint.family, operator, at)
    assert not Mail.objects.filter(kind="terms.changed").exists()


def test_access_goes_on_until_the_date_then_rests_and_goes_on_when_accepted(grant, operator, at):
    user, checkpoint = grant.grantee, grant.checkpoint
    publish(checkpoint.family, operator, at)
    assert policy.decide(user, checkpoint, at + 9 * DAY).allowed
    later = at + 11 * DAY
    answer = policy.decide(user, checkpoint, later)
    assert not answer.allowed and "rests" in answer.reason
    assert answer.way == "/families/llama/terms/" and answer.way in answer.reason
    assert not policy.decide_for_grant(grant.pk, later).allowed
    accept(user, checkpoint.family, later)
    assert policy.decide(user, checkpoint, later).grant == grant
    grant.refresh_from_db()
    assert grant.revoked_at is None


def test_a_version_without_a_date_makes_nothing_rest(grant, operator, at):
    publish(grant.checkpoint.family, operator, at, days=None)
    assert policy.decide(grant.grantee, grant.checkpoint, at + 29 * DAY).allowed
    assert not Mail.objects.filter(kind="terms.changed").exists()


def test_accepting_a_later_version_does_for_the_one_before(grant, operator, at):
    family = grant.checkpoint.family
    publish(family, operator, at, days=5)
    publish(family, operator, at, text="Other words.", days=None)
    accept(grant.grantee, family, at)
    assert policy.decide(grant.grantee, grant.checkpoint, at + 20 * DAY).allowed


def test_no_url_outlives_the_day_on_which_the_grant_rests(grant, operator, at):
    publish(grant.checkpoint.family, operator, at, days=10)
    assert policy.opens_until(grant, at) == at + 10 * DAY
    accept(grant.grantee, grant.checkpoint.family, at)
    assert policy.opens_until(grant, at) == grant.expires_at


def test_the_page_shows_what_changed_and_takes_the_acceptance_once(window, grant, operator, at):
    family = grant.checkpoint.family
    publish(family, operator, at)
    assert "The terms of Llama have changed" in window.get("/access/").text
    page = window.get("/families/llama/terms/").text
    assert "<ins>1. You cite us.</ins>" in page and "<del>2. You do not pass them on" in page
    refused = window.post("/families/llama/terms/", {"version": "2"})
    assert refused.status_code == 422 and 'href="#id_accept"' in refused.text
    for _ in range(2):
        window.post("/families/llama/terms/", {"accept": "on", "version": "2"})
    assert grant.grantee.acceptances.filter(terms__version=2).count() == 1
    assert "have changed" not in window.get("/access/").text
    assert "<ins>" not in window.get("/families/llama/terms/").text


def test_terms_that_changed_while_they_were_read_are_read_again(window, grant, operator, at):
    publish(grant.checkpoint.family, operator, at)
    publish(grant.checkpoint.family, operator, at, text="Third words.")
    typed = {"accept": "on", "version": "2"}
    page = window.post("/families/llama/terms/", typed, follow=True)
    assert "have changed since you read them" in page.text and "Third words." in page.text
    assert not grant.grantee.acceptances.filter(terms__version__gt=1).exists()


def test_who_never_accepted_any_reads_the_terms_and_accepts_them_by_applying(
    client, stranger, family
):
    client.force_login(stranger)
    page = client.post("/families/llama/terms/", {"accept": "on", "version": "1"})
    assert page.status_code == 200 and "Who applies accepts" in page.text
    assert not Acceptance.objects.exists()


def test_a_resting_grant_says_so_where_its_holder_looks(window, grant, operator, at):
    publish(grant.checkpoint.family, operator, at - 20 * DAY, days=10)
    page = window.get("/access/").text
    assert "The grant rests" in page and 'href="/families/llama/terms/"' in page
    answer = window.post(f"/access/{grant.pk}/urls/")
    assert answer.status_code == 403 and "rests" in answer.text


@pytest.mark.parametrize(
    ("text", "days", "says"),
    [(" ", 10, "1 to"), ("x" * 100_001, 10, "1 to"), (None, 10, "before"), (NEW, -1, "passed")],
)
def test_terms_that_cannot_be_are_not_published(family, operator, at, text, days, says):
    with pytest.raises(terms.TermsError, match=says):
        publish(family, operator, at, text=family.terms.text if text is None else text, days=days)
    assert Terms.objects.count() == 1


def test_the_operator_sees_what_changes_and_who_is_asked_before_publishing(
    client, operator, grant, at
):
    client.force_login(operator)
    place = "/admin/catalog/terms/add/"
    assert "You use them for the purpose" in client.get(place).text
    day = (at + 10 * DAY).date().isoformat()
    typed = {"family": grant.checkpoint.family_id, "text": NEW, "accept_by": day}
    page = client.post(place, typed | {"preview": "1"}).text
    assert "<ins>1. You cite us.</ins>" in page and "<strong>1</strong>" in page
    assert Terms.objects.count() == 1
    client.post(place, typed | {"publish": "1"})
    made = Terms.objects.get(version=2)
    assert made.accept_by.isoformat().startswith(f"{day}T23:59:59")
    page = client.post(place, typed | {"publish": "1"}).text
    assert "the words of the version before" in page and Terms.objects.count() == 2


def streams_of(pdf):
    for found in re.finditer(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.S):
        try:
            yield zlib.decompress(found.group(1))
        except zlib.error:
            yield found.group(1)


@pytest.mark.parametrize(
    "text", [NEW, "Straße “naïve” – Ελλάδα\n中文 العربية 🙂\n\tTab\n" + "x" * 500]
)
def test_the_pdf_holds_the_very_words_and_their_hash(grant, operator, at, text):
    made = publish(grant.checkpoint.family, operator, at, text=text)
    acceptance = accept(grant.grantee, grant.checkpoint.family, at)
    pdf = acceptance_pdf(acceptance)
    assert pdf.startswith(b"%PDF-")
    assert made.text.encode() in set(streams_of(pdf))
    assert Terms.digest_of(made.text) == acceptance.text_sha256


def test_what_was_accepted_can_be_had_by_its_acceptor_and_reviewers_alone(
    client, grant, applicant, reviewer, stranger
):
    place = f"/acceptances/{applicant.acceptances.get().pk}/"
    for person, status in ((applicant, 200), (reviewer, 200), (stranger, 404)):
        client.force_login(person)
        for page in (place, f"{place}terms.pdf"):
            assert client.get(page).status_code == status
    client.force_login(applicant)
    page = client.get(place).text
    assert grant.terms.sha256 in page and "192.0.2.7" in page
    assert client.get(f"{place}terms.pdf").headers["Content-Disposition"].startswith("attachment")
    assert place in client.get("/acceptances/").text


def test_texts_that_agree_have_no_changes():
    assert [one.kind for one in terms.changes("a\nb\n", "a\nb\n")] == ["left-out"]
    kinds = [one.kind for one in terms.changes("a\nb\nc\n", "a\nB\nc\n")]
    assert kinds == ["same", "removed", "added", "same"]
