"""Passkeys in a real browser, with the virtual authenticator that Chromium offers over CDP."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from portal.overview.demo.portal_process import Portal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium"),
]
OPERATOR, PASSWORD = "operator@lab.example", "weighbridge-test"

STORY = """
import json, sys
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

site, email, password, chromium, output = sys.argv[1:6]
told = {"rules": []}


def seen(page, name):
    told["rules"] += [f"{name}: {v['id']}" for v in Axe().run(page).response["violations"]]
    for width in (320, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            told["rules"].append(f"{name} is too wide at {width}")
        page.screenshot(path=f"{output}/{name}-{width}.png", full_page=True)


with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    context = browser.new_context()
    page = context.new_page()
    cdp = context.new_cdp_session(page)
    cdp.send("WebAuthn.enable")
    device = cdp.send("WebAuthn.addVirtualAuthenticator", {"options": {
        "protocol": "ctap2", "transport": "internal", "hasResidentKey": True,
        "hasUserVerification": True, "isUserVerified": True,
        "automaticPresenceSimulation": True}})["authenticatorId"]
    page.goto(site + "/account/login/?next=/admin/")
    seen(page, "account-login-passkey")
    page.fill("[name=login]", email)
    page.fill("[name=password]", password)
    page.keyboard.press("Enter")
    page.wait_for_url(site + "/account/2fa/")
    told["sent to"] = page.locator(".notice.warning").inner_text()
    seen(page, "account-2fa-off")
    page.get_by_role("link", name="Set up an app").click()
    seen(page, "account-2fa-app")
    page.goto(site + "/account/2fa/webauthn/add/")
    seen(page, "account-2fa-add")
    page.check("[name=passwordless]")
    page.click("#mfa_webauthn_add")
    page.wait_for_url("**/recovery-codes/")
    seen(page, "account-2fa-codes")
    told["keys"] = len(cdp.send("WebAuthn.getCredentials", {"authenticatorId": device})["credentials"])
    page.goto(site + "/account/2fa/webauthn/")
    seen(page, "account-2fa-keys")
    page.goto(site + "/account/sessions/")
    seen(page, "account-sessions")
    page.get_by_role("button", name="Sign out", exact=True).click()
    page.wait_for_url(site + "/")
    page.goto(site + "/admin/")
    page.click("#passkey_login")
    page.wait_for_url(site + "/admin/")
    told["inside"] = page.locator("#site-name").inner_text()
    context.clear_cookies()
    cdp.send("WebAuthn.removeVirtualAuthenticator", {"authenticatorId": device})
    cdp.send("WebAuthn.addVirtualAuthenticator", {"options": {
        "protocol": "ctap2", "transport": "internal", "hasResidentKey": True,
        "hasUserVerification": True, "isUserVerified": True,
        "automaticPresenceSimulation": True}})
    page.goto(site + "/admin/")
    page.click("#passkey_login")
    page.locator("#passkey-error").wait_for(state="visible")
    told["without it"] = page.locator("#passkey-error").inner_text()
    browser.close()
print(json.dumps(told))
"""


@pytest.fixture
def portal(tmp_path):
    """A site at a host name, which a passkey is bound to, where staff need a second factor."""
    made = Portal(tmp_path / "portal")
    made.url = made.url.replace("127.0.0.1", "localhost")
    made.environment |= {"WEIGHBRIDGE_URL": made.url, "WEIGHBRIDGE_STAFF_MFA": "1"}
    word = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    done = made.command("createsuperuser", "--noinput", "--email", OPERATOR, extra=word)
    assert done.returncode == 0, done.stderr
    made.start_site()
    yield made
    made.stop()


def test_a_passkey_alone_opens_staff_pages_and_only_with_its_device(portal, tmp_path):
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
    assert "need a second factor" in told["sent to"]
    assert told["keys"] == 1 and told["inside"] == "Weighbridge"
    assert "gave no passkey" in told["without it"]
    assert told["rules"] == []
