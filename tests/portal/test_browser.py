"""The pages in a real browser: readable on a phone's width, clean for axe, usable by keyboard."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from portal.overview.demo.portal_process import Portal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium"),
]
ROOT = Path(__file__).parents[2]
OPERATOR, PASSWORD = "operator@lab.example", "weighbridge-test"
OPEN = ["/", "/families/notes/", "/verify/", "/account/login/", "/account/signup/", "/nowhere/"]
SIGNED_IN = ["/access/", "/requests/", "/verify/", "/verifications/", "/challenges/"]
ACCOUNT = ["/account/identity/", "/account/email/", "/account/password/change/", "/account/2fa/"]
ACCOUNT += ["/account/sessions/", "/account/tokens/", "/account/data/", "/device/"]
ACCOUNT += ["/account/elsewhere/", "/account/reauthenticate/", "/account/refer/?key=x"]
REVIEW = "/admin/access/accessrequest/1/change/"
ADMIN = ["/admin/", "/admin/access/accessrequest/", "/admin/audit/event/", REVIEW]


@pytest.fixture(scope="module")
def portal(tmp_path_factory):
    """A site with one published checkpoint and its operator."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "files").mkdir()
    (folder / "files" / "notes.txt").write_text("small")
    made = Portal(folder / "portal")
    for arguments in (
        ("publish", str(folder / "files"), "notes/plain@1"),
        ("createsuperuser", "--noinput", "--email", OPERATOR),
        ("grant", "researcher.with.a.long.name@department.university.example", "notes/plain@1")
        + ("--until", "2100-01-01", "--reason", "Agreed on paper.", "--by", OPERATOR),
    ):
        done = made.command(*arguments, extra={"DJANGO_SUPERUSER_PASSWORD": PASSWORD})
        assert done.returncode == 0, done.stderr
    made.start_site()
    yield made
    made.stop()


LOOK = """
import json, sys
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

site, output, email, password, plan = sys.argv[1:6]
found = []
with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=sys.argv[6], args=["--no-sandbox"])
    for scheme in ("light", "dark"):
        for who, pages in json.loads(plan).items():
            context = browser.new_context(color_scheme=scheme)
            hosts = set()
            context.on("request", lambda request: hosts.add(request.url.split("/")[2]))
            page = context.new_page()
            if who != "anyone":
                page.goto(site + "/admin/login/")
                page.fill("[name=username]", email)
                page.fill("[name=password]", password)
                page.keyboard.press("Enter")
                page.wait_for_url(site + "/admin/")
            for path in pages:
                for width in (320, 1280):
                    page.set_viewport_size({"width": width, "height": 900})
                    page.goto(site + path)
                    wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
                    name = (path.partition("?")[0].strip("/").replace("/", "-") or "home") + f"-{width}-{scheme}.png"
                    page.screenshot(path=f"{output}/{name}", full_page=True)
                    rules = [v["id"] for v in Axe().run(page).response["violations"]]
                    page.keyboard.press("Tab")
                    focus = page.evaluate("document.activeElement.tagName")
                    found.append([who, path, width, scheme, wide, rules, focus])
            found.append([who, "hosts", 0, scheme, sorted(hosts) != [site.split("/")[2]], [], "A"])
            context.close()
    browser.close()
print(json.dumps(found))
"""


def look(portal, plan):
    """Walk the pages of ``plan`` in a process of its own: Playwright's loop does not suit Django."""
    import json

    output = ROOT / "tests" / "output"
    output.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", LOOK, portal.url, str(output), OPERATOR, PASSWORD, json.dumps(plan)]
        + [shutil.which("chromium")],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_our_pages_fit_a_phone_satisfy_axe_and_ask_no_other_host(portal):
    for who, path, width, scheme, wrong, rules, focus in look(
        portal, {"anyone": OPEN, "operator": SIGNED_IN}
    ):
        place = f"{path} for {who}, {width} px, {scheme}"
        assert not wrong, f"{place} is too wide or asks another host"
        assert rules == [], f"{place}: axe finds {rules}"
        assert focus != "BODY", f"{place} cannot be entered by keyboard"


def test_the_pages_of_an_account_fit_a_phone_and_satisfy_axe(portal):
    for _who, path, width, scheme, wrong, rules, focus in look(portal, {"operator": ACCOUNT}):
        place = f"{path}, {width} px, {scheme}"
        assert not wrong, f"{place} is too wide or asks another host"
        assert rules == [], f"{place}: axe finds {rules}"
        assert focus != "BODY", f"{place} cannot be entered by keyboard"


def test_the_admin_fits_a_phone_asks_no_other_host_and_is_entered_by_keyboard(portal):
    for _who, path, width, scheme, wrong, rules, focus in look(portal, {"operator": ADMIN}):
        place = f"{path}, {width} px, {scheme}"
        assert not wrong, f"{place} is too wide or asks another host"
        assert focus != "BODY", f"{place} cannot be entered by keyboard"
        # What is left is the stock change list's own: it tells a link in a sentence by colour.
        assert set(rules) <= {"link-in-text-block"}, f"{place}: axe finds {rules}"


COPY = """
import sys
from playwright.sync_api import sync_playwright

with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=sys.argv[2], args=["--no-sandbox"])
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(sys.argv[1])
    page.get_by_role("button", name="Copy this command").first.press("Enter")
    page.get_by_text("Copied").first.wait_for()
    print(page.evaluate("navigator.clipboard.readText()"))
    browser.close()
"""


def test_a_command_is_copied_with_its_button_by_keyboard(portal):
    done = subprocess.run(
        [sys.executable, "-c", COPY, portal.url, shutil.which("chromium")],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ,
    )
    assert done.stdout.strip() == "python -m verifier PATH --trusted-key release.pub.pem", (
        done.stderr
    )
