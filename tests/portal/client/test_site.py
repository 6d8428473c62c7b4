"""The client's manners on the wire: who sees the token, what is asked again, what is refused."""

import http.server
import json
import ssl
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from portal.client.errors import BrokenOffError, ClientError, PortalError, RefusedError
from portal.client.site import LONGEST_WAIT, TRIES, Origin, Site
from portal.client.tokens import token_for


class Server:
    """Answers in order with what a test lays down: (status, headers, body)."""

    def __init__(self, context=None):
        self.answers, self.seen = [], []

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(handler):
                self.seen.append((handler.path, handler.headers.get("Authorization")))
                status, headers, body = self.answers.pop(0)
                handler.send_response(status)
                for name, value in headers.items():
                    handler.send_header(name, value)
                if "Content-Length" not in headers:
                    handler.send_header("Content-Length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body)

            do_POST = do_GET

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        if context:
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
            self.scheme = "https"
        self.http.handle_error = lambda *args: None
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server():
    with Server() as made:
        yield made


@pytest.fixture
def slept():
    return []


@pytest.fixture
def site(server, slept):
    return Site(server.url, token="hf_secret", sleep=slept.append)


OK = (200, {}, b'{"a": 1}')


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_passes_is_asked_for_again_later_each_time(site, server, slept, status):
    server.answers = [(status, {}, b"")] * (TRIES - 1) + [OK]
    assert site.get_json("/x") == {"a": 1}
    assert len(slept) == TRIES - 1 and slept[0] < slept[-1]


def test_what_does_not_pass_is_given_up_with_its_reason(site, server):
    body = json.dumps({"detail": "Closed for\nrepairs."}).encode()
    server.answers = [(503, {"Content-Type": "application/problem+json"}, body)] * TRIES
    with pytest.raises(BrokenOffError, match=r"^Closed for repairs\.$"):
        site.get_json("/x")
    assert server.answers == []


def test_retry_after_is_obeyed_in_seconds_and_as_a_date(site, server, slept):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    server.answers = [(503, {"Retry-After": "7"}, b""), (503, {"Retry-After": date}, b""), OK]
    site.get_json("/x")
    assert slept[0] == 7 and 15 < slept[1] <= 20


def test_a_wait_without_end_is_not_waited(site, server, slept):
    server.answers = [(429, {"Retry-After": str(int(LONGEST_WAIT) + 1)}, b"")]
    with pytest.raises(PortalError, match="asks to wait 61 seconds"):
        site.get_json("/x")
    assert slept == []


def test_an_answer_that_breaks_off_is_asked_for_again(site, server):
    server.answers = [(200, {"Content-Length": "99"}, b'{"a"'), OK]
    assert site.get_json("/x") == {"a": 1}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_a_refusal_is_not_asked_again_and_tells_its_reason(site, server, slept, status):
    body = json.dumps({"detail": "No."}).encode()
    server.answers = [(status, {"Content-Type": "application/problem+json"}, body)]
    with pytest.raises(RefusedError, match=r"^No\.$") as caught:
        site.get_json("/x")
    assert (caught.value.status, slept) == (status, [])


@pytest.mark.parametrize("body", [b"<html>", b"[" * 100_000, b'{"a": "\xff"}', b""])
def test_what_is_no_json_is_no_portal(site, server, body):
    server.answers = [(200, {}, body)]
    with pytest.raises(PortalError, match="is .* a Weighbridge portal"):
        site.get_json("/x")


def test_an_answer_without_end_is_not_read(site, server):
    server.answers = [(200, {}, bytes(2000))]
    with pytest.raises(PortalError, match="larger than 1,000 bytes"):
        site.get_bytes(f"{server.url}/x", 1000)


def test_a_redirect_takes_the_token_to_nobody_else(site, server):
    with Server() as other:
        server.answers = [(302, {"Location": f"{other.url}/there"}, b"")]
        other.answers = [OK]
        assert site.get_json("/here") == {"a": 1}
        assert server.seen == [("/here", "Bearer hf_secret")]
        assert other.seen == [("/there", None)]


def test_redirects_that_never_end_are_left(site, server):
    server.answers = [(302, {"Location": "/again"}, b"")] * 10
    with pytest.raises(PortalError, match="more than 5 times"):
        site.get_json("/here")


@pytest.mark.parametrize(
    "target", ["http://portal.example/", "ftp://127.0.0.1/", "file:///etc/passwd", "//["]
)
def test_a_redirect_leads_to_nothing_that_would_not_be_asked(site, server, target):
    server.answers = [(302, {"Location": target}, b"")]
    with pytest.raises(ClientError):
        site.get_json("/here")


def test_a_question_with_a_body_is_not_sent_on(site, server):
    server.answers = [(301, {"Location": "https://portal.example/"}, b"")]
    with pytest.raises(PortalError, match="give that portal's address"):
        site.post_json("/x", {})


@pytest.mark.parametrize(
    "url",
    ["portal.example", "ftp://x", "http://", "https://u:p@x", "https://x/?a", "https://x/#a"]
    + ["http://10.0.0.1", "http://portal.example", "https://x:99999", "https://x\n", "https://ä"],
)
def test_an_address_that_is_not_a_portals_is_refused(url):
    with pytest.raises(PortalError):
        Site(url + " x" if url.endswith("\n") else url)


def test_plain_http_is_for_this_machine_or_by_wish():
    for host in ("127.0.0.1", "localhost", "[::1]", "127.9.9.9"):
        Site(f"http://{host}:8000")
    Site("http://portal.example", insecure_http=True)
    assert Origin.of("https://Portal.Example").port == 443


def test_a_portal_elsewhere_cannot_lead_to_this_machine():
    site = Site("https://portal.example")
    with pytest.raises(PortalError, match="without encryption"):
        site.get_json("http://127.0.0.1:9/x")


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path):
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    command += f" -subj /CN=127.0.0.1 -keyout {tmp_path}/key -out {tmp_path}/cert"
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with Server(context) as server, pytest.raises(PortalError, match="does not prove who it is"):
        Site(server.url).get_json("/x")


def test_a_host_that_is_not_there_is_said_so():
    site = Site("http://127.0.0.1:1", sleep=lambda seconds: None)
    with pytest.raises(BrokenOffError, match="127.0.0.1 cannot be reached: Connection refused"):
        site.get_json("/x")


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.delenv("WEIGHBRIDGE_TOKEN", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "weighbridge" / "tokens.json"
    path.parent.mkdir()
    path.write_text('{"https://portal.example": "hf_kept"}')
    path.chmod(0o600)
    return path


def test_a_token_comes_from_the_environment_else_from_the_file_for_this_portal(kept, monkeypatch):
    assert token_for("https://portal.example") == "hf_kept"
    assert token_for("https://other.example") is None
    monkeypatch.setenv("WEIGHBRIDGE_TOKEN", "hf_environment")
    assert token_for("https://portal.example") == "hf_environment"


def test_a_token_file_that_others_can_read_is_not_used(kept):
    kept.chmod(0o644)
    with pytest.raises(ClientError, match="chmod 600"):
        token_for("https://portal.example")


@pytest.mark.parametrize("content", ["[]", "{", "null"])
def test_a_token_file_that_is_spoiled_is_said_so(kept, content):
    kept.write_text(content)
    with pytest.raises(ClientError, match="log in again"):
        token_for("https://portal.example")
