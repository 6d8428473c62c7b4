"""What is known of a person, from whom, until when."""

from datetime import timedelta

import pytest
from allauth.account.models import EmailAddress

from portal.accounts import domains, evidence, people
from portal.accounts.models import DomainEntry, IdentityEvidence
from portal.audit.models import Event
from tests.conftest import make_person

DAY = timedelta(days=1)
By, Kind = evidence.By, evidence.Kind


def confirm(user, address, at):
    EmailAddress.objects.get_or_create(user=user, email=address, defaults={"verified": True})
    people.confirm_address(
        user, address, source="link", by=user.actor, asserted_by=By.SYSTEM, at=at
    )


def kinds(user, at, **more):
    return {one.kind for one in evidence.of(user, at=at, **more)}


@pytest.mark.parametrize(
    ("address", "standing", "entry"),
    [
        ("a@cs.ox.ac.uk", "institution", "academic.txt: ac.uk"),
        ("a@MIT.EDU", "institution", "academic.txt: edu"),
        ("a@gmail.com", "free", "free-mail.txt: gmail.com"),
        ("a@mail.gmail.com", "free", "free-mail.txt: gmail.com"),
    ],
)
def test_the_shipped_lists_say_what_a_domain_is_and_name_their_line(db, address, standing, entry):
    found = domains.standing_of(address)
    assert (found.standing, found.entry) == (standing, entry)


@pytest.mark.parametrize("address", ["a@uni.example", "a@notgmail.com", "a@ac.uk.example", "a@com"])
def test_a_domain_that_no_list_names_says_nothing(db, address):
    assert domains.standing_of(address) is None


def test_an_entry_of_ours_comes_before_the_shipped_lists_and_the_longest_wins(db):
    DomainEntry.objects.create(domain="ac.uk", standing="denied")
    kept = DomainEntry.objects.create(domain="lab.ac.uk", standing="institution")
    assert domains.standing_of("a@x.ac.uk").standing == "denied"
    found = domains.standing_of("a@x.lab.ac.uk")
    assert found.standing == "institution"
    assert found.entry == f"list of domains, entry {kept.pk}: lab.ac.uk"


def test_the_shipped_lists_hold_domains_in_small_letters_and_none_twice():
    for name in domains.SHIPPED.values():
        lines = [n for n in (domains.FOLDER / name).read_text().splitlines() if n[0] != "#"]
        assert len(lines) == len(set(lines)) == len(domains._shipped(name))
        assert all(n == n.lower() and "." in n + "." and " " not in n for n in lines)


def test_a_confirmed_address_of_an_institution_is_two_rows_with_five_facts(db, at):
    user = make_person("a@cs.ox.ac.uk")
    confirm(user, user.email, at)
    rows = {row.kind: row for row in IdentityEvidence.objects.all()}
    institution = rows[Kind.INSTITUTION]
    assert (institution.value, institution.by, institution.asserted_at) == ("ac.uk", "system", at)
    assert institution.source == "academic.txt: ac.uk" and institution.expires_at is None
    assert kinds(user, at) == {"email", "institution"}


def test_evidence_of_an_address_ends_with_the_address(db, at):
    user = make_person("a@cs.ox.ac.uk")
    confirm(user, user.email, at)
    confirm(user, "a@new.example", at)
    EmailAddress.objects.filter(email="a@cs.ox.ac.uk").delete()
    assert [one.value for one in evidence.of(user, at=at)] == ["a@new.example"]
    assert IdentityEvidence.objects.count() == 3  # facts stay


def test_a_reviewer_sees_what_speaks_against_a_person_and_the_person_does_not(db, at):
    user = make_person("a@gmail.com")
    confirm(user, user.email, at)
    assert kinds(user, at) == {"email"}
    (doubt,) = [k for k in evidence.of(user, at=at, for_reviewer=True) if k.kind == "domain-free"]
    assert (doubt.value, doubt.source) == ("a@gmail.com", "free-mail.txt: gmail.com")


def test_evidence_expires(applicant, at):
    evidence.add(
        applicant, Kind.AFFILIATION, "Uni", source="s", by=By.SELF, brought_by="x", at=at,
        expires_at=at + DAY,
    )  # fmt: skip
    assert kinds(applicant, at) == {"affiliation"}
    assert kinds(applicant, at + DAY) == set()


def test_the_same_again_within_a_month_is_the_same_row_and_later_a_new_one(applicant, at):
    for days in (0, 3, 40):
        people.describe(applicant, name="A", affiliation="Uni", at=at + days * DAY)
    assert IdentityEvidence.objects.count() == 2
    (shown,) = evidence.of(applicant, at=at + 41 * DAY)
    assert shown.asserted_at == at + 40 * DAY and shown.by == "self"


def test_of_what_people_say_of_themselves_the_last_counts(applicant, at):
    people.describe(applicant, name="A", affiliation="First", at=at)
    people.describe(applicant, name="A", affiliation="Second", at=at + DAY)
    assert [one.value for one in evidence.of(applicant, at=at + 2 * DAY)] == ["Second"]


def test_an_operators_entry_reaches_those_who_confirmed_before_and_is_an_event(
    client, operator, applicant, at
):
    client.force_login(operator)
    form = {"domain": "uni.example", "standing": "institution", "note": "asked by the dean"}
    assert client.post("/admin/accounts/domainentry/add/", form).status_code == 302
    (row,) = IdentityEvidence.objects.filter(kind=Kind.INSTITUTION)
    entry = DomainEntry.objects.get()
    assert row.user == applicant and f"entry {entry.pk}" in row.source
    client.post(f"/admin/accounts/domainentry/{entry.pk}/delete/", {"post": "yes"})
    actions = Event.objects.filter(actor=operator.actor).values_list("action", flat=True)
    assert {"domain.added", "domain.removed"} <= set(actions)
    assert "institution" not in kinds(applicant, at + DAY)


def test_no_address_and_no_name_of_a_person_enters_the_audit(db, at):
    user = make_person("a.secret.name@cs.ox.ac.uk")
    confirm(user, user.email, at)
    people.describe(user, name="Secret Name", affiliation="Secret place", at=at)
    told = " ".join(f"{e.subject} {e.detail}" for e in Event.objects.all()).lower()
    assert Event.objects.filter(action="evidence.added").count() == 3 and "secret" not in told


def test_the_page_says_how_we_know_you_and_keeps_what_you_say(client, applicant, at):
    confirm(applicant, applicant.email, at)
    client.force_login(applicant)
    form = {"name": "A. Applicant", "affiliation": "Physics, University of Example"}
    client.post("/account/identity/about/", form)
    page = client.get("/account/identity/").text
    for words in (applicant.email, "a system", "Physics, University of Example", "the person"):
        assert words in page
    assert "Enter" not in page and client.post("/account/identity/about/", {}).status_code == 200
