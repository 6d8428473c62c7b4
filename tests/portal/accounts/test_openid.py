"""Sign in at a real OpenID Provider, npm's oidc-provider, in a real browser."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from portal.overview.demo.portal_process import Portal, _free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium"),
    pytest.mark.skipif(not shutil.which("npm"), reason="needs node and npm"),
]
HERE = Path(__file__).parent / "openid"
OPERATOR, PASSWORD = "operator@lab.example", "weighbridge-test"


def is_installed(folder):
    """Whether the version that we name lies there."""
    found = folder / "node_modules" / "oidc-provider" / "package.json"
    wanted = json.loads((HERE / "package.json").read_text())["dependencies"]["oidc-provider"]
    return found.exists() and json.loads(found.read_text())["version"] == wanted


@pytest.fixture(scope="module")
def library():
    """A folder with oidc-provider in it, installed once and kept."""
    folder = Path(__file__).parents[2] / "output" / "openid"
    shutil.copytree(HERE, folder, dirs_exist_ok=True)
    if not is_installed(folder):
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180)
        if done.returncode:
            pytest.skip(f"needs npm's oidc-provider, which was not installed: {done.stderr[-300:]}")
    return folder


@pytest.fixture
def provider(library, tmp_path):
    """The address of an OpenID Provider, and the portal that trusts it."""
    portal = Portal(tmp_path / "portal")
    address = f"http://127.0.0.1:{_free_port()}"
    back = f"{portal.url}/account/elsewhere/oidc/uni/login/callback/"
    with (tmp_path / "provider.log").open("w") as log:
        server = subprocess.Popen(
            ["node", "server.mjs", address.rpartition(":")[2], back],
            cwd=library,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert server.stdout.readline() == "listening\n", (tmp_path / "provider.log").read_text()
    entry = {"id": "uni", "name": "University of Example", "url": address}
    entry |= {"client_id": "portal", "secret": "secret"}
    portal.environment["WEIGHBRIDGE_OPENID"] = json.dumps([entry])
    word = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    done = portal.command("createsuperuser", "--noinput", "--email", OPERATOR, extra=word)
    assert done.returncode == 0, done.stderr
    portal.start_site()
    yield address, portal
    portal.stop()
    server.terminate()
    server.wait()
    server.stdout.close()


STORY = """
import json, sys
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

site, email, password, chromium, output = sys.argv[1:6]
told = {"rules": []}


def at_the_provider(page, who):
    page.fill("[name=login]", who)
    page.fill("[name=password]", "any")
    page.locator("[type=submit]").click()
    page.locator("[type=submit]").click()


with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    page = browser.new_context().new_page()
    page.goto(site + "/account/login/?next=/account/identity/")
    page.fill("[name=login]", email)
    page.fill("[name=password]", password)
    page.keyboard.press("Enter")
    page.wait_for_url(site + "/account/identity/")
    page.get_by_role("link", name="University of Example").click()
    page.get_by_role("button", name="Go to University of Example").click()
    at_the_provider(page, "ada-7")
    page.wait_for_url(site + "/account/identity/")
    told["row"] = page.locator("tr", has_text="account of an institution").inner_text()
    for width in (320, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(path=f"{output}/identity-{width}.png", full_page=True)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            told["rules"].append(f"too wide at {width}")
    told["rules"] += [v["id"] for v in Axe().run(page).response["violations"]]
    page = browser.new_context().new_page()
    page.goto(site + "/account/login/")
    page.get_by_role("link", name="University of Example").click()
    page.get_by_role("button", name="Go to University of Example").click()
    at_the_provider(page, "ada-7")
    page.wait_for_url(site + "/access/")
    told["signed in"] = page.locator("header").inner_text()
    page.goto(site + "/account/elsewhere/")
    told["rules"] += [v["id"] for v in Axe().run(page).response["violations"]]
    page = browser.new_context().new_page()
    page.goto(site + "/account/login/")
    page.get_by_role("link", name="University of Example").click()
    page.get_by_role("button", name="Go to University of Example").click()
    at_the_provider(page, "somebody-new")
    page.wait_for_url(site + "/account/confirm-email/")
    told["new"] = page.locator("main").inner_text()
    browser.close()
print(json.dumps(told))
"""


def test_signing_in_at_an_institution_is_evidence_and_opens_the_account_again(provider, tmp_path):
    address, portal = provider
    done = subprocess.run(
        [sys.executable, "-c", STORY, portal.url, OPERATOR, PASSWORD]
        + [shutil.which("chromium"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    for words in ("ada-7", "Ada Example", "faculty@uni.example", "University of Example", address):
        assert words in told["row"]
    assert OPERATOR in told["signed in"]
    # a provider's word on an address is not taken: it is confirmed by our own mail
    mails = "".join(path.read_text() for path in (portal.data / "mail").iterdir())
    assert "To: ada@uni.example" in mails and "/account/confirm-email/" in mails
    assert told["rules"] == []
