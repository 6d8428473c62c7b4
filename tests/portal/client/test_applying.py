"""Applying from a terminal: the form as a file, the terms read, the request sent."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from portal.client import applying
from portal.client.applying import ApplyError
from portal.client.errors import PortalError
from portal.overview.demo.portal_process import Portal
from tests.conftest import ANSWERS
from tests.portal.client.conftest import ROOT, run

TERMS = "Be kind.\n\x1b[2JDo not share.\n"
FORM = {
    "family": "llama",
    "version": 1,
    "checkpoints": ["llama/7b@1"],
    "questions": [
        {"id": "intro", "type": "header", "label": "About you"},
        {"id": "purpose", "type": "long_text", "label": "Why?"},
        {"id": "areas", "type": "options", "label": "Where?", "options": [["a", "A"]]},
        {"id": "plan", "type": "attachment", "label": "Your plan"},
    ],
    "terms": {"version": 1, "sha256": hashlib.sha256(TERMS.encode()).hexdigest(), "text": TERMS},
}


class Told:
    """A portal that gives this form."""

    def __init__(self, form):
        self.form = form

    def get_json(self, place):
        assert place == "/api/v1/families/llama/form"
        return self.form


def test_the_file_to_fill_asks_what_can_be_typed():
    made = applying.template(applying.form_of(Told(FORM), "llama"))
    assert made["answers"] == {"purpose": "", "areas": []}
    assert made["checkpoints"] == ["llama/7b@1"] and made["questions"] == FORM["questions"]


def test_terms_that_are_not_those_of_their_digest_are_not_shown():
    changed = FORM | {"terms": FORM["terms"] | {"text": "Other words."}}
    with pytest.raises(PortalError, match="not those that their digest names"):
        applying.form_of(Told(changed), "llama")


@pytest.mark.parametrize(
    "form",
    [[], {}, FORM | {"questions": [{"id": 1}]}, FORM | {"terms": {}}, FORM | {"checkpoints": [1]}],
)
def test_an_answer_that_is_no_form_is_refused(form):
    with pytest.raises(PortalError, match="not a form"):
        applying.form_of(Told(form), "llama")


@pytest.mark.parametrize("family", ["", "../x", "a/b", "A", "x" * 64])
def test_a_family_that_is_no_name_is_not_asked_for(family):
    with pytest.raises(ApplyError, match="no family's name"):
        applying.form_of(Told(FORM), family)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is not JSON"),
        ("[]", "holds no answers"),
        ('{"answers": [], "checkpoints": []}', "holds no answers"),
        ('{"answers": {}, "checkpoints": [], "family": "other"}', "for the family 'other'"),
        ("[" * 200_000, "is not JSON|holds no answers"),
        (" " * (applying.MAX_FILE_BYTES + 1), "holds no answers"),
    ],
)
def test_a_file_that_is_not_a_filled_form_is_refused_in_a_sentence(tmp_path, content, says):
    path = tmp_path / "filled.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ApplyError, match=says):
        applying.read_filled(path, "llama")


def test_terms_are_read_and_answered_with_yes_and_cannot_steer_the_terminal():
    said = []
    digest = applying.accept(FORM, None, ask=lambda _: " Yes", say=said.append)
    assert digest == FORM["terms"]["sha256"] and said[0] == "Be kind."
    assert not any("\x1b" in line for line in said)
    with pytest.raises(ApplyError, match="did not accept"):
        applying.accept(FORM, None, ask=lambda _: "no", say=said.append)


def test_where_nobody_can_be_asked_the_digest_of_the_terms_is_given():
    assert applying.accept(FORM, FORM["terms"]["sha256"], ask=None, say=print)
    for given, says in ((None, "--accept"), ("0" * 64, "not the one")):
        with pytest.raises(ApplyError, match=says):
            applying.accept(FORM, given, ask=None, say=print)


@pytest.mark.slow
def test_a_person_on_a_cluster_applies_and_sees_the_request_wait(tmp_path):
    portal = Portal(tmp_path / "portal")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "notes.txt").write_text("small")
    run(portal, "publish", str(tmp_path / "files"), "llama/7b@1")
    token = run(portal, "token", "person@uni.example", "--scope", "apply")
    environment = os.environ | {
        "WEIGHBRIDGE_PORTAL": portal.url,
        "WEIGHBRIDGE_TOKEN": token,
        "WEIGHBRIDGE_DATA": str(tmp_path / "nobody"),
    }

    def manage(*arguments):
        return subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )

    portal.start_site()
    try:
        filled = json.loads(manage("apply", "llama", "--form").stdout)
        (tmp_path / "filled.json").write_text(json.dumps(filled))
        sending = ["apply", "llama", "--answers", str(tmp_path / "filled.json")]
        assert "accept them with --accept" in manage(*sending).stderr
        sending += ["--accept", filled["terms_sha256"]]
        empty = manage(*sending)
        assert empty.returncode == 2 and "Your request is at" in empty.stderr
        (tmp_path / "filled.json").write_text(json.dumps(filled | {"answers": ANSWERS}))
        sent = manage(*sending)
        assert sent.returncode == 0 and "is sent; see it at" in sent.stderr, sent.stderr
        told = manage("status").stdout
        assert "llama: waiting for a reviewer, place 1 in the queue" in told
    finally:
        portal.stop()
    assert not (tmp_path / "nobody").exists(), "the client needs no database here"
