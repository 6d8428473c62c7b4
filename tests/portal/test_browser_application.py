"""An application filled in by keyboard in a real browser, looked at on each step."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from portal.overview.demo.portal_process import Portal
from tests.portal.access.forms_of_tests import EVERY_TYPE, GOOD
from tests.portal.test_browser import OPERATOR, look

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium"),
]
ROOT = Path(__file__).parents[2]
EMAIL, PASSWORD = "applicant@uni.example", "weighbridge-test"
MAKE = """
import json, sys
from django.utils.timezone import now
from portal.access.form_versions import publish_form
from portal.accounts.models import User
from portal.accounts.people import find_or_make
from portal.catalog.models import Family

person = find_or_make("%s", by="command:test", at=now())
person.set_password("%s")
person.save()
family = Family.objects.get()
publish_form(family, json.loads('''%s'''), by=person, at=now())

# the operator applies too: was refused once, has a grant of before, and is asked to accept terms
from datetime import timedelta
from django.core.files.uploadedfile import SimpleUploadedFile
from portal.access import applications, attachments, conversation, decisions, terms

at, operator = now(), find_or_make("%s", by="command:test", at=now())
operator.set_password("%s")
operator.is_staff = operator.is_superuser = True
operator.save()
decisions.grant_directly(
    operator, family.checkpoints.first(), by=person, reason="R", at=at, until=at + timedelta(days=9)
)
request = applications.begin(operator, family, at=at)
applications.save(
    request, answers=json.loads('''%s'''), checkpoints=family.checkpoints.all(), at=at
)
plan = SimpleUploadedFile("plan-of-the-project.txt", b"We will look.")
attachments.attach(request, family.form_versions.get().questions[-1], plan, at=at)
applications.submit(request, terms=family.terms, at=at, address=None, agent="")
conversation.write(request, by=operator, body="When will you look?", at=at)
conversation.write(request, by=person, body="This week. Which data is it?", at=at)
decisions.reject(request, by=person, reason="The purpose is too vague.", at=now())
terms.publish_terms(
    family,
    family.terms.text.replace("5. You tell us", "5. You cite us.\\n6. You tell us"),
    accept_by=at + timedelta(days=5),
    by=operator,
    at=at,
)
"""
# what the operator sees as somebody who applied, and as who reviews
APPLIED = ["/requests/2/", "/families/notes/terms/", "/acceptances/", "/acceptances/1/", "/access/"]
DESK = [
    "/admin/access/accessrequest/2/change/",
    "/admin/access/formversion/add/",
    "/admin/access/formversion/1/change/",
    "/admin/catalog/terms/add/?family=notes",
]


@pytest.fixture(scope="module")
def portal(tmp_path_factory):
    """A site with two checkpoints, a form with every type of question, and somebody who may apply."""
    folder = tmp_path_factory.mktemp("application")
    made = Portal(folder / "portal")
    for name in ("plain", "other"):
        (folder / name).mkdir()
        (folder / name / "notes.txt").write_text(name)
        done = made.command("publish", str(folder / name), f"notes/{name}@1")
        assert done.returncode == 0, done.stderr
    questions = json.dumps(EVERY_TYPE).replace("\\", "\\\\")
    script = MAKE % (EMAIL, PASSWORD, questions, OPERATOR, PASSWORD, json.dumps(GOOD))
    done = made.command("shell", "-c", script)
    assert done.returncode == 0, done.stderr
    made.start_site()
    yield made
    made.stop()


JOURNEY = r"""
import json, sys
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

site, output, email, password, chromium, scripts = sys.argv[1:7]
scripts = scripts == "with"
found, console = [], []

with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    context = browser.new_context(java_script_enabled=scripts)
    page = context.new_page()
    page.on("console", lambda line: console.append(f"{page.url} after {found[-1:]}: {line.text}") if line.type == "error" else None)

    def look(name):
        for width in (320, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            page.screenshot(path=f"{output}/apply-{name}-{width}.png", full_page=True)
            if scripts:
                wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
                rules = [v["id"] for v in Axe().run(page).response["violations"]]
                found.append([name, width, wide, rules])

    def to(selector):
        # by the Tab key alone, and the focus is seen
        if not scripts:
            return page.focus(selector)
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", f"the focus on {selector} is not seen"
                return
        raise AssertionError(f"{selector} is not reached by keyboard")

    def type_in(selector, text):
        to(selector)
        page.keyboard.type(text)

    def press(selector, key="Enter"):
        to(selector)
        page.keyboard.press(key)

    GO = "div.actions [name=continue]"
    page.goto(site + "/account/login/?next=/families/notes/")
    type_in("[name=login]", email)
    type_in("[name=password]", password)
    page.keyboard.press("Enter")
    page.wait_for_url(site + "/families/notes/")
    press("form[action$='/apply/'] button")
    page.wait_for_url("**/edit/1/")
    look("1-checkpoints")
    press(GO)
    page.get_by_text("Choose at least one.").first.wait_for()
    if scripts:
        assert page.evaluate("document.activeElement.matches('.notice.error')"), "focus on summary"
        assert page.title().startswith("Error:")
    look("1-error")
    press("[name=everything]", "Space")
    press(GO)
    page.wait_for_url("**/edit/2/")
    type_in("[name=name]", "A. Applicant")
    type_in("[name=country]", "New Z") if scripts else page.select_option("[name=country]", "NZ")
    if scripts:
        page.get_by_text("Saved at").wait_for()
    look("2-you")
    press(GO)
    page.wait_for_url("**/edit/3/")
    to("[name=role]")
    page.keyboard.press("Space")
    if scripts:
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.wait_for_selector("[name=other]")          # brought up while typing
        look("3-brought-up")
        page.keyboard.press("ArrowDown")                # round to the first again: a student
        page.wait_for_selector("[name=other]", state="detached")
    press("[name=fields]", "Space")
    if scripts:
        whole = lambda answer: "quantization" in (answer.request.post_data or "")
        with page.expect_response(whole):
            type_in("[name=purpose]", "We study quantization.")
        page.reload()
        assert "quantization" in page.input_value("[name=purpose]"), "typed, not sent, and kept"
    else:
        type_in("[name=purpose]", "We study quantization.")
    look("3-work")
    press(GO)
    page.wait_for_url("**/edit/4/")
    press(GO)
    page.get_by_text("Answer this question.").first.wait_for()
    look("4-error")
    type_in("[name=title]", "Rounding")
    press(GO)
    page.wait_for_url("**/edit/5/")
    type_in("[name=gpus]", "8")
    type_in("[name=people-0-person]", "B")
    type_in("[name=people-0-task]", "Reads")
    page.set_input_files("[name=plan]", {"name": "plan.txt", "mimeType": "text/plain", "buffer": b"plan"})
    press("[name=add-row]")
    page.wait_for_selector("[name=people-1-person]")
    assert page.get_by_role("link", name="plan.txt").count() == 1, "the file went with the page"
    look("5-machines")
    press(GO)
    page.wait_for_url("**/check/**")
    look("6-check")
    press("a.change[href*='#id_name']")
    page.wait_for_url("**/edit/2/**")
    type_in("[name=name]", " Jr.") if scripts else page.fill("[name=name]", "A. Applicant Jr.")
    page.keyboard.press("Enter")
    page.wait_for_url("**/check/**")
    assert "Jr." in page.content()
    press("[name=accept]", "Space")
    press("div.actions button")
    page.wait_for_url(lambda url: url.split("#")[0].endswith("/requests/4/" if scripts else "/requests/3/"))
    look("7-status")
    assert "1st in the queue" in page.content()
    if not scripts:
        press("button.danger")
        page.get_by_text("You took it back.").wait_for()
    browser.close()
print(json.dumps([found, console]))
"""


@pytest.mark.parametrize("scripts", ["without", "with"])
def test_five_pages_are_filled_in_by_keyboard_and_axe_finds_nothing(portal, scripts):
    output = ROOT / "tests" / "output"
    output.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", JOURNEY, portal.url, str(output), EMAIL, PASSWORD]
        + [shutil.which("chromium"), scripts],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found, console = json.loads(done.stdout)
    for name, width, wide, rules in found:
        assert not wide, f"{name} is too wide at {width} px"
        assert rules == [], f"{name} at {width} px: axe finds {rules}"
    # a browser writes down as an error that a page came with status 422; nothing else is allowed
    assert [line for line in console if "422" not in line] == []


def test_the_pages_around_an_application_satisfy_axe_and_fit_a_phone(portal):
    for _who, path, width, scheme, wrong, rules, focus in look(
        portal, {"operator": APPLIED}
    ) + look(portal, {"reviewer": DESK}):
        place = f"{path}, {width} px, {scheme}"
        assert not wrong, f"{place} is too wide or asks another host"
        assert rules == [], f"{place}: axe finds {rules}"
        assert focus != "BODY", f"{place} cannot be entered by keyboard"
