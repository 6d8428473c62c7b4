"""Tools that know nothing of this portal, against a real one; rows of docs/clients.md as well."""

import filecmp
import json
import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest

from tests.portal.hub.live import BIG, FILES, HF

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("row")]


def of(name, *command):
    """Say which client a test is about, and ask for its version."""

    def decorate(test):
        test.client = (name, _version_of(command))
        return test

    return decorate


def _version_of(command) -> str:
    if command[0] == "python":
        return version(command[1])
    if not shutil.which(command[0]):
        return "not installed"
    said = subprocess.run([*command], capture_output=True, text=True).stdout
    return next(word for word in said.split() if word[0].isdigit())


@of("transformers", "python", "transformers")
def test_a_model_answers_as_the_official_one(hub, env, tmp_path):
    """`from_pretrained(REPO)`: logits equal to those of the official files."""
    code = """
import json, sys, torch
from transformers import AutoModelForCausalLM
ids = torch.arange(16)[None]
models = [AutoModelForCausalLM.from_pretrained(place) for place in sys.argv[1:]]
here, there = (model(ids).logits for model in models)
print(json.dumps(bool(torch.equal(here, there)) and here.abs().sum().item() > 0))
"""
    command = [sys.executable, "-W", "ignore", "-c", code, HF, str(hub.official[HF])]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) is True
    assert "Your access to llama/tiny-hf@1 ends on 01 January 2099" in done.stderr


def fetch(command, token, place, cwd, ok=True):
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    header = f"Authorization: Bearer {token}"
    given = [part.format(header=header) for part in command]
    done = subprocess.run([*given, place], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert (done.returncode == 0) == ok, done.stderr


def goes_on(hub, tmp_path, *command):
    """Whether a command goes on in a file whose first part is there, asking for the rest only."""
    place = f"{hub.proxy.url}/{FILES}/resolve/1/large.dat"
    official = hub.official[FILES] / "large.dat"
    target = tmp_path / "large.dat"
    target.write_bytes(official.read_bytes()[: BIG // 3])
    before = hub.proxy.sent
    fetch(command, hub.tokens["grantee"], place, tmp_path)
    assert filecmp.cmp(target, official, shallow=False)
    assert BIG - BIG // 3 <= hub.proxy.sent - before < BIG - BIG // 4


@of("curl", "curl", "--version")
def test_curl_goes_on_in_the_middle(hub, tmp_path):
    """`curl -L -C - -H "Authorization: Bearer …"`: resumed."""
    goes_on(hub, tmp_path, "curl", "-sS", "-f", "-L", "-C", "-", "-O", "-H", "{header}")


@of("wget", "wget", "--version")
def test_wget_goes_on_in_the_middle(hub, tmp_path):
    """`wget -c --header "Authorization: Bearer …"`: resumed."""
    command = ("wget", "-q", "-c", "-O", "large.dat", "--header", "{header}")
    goes_on(hub, tmp_path, *command)


@of("aria2c", "aria2c", "--version")
def test_aria2_fetches_in_parts(hub, tmp_path):
    """`aria2c -x4 --header "Authorization: Bearer …"`: in four parts."""
    command = ("aria2c", "-q", "-x4", "-s4", "-k1M", "--header", "{header}", "-o", "large.dat")
    place = f"{hub.proxy.url}/{FILES}/resolve/1/large.dat"
    fetch(command, hub.tokens["grantee"], place, tmp_path)
    assert filecmp.cmp(tmp_path / "large.dat", hub.official[FILES] / "large.dat", shallow=False)


@of("curl", "curl", "--version")
def test_curl_is_told_why_not(hub, tmp_path):
    """`curl -L` without a grant: the reason, and no file."""
    place = f"{hub.proxy.url}/{FILES}/resolve/1/large.dat"
    command = ("curl", "-sS", "-f", "-L", "-O", "-H", "{header}")
    fetch(command, hub.tokens["stranger"], place, tmp_path, ok=False)
    assert not (tmp_path / "large.dat").exists()
