"""login against a real portal, and against ones that lie; the token's file is for its person alone."""

import json
import stat
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from portal.client import login, tokens
from portal.client.errors import ClientError
from portal.client.login import LoginError, log_in
from portal.client.site import Site
from portal.client.status import lines
from portal.overview.demo.browser import Browser
from portal.overview.demo.portal_process import Portal
from tests.portal.client.conftest import ROOT, run

BEGUN = {
    "device_code": "d" * 43,
    "user_code": "BCDF-GHJK",
    "verification_uri": "https://portal.example/device/",
    "expires_in": 600,
    "interval": 5,
}
GIVEN = {"access_token": "hf_" + "a" * 40, "token_type": "Bearer"}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home of this test's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("WEIGHBRIDGE_TOKEN", raising=False)
    return tmp_path / "config"


@pytest.fixture
def site():
    """A portal that answers in order with what the test lays into ``answers``: (status, JSON)."""
    answers = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            status, content = answers.pop(0)
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        made = Site(f"http://127.0.0.1:{server.server_port}")
        made.waits, made.answers = [], answers
        made.sleep = made.waits.append
        yield made
        server.shutdown()
        thread.join()


def refused(error):
    return (400, {"error": error, "error_description": "Because."})


def test_it_waits_as_asked_slows_down_when_told_and_keeps_the_token(site):
    site.answers += [(200, BEGUN), refused("authorization_pending"), refused("slow_down")]
    site.answers += [refused("authorization_pending"), (200, GIVEN)]
    said = []
    log_in(site, said.append)
    assert "https://portal.example/device/" in said[0] and "BCDF-GHJK" in said[0]
    assert site.waits == [5, 5, 10, 10]
    assert tokens.token_for(site.url) == GIVEN["access_token"]


def test_the_file_of_tokens_is_for_its_person_alone_and_keeps_the_others(home):
    path = tokens.keep("https://a.example", "hf_a")
    path.chmod(0o600)
    tokens.keep("https://b.example", "hf_b")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert json.loads(path.read_text()) == {
        "https://a.example": "hf_a",
        "https://b.example": "hf_b",
    }
    assert tokens.token_for("https://a.example") == "hf_a"
    assert sorted(p.name for p in path.parent.iterdir()) == ["tokens.json", "tokens.lock"]


def test_a_file_that_others_can_read_is_not_added_to(home):
    path = tokens.keep("https://a.example", "hf_a")
    path.chmod(0o644)
    with pytest.raises(ClientError, match="chmod 600"):
        tokens.keep("https://b.example", "hf_b")


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([(200, BEGUN), refused("access_denied")], "said no"),
        ([(200, BEGUN), refused("expired_token")], "Nobody answered"),
        ([(200, BEGUN), refused("invalid_grant")], "gives no token: Because"),
        ([refused("invalid_scope")], "does not begin: Because"),
    ],
)
def test_a_no_is_told_in_a_sentence_and_nothing_is_kept(site, home, answers, says):
    site.answers += answers
    with pytest.raises(LoginError, match=says):
        log_in(site, print)
    assert not home.exists()


def test_it_gives_up_when_the_code_has_ended(site):
    site.answers += [(200, BEGUN), refused("authorization_pending")]
    times = iter([0, 1, 700])
    with pytest.raises(LoginError, match="Nobody answered"):
        log_in(site, print, clock=lambda: next(times))


@pytest.mark.parametrize(
    "wrong",
    [
        {"user_code": None},
        {"device_code": 7},
        {"expires_in": "soon"},
        {"interval": -1},
        {"interval": True},
        {"verification_uri": "x" * 2000},
    ],
)
def test_an_answer_that_is_none_is_refused(site, wrong):
    site.answers += [(200, BEGUN | wrong)]
    with pytest.raises(ClientError, match="holds no"):
        log_in(site, print)


@pytest.mark.parametrize("answer", [(200, []), (400, {}), (401, [1]), (200, "x")])
def test_what_is_not_oauth_is_refused(site, answer):
    site.answers += [answer]
    with pytest.raises(ClientError, match="did not answer as OAuth"):
        log_in(site, print)


def test_what_a_portal_says_cannot_steer_the_terminal(site):
    site.answers += [(200, BEGUN | {"user_code": "\x1b[2JBCDF"}), (200, GIVEN)]
    said = []
    log_in(site, said.append)
    assert "\x1b" not in said[0]
    answer = {"person": "\x1b]0;x", "requests": [{"id": 1, "words": "a\nb\x1b[1m"}], "grants": []}
    assert "\x1b" not in "".join(lines(answer)) and "a b" in "".join(lines(answer))


def test_a_token_that_is_none_is_not_kept(site, home):
    site.answers += [(200, BEGUN), (200, GIVEN | {"access_token": "a b"})]
    with pytest.raises(ClientError, match="space or a control"):
        log_in(site, print)
    assert not (home / "weighbridge" / "tokens.json").exists()


def test_the_name_of_this_program_is_one_that_a_portal_takes():
    from portal.accounts.devices import CLIENT

    assert CLIENT.fullmatch(login.client_name())


# -- against a real portal --------------------------------------------------------------------
OPERATOR, WORD = "operator@lab.example", "weighbridge-test"


@pytest.fixture(scope="module")
def portal(tmp_path_factory):
    folder = tmp_path_factory.mktemp("login")
    made = Portal(folder / "portal")
    (folder / "files").mkdir()
    (folder / "files" / "notes.txt").write_text("small")
    run(made, "publish", str(folder / "files"), "notes/plain@1")
    word = {"DJANGO_SUPERUSER_PASSWORD": WORD}
    run(made, "createsuperuser", "--noinput", "--email", OPERATOR, extra=word)
    more = ("--until", "2100-01-01", "--reason", "Agreed.", "--by", OPERATOR)
    run(made, "grant", OPERATOR.replace("operator", "person"), "notes/plain@1", *more)
    made.start_site()
    yield made
    made.stop()


def client(portal, *arguments):
    """Start `manage.py` as somebody elsewhere does."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), *arguments, "--portal", portal.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_login_then_status_against_a_real_portal(portal, home):
    with client(portal, "status") as without:
        assert "run login --portal" in without.communicate()[1]
    assert without.returncode == 2
    with client(portal, "login") as process:
        told = process.stdout.readline()
        code = told.strip().rpartition(" ")[2]
        browser = Browser(portal.url)
        page = browser.get("/account/login/?next=/device/")
        page = browser.send(page, page.form_with("password"), login=OPERATOR, password=WORD)
        page = browser.send(page, page.form_with("code"), code=code)
        assert "download checkpoints under a grant" in page.text and "127.0.0.1" in page.text
        browser.send(page, page.form_with("code"), answer="approve")
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0 and "Logged in" in said
    with client(portal, "status") as asking:
        out, error = asking.communicate(timeout=60)
    assert asking.returncode == 0, error
    assert out.splitlines()[0] == f"Signed in as {OPERATOR}"
    assert "not applied for anything yet" in out
