import threading
import uuid
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from portal.verification import asking, claims, fetching
from portal.verification.models import Verification

LEASE = timedelta(seconds=46)


@pytest.fixture
def check(applicant, at):
    return Verification.objects.create(
        asked_by=applicant, source="urls", what=["https://x.example/a"], created_at=at
    )


def test_one_worker_claims_a_check_and_no_other(check, at):
    assert claims.claim(check.pk, at=at)
    assert claims.claim(check.pk, at=at) is None


def test_a_check_whose_worker_is_gone_is_taken_over_and_the_first_is_fenced(check, at):
    first = claims.claim(check.pk, at=at)
    later = at + LEASE
    second = claims.claim(check.pk, at=later)
    assert second
    assert not claims.beat(check.pk, first, at=later, progress={})
    assert not claims.finish(check.pk, first, at=later, status="done", verdict="identical")
    assert claims.finish(check.pk, second, at=later, status="done", verdict="damaged")
    check.refresh_from_db()
    assert (check.verdict, check.attempt) == ("damaged", 2)


def test_a_heartbeat_keeps_the_check(check, at):
    owner = claims.claim(check.pk, at=at)
    assert claims.beat(check.pk, owner, at=at + LEASE / 2, progress={"bytes_done": 7})
    assert claims.claim(check.pk, at=at + LEASE) is None


def test_a_check_that_never_ends_is_given_up_with_a_reason(check, at):
    for n in range(Verification.ATTEMPTS):
        assert claims.claim(check.pk, at=at + n * LEASE)
    over = at + Verification.ATTEMPTS * LEASE
    assert claims.claim(check.pk, at=over) is None
    claims.give_up(over)
    check.refresh_from_db()
    assert check.status == "failed" and "without a result" in check.sentence


def test_what_nobody_was_told_of_is_told_again_once(check, at):
    assert claims.due(at) == [check.pk]
    assert claims.due(at) == []
    assert claims.due(at + LEASE) == [check.pk]


@pytest.mark.parametrize("name", ["..", "../x", "/etc", "a/../../b", "", "link", "a\0b"])
def test_no_folder_outside_the_drop_folder_is_checked(reviewer, settings, tmp_path, at, name):
    settings.DROP_FOLDER = tmp_path / "drop"
    settings.DROP_FOLDER.mkdir()
    (settings.DROP_FOLDER / "link").symlink_to("/etc")
    with pytest.raises(asking.AskError):
        asking.ask_folder(reviewer, name, None, at=at)


def test_only_reviewers_name_folders(applicant, at):
    with pytest.raises(asking.AskError, match="Only reviewers"):
        asking.ask_folder(applicant, "copy", None, at=at)


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://x/a", "https://u:p@x.example/a", "https:///a", "https://x/.."],
)
def test_only_plain_web_addresses_are_taken(applicant, at, url):
    with pytest.raises(asking.AskError):
        asking.ask_urls(applicant, [url], None, at=at)


def test_checks_per_day_are_counted(applicant, at, settings, check):
    settings.CHECKS_PER_DAY = 1
    with pytest.raises(asking.AskError, match="24 hours"):
        asking.ask_urls(applicant, ["https://x.example/a"], None, at=at)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "10.0.0.1",
        "169.254.169.254",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    ],
)
def test_private_addresses_are_refused(tmp_path, host):
    with pytest.raises(fetching.FetchError, match="not a public address"):
        fetching.fetch(f"http://{host}:1/a", tmp_path / "a", limit=9, progress=lambda n: None)
    assert not (tmp_path / "a").exists()


class _Site(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/away"):
            self.send_response(302)
            self.send_header("Location", "http://elsewhere.internal/secret")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        if self.path != "/silent":
            self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"0123456789"[: 5 if self.path == "/short" else 10])

    def log_message(self, *args):
        pass


@pytest.fixture
def site(settings):
    settings.FETCH_PRIVATE_ADDRESSES = True
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def get(url, target, limit=100):
    return fetching.fetch(url, target, limit=limit, progress=lambda n: None)


def test_a_file_is_fetched_whole(site, tmp_path):
    assert get(f"{site}/a", tmp_path / "a") == 10
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_a_file_larger_than_what_is_left_is_refused(site, tmp_path):
    for path in ("/a", "/silent"):
        with pytest.raises(fetching.FetchError, match="left for"):
            get(site + path, tmp_path / path[1:], limit=9)


def test_a_file_cut_short_is_said_so(site, tmp_path):
    with pytest.raises(fetching.FetchError, match="5 of 10|stopped"):
        get(f"{site}/short", tmp_path / "a")


def test_each_redirect_is_checked_anew(site, tmp_path, settings, monkeypatch):
    asked = []
    real = fetching.public_address

    def only_the_site(host, port):
        asked.append(host)
        settings.FETCH_PRIVATE_ADDRESSES = host == "127.0.0.1"
        return real("127.0.0.1", port) if host == "elsewhere.internal" else real(host, port)

    monkeypatch.setattr(fetching, "public_address", only_the_site)
    with pytest.raises(fetching.FetchError, match="not a public address"):
        get(f"{site}/away", tmp_path / "a")
    assert asked == ["127.0.0.1", "elsewhere.internal"]


def test_a_strangers_check_is_not_found(client, stranger, check):
    client.force_login(stranger)
    assert client.get(f"/verifications/{check.pk}/").status_code == 404
    assert client.get(f"/verifications/{uuid.uuid4()}/").status_code == 404
