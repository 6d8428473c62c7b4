"""Files of an application: bounded, private, and never shown by a browser."""

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from portal.access import applications, attachments, decisions
from portal.access.form_versions import publish_form
from portal.access.models import Attachment
from portal.audit.models import Event
from portal.storage.stores import store

PLAN = {
    "id": "plan",
    "type": "attachment",
    "label": "Your plan",
    "extensions": ["pdf", "txt"],
    "max_size": 1000,
    "max_files": 2,
}
ROLE = {"id": "role", "type": "option", "label": "R", "options": [["a", "A"], ["b", "B"]]}
PDF = b"%PDF-1.7\nplan"


@pytest.fixture
def draft(applicant, checkpoint, operator, at):
    hidden = PLAN | {
        "id": "extra",
        "required": False,
        "visible_if": {"question": "role", "is": "b"},
    }
    publish_form(checkpoint.family, [ROLE, PLAN, hidden], by=operator, at=at)
    made = applications.begin(applicant, checkpoint.family, at=at)
    applications.save(made, answers={"role": "a"}, checkpoints=[checkpoint], at=at)
    yield made
    for key in Attachment.objects.values_list("store_key", flat=True):
        store().delete(key)


@pytest.fixture
def window(client, applicant):
    client.force_login(applicant)
    return client


def upload(client, draft, name="plan.pdf", content=PDF, button="upload-file"):
    typed = {"plan": SimpleUploadedFile(name, content), "role": "a", button: "1"}
    return client.post(f"/requests/{draft.pk}/edit/2/", typed)


def attach(draft, at, question=PLAN, name="plan.pdf", content=PDF):
    return attachments.attach(draft, question, SimpleUploadedFile(name, content), at=at)


def submit(draft, at):
    applications.submit(draft, terms=draft.family.terms, at=at, address=None, agent="")


def test_a_file_is_kept_with_its_digest_outside_of_public_paths(window, draft):
    assert upload(window, draft).status_code == 302
    file = draft.attachments.get()
    assert (file.name, file.size, file.media_type) == ("plan.pdf", len(PDF), "application/pdf")
    with store().open(file.store_key) as bytes_kept:
        assert bytes_kept.read() == PDF
    page = window.get(f"/requests/{draft.pk}/edit/2/")
    assert "plan.pdf" in page.text and file.store_key not in page.text


def test_a_required_file_is_asked_for(window, draft):
    page = window.post(f"/requests/{draft.pk}/edit/2/", {"role": "a", "continue": "1"})
    assert page.status_code == 422 and 'href="#id_plan"' in page.text
    assert upload(window, draft, button="continue").url == f"/requests/{draft.pk}/check/"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("plan.exe", b"MZ", "not one of the types"),
        ("plan.pdf", b"PK\x03\x04", "something else"),
        ("plan.pdf", PDF + b"x" * 1000, "at most 0.001 MB"),
        ("plan.pdf", b"", "is empty"),
    ],
)
def test_a_file_that_is_not_taken_is_told_at_its_question(window, draft, name, content, says):
    page = upload(window, draft, name, content)
    assert page.status_code == 422 and says in page.text and 'href="#id_plan"' in page.text
    assert not Attachment.objects.exists()


def test_one_file_too_many_is_refused(draft, at):
    attach(draft, at)
    attach(draft, at)
    with pytest.raises(attachments.AttachmentError, match="remove one first"):
        attach(draft, at)


@pytest.mark.parametrize(
    ("bound", "says"), [("PER_REQUEST", "of one request"), ("PER_PERSON", "one person")]
)
def test_files_are_bounded_by_request_and_by_person(draft, at, monkeypatch, bound, says):
    monkeypatch.setattr(attachments, bound, 2 * len(PDF) - 1)
    attach(draft, at)
    with pytest.raises(attachments.AttachmentError, match=says):
        attach(draft, at)


def test_a_page_that_announces_too_much_is_not_read(window, draft):
    page = window.post(
        f"/requests/{draft.pk}/edit/2/", b"", content_type="text/plain", CONTENT_LENGTH=str(10**9)
    )
    assert page.status_code == 413 and "larger than 25 MB" in page.text


def test_a_file_is_sent_to_be_saved_and_never_to_be_shown(window, draft, at):
    answer = window.get(attach(draft, at, name="plän.pdf").get_absolute_url())
    assert answer.getvalue() == PDF
    assert answer.headers["Content-Disposition"].startswith(
        "attachment; filename*=utf-8''pl%C3%A4n"
    )
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert answer.headers["Content-Type"] == "application/octet-stream"


def test_only_the_applicant_and_reviewers_read_a_file_and_a_reviewers_reading_is_an_event(
    client, draft, at, applicant, reviewer, stranger
):
    file = attach(draft, at)

    def seen_by(person):
        client.force_login(person)
        answer = client.get(file.get_absolute_url())
        answer.getvalue()  # read to its end, the file is closed
        return answer.status_code

    assert [seen_by(one) for one in (applicant, reviewer, stranger)] == [200, 404, 404]
    submit(draft, at)
    assert not Event.objects.filter(action="attachment.read").exists()
    assert [seen_by(one) for one in (applicant, reviewer, stranger)] == [200, 200, 404]
    assert Event.objects.get(action="attachment.read").actor == reviewer.actor
    client.force_login(reviewer)
    assert "plan.pdf" in client.get(f"/admin/access/accessrequest/{draft.pk}/change/").text


def test_a_file_of_one_request_is_not_at_the_address_of_another(client, draft, at, stranger):
    file = attach(draft, at)
    other = applications.begin(stranger, draft.family, at=at)
    client.force_login(stranger)
    assert client.get(f"/requests/{other.pk}/files/{file.pk}/").status_code == 404
    client.post(f"/requests/{other.pk}/edit/2/", {"remove-file": str(file.pk)})
    assert Attachment.objects.get() == file


def test_a_file_taken_back_before_it_was_sent_is_deleted(
    window, draft, at, django_capture_on_commit_callbacks
):
    file = attach(draft, at)
    with django_capture_on_commit_callbacks(execute=True):
        window.post(f"/requests/{draft.pk}/edit/2/", {"role": "a", "remove-file": str(file.pk)})
    assert not Attachment.objects.exists() and store().head(file.store_key) is None


def test_a_file_that_reviewers_could_see_stays_on_record(draft, at, reviewer):
    file = attach(draft, at)
    submit(draft, at)
    decisions.return_(draft, by=reviewer, reason="Another plan, please.", at=at)
    attachments.remove(file, at=at)
    file.refresh_from_db()
    assert file.removed_at == at and store().head(file.store_key)
    assert attachments.attached_to(draft) == {}


def test_the_files_of_a_deleted_draft_go_and_those_of_a_withdrawn_request_stay(
    draft, at, django_capture_on_commit_callbacks
):
    file = attach(draft, at)
    with django_capture_on_commit_callbacks(execute=True):
        applications.withdraw(draft, at=at)
    assert not Attachment.objects.exists() and store().head(file.store_key) is None
    again = applications.begin(draft.applicant, draft.family, at=at)
    applications.save(
        again, answers={"role": "a"}, checkpoints=draft.family.checkpoints.all(), at=at
    )
    kept = attach(again, at)
    submit(again, at)
    with django_capture_on_commit_callbacks(execute=True):
        applications.withdraw(again, at=at)
    assert store().head(kept.store_key) is not None


def test_the_file_of_a_hidden_question_is_not_sent(draft, at, django_capture_on_commit_callbacks):
    applications.save(draft, answers={"role": "b"}, at=at)
    attach(draft, at)
    extra = attach(draft, at, question=PLAN | {"id": "extra"})
    applications.save(draft, answers={"role": "a"}, at=at)
    with django_capture_on_commit_callbacks(execute=True):
        submit(draft, at)
    assert set(attachments.attached_to(draft)) == {"plan"}
    assert store().head(extra.store_key) is None


def test_nothing_is_added_or_removed_after_submitting(draft, at):
    file = attach(draft, at)
    submit(draft, at)
    with pytest.raises(attachments.AttachmentError, match="was not added"):
        attach(draft, at)
    with pytest.raises(attachments.AttachmentError, match="was not removed"):
        attachments.remove(file, at=at)


def test_a_file_that_cannot_be_stored_leaves_no_row(draft, at, monkeypatch):
    from portal.storage.errors import StoreError

    def full(*_):
        raise StoreError("no room")

    monkeypatch.setattr(type(store()), "put_bytes", full)
    with pytest.raises(StoreError):
        attach(draft, at)
    assert not Attachment.objects.exists()
