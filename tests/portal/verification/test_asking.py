import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from portal.verification import asking, copies
from portal.verification.asking import AskError, ask_folder, ask_upload, ask_urls
from portal.verification.models import Verification

URL = "https://files.example/model.safetensors"


@pytest.fixture
def drop(settings, tmp_path):
    settings.DROP_FOLDER = tmp_path / "drop"
    (settings.DROP_FOLDER / "copy").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    return settings.DROP_FOLDER


@pytest.fixture
def data(settings, tmp_path):
    settings.DATA = tmp_path
    return tmp_path


def test_a_reviewer_names_a_folder_under_the_drop_folder(reviewer, drop, at):
    assert ask_folder(reviewer, "copy", None, at=at).what == ["copy"]


@pytest.mark.parametrize("name", ["../secret", "copy/../../secret", "/etc", "", ".", "a\0b", "no"])
def test_no_folder_outside_the_drop_folder_is_checked(reviewer, drop, at, name):
    with pytest.raises(AskError):
        ask_folder(reviewer, name, None, at=at)


def test_a_link_out_of_the_drop_folder_is_refused(reviewer, drop, at):
    (drop / "link").symlink_to(drop.parent / "secret")
    with pytest.raises(AskError, match="no folder"):
        ask_folder(reviewer, "link", None, at=at)


def test_only_reviewers_name_folders(applicant, drop, at):
    with pytest.raises(AskError, match="reviewers"):
        ask_folder(applicant, "copy", None, at=at)


def test_only_people_with_a_confirmed_address_ask(applicant, at):
    applicant.emailaddress_set.update(verified=False)
    with pytest.raises(AskError, match="Confirm"):
        ask_urls(applicant, [URL], None, at=at)


def test_checks_a_day_are_limited(applicant, at, settings):
    settings.CHECKS_PER_DAY = 1
    ask_urls(applicant, [URL], None, at=at)
    with pytest.raises(AskError, match="1 checks in 24 hours"):
        ask_urls(applicant, [URL], None, at=at)


def test_bytes_a_day_are_limited(applicant, at, settings, data):
    settings.CHECK_BYTES_PER_DAY = 10
    ask_upload(applicant, [SimpleUploadedFile("a.bin", b"1234567")], None, at=at)
    with pytest.raises(AskError, match="3 are left"):
        ask_upload(applicant, [SimpleUploadedFile("a.bin", b"1234567")], None, at=at)
    assert len(list((data / "copies").iterdir())) == 1


def test_an_upload_is_kept_under_plain_names(applicant, at, data):
    check = ask_upload(applicant, [SimpleUploadedFile("a.bin", b"1")], None, at=at)
    assert (copies.folder_of(check.pk) / "files" / "a.bin").read_bytes() == b"1"
    assert check.bytes_total == 1


@pytest.mark.parametrize(
    "url",
    (
        *("ftp://x.example/a", "https:///a", "http://[", "http://x.example:99999/a"),
        *("/etc/passwd", "https://me:secret@x.example/a", "https://x.example/"),
        "https://x.example/a%0Ab",
    ),
)
def test_what_is_no_address_of_a_file_is_refused(applicant, at, url):
    with pytest.raises(AskError):
        ask_urls(applicant, [url], None, at=at)
    assert not Verification.objects.exists()


@pytest.mark.parametrize("name", ["..", "", "a\nb", ".hidden", "a\0", "x" * 300])
def test_names_that_are_no_file_names_are_refused(name):
    with pytest.raises(AskError):
        asking.file_name(name)


def test_a_stranger_finds_no_check_of_others(client, applicant, stranger, at):
    check = ask_urls(applicant, [URL], None, at=at)
    client.force_login(stranger)
    for more in ("", "report.json", "report.html"):
        assert client.get(check.get_absolute_url() + more).status_code == 404


def test_who_asked_sees_their_check(client, applicant, at):
    check = ask_urls(applicant, [URL], None, at=at)
    client.force_login(applicant)
    page = client.get(check.get_absolute_url())
    assert page.status_code == 200 and b'http-equiv="refresh"' in page.content


def test_who_is_not_signed_in_is_sent_to_sign_in(client, db):
    answer = client.post("/verify/", {"urls": URL})
    assert answer.status_code == 302 and answer.url.startswith("/account/login/?next=/verify/")


def test_a_form_without_its_token_is_refused(applicant):
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    client.force_login(applicant)
    assert client.post("/verify/", {"urls": URL}).status_code == 403
    assert not Verification.objects.exists()


def test_an_upload_beyond_what_anyone_may_send_is_not_read(client, applicant, settings):
    settings.CHECK_BYTES_PER_DAY = 1
    client.force_login(applicant)
    answer = client.post("/verify/", {"urls": URL}, CONTENT_LENGTH=str(10**12))
    assert answer.status_code == 413


def test_the_style_sheet_of_reports_is_served(client, db):
    answer = client.get("/report.css")
    assert answer["Content-Type"].startswith("text/css") and b".wb-report" in answer.content
