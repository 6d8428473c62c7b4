"""Verify with a real portal's catalogue: from elsewhere over HTTP, and on its own machine."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from portal.client import catalogue
from portal.client.errors import PortalError
from portal.client.site import Site
from tests.portal.client.conftest import BIG, LEAF, NAME, ROOT
from tests.verifier.conftest import flip

pytestmark = pytest.mark.slow


@pytest.fixture
def bare(copy):
    """A copy without its manifest, as somebody hands one over."""
    (copy / "model.sig").unlink()
    shutil.rmtree(copy / ".weighbridge")
    return copy


@pytest.fixture
def verify(live, tmp_path):
    """Run verify from another machine: no key is installed, the cache is this test's own."""

    def run(*arguments, command=("-m", "portal.client"), key=live.key, **extra):
        more = ["--trusted-key", key] if key else []
        return subprocess.run(
            [sys.executable, *command, "verify", *map(str, arguments), *more],
            env=live.environment | {"TMPDIR": str(tmp_path)} | extra,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )

    return run


@pytest.mark.parametrize("command", [("-m", "portal.client"), ("manage.py",)])
def test_a_copy_is_verified_with_another_portals_manifest(live, bare, verify, command):
    done = verify(
        bare, "--portal", live.portal.url, "--checkpoint", NAME, "--json", command=command
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["checkpoint"], report["verdict"]) == (NAME, "identical")
    assert report["identified"] is None


def test_what_is_this_is_answered_by_the_portals_catalogue(live, bare, verify):
    flip(bare / BIG, LEAF)
    done = verify(bare)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "This is llama/7b@1, damaged."
    assert "[4,194,304, 8,388,608)" in done.stdout


def test_what_is_this_is_answered_on_the_portals_own_machine(live, bare, verify):
    done = verify(bare, command=("manage.py",), key=None, WEIGHBRIDGE_DATA=str(live.portal.data))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "This is llama/7b@1, identical."


def test_a_checkpoint_of_the_own_catalogue_needs_no_token_and_no_key(live, bare, verify):
    own = {"WEIGHBRIDGE_DATA": str(live.portal.data), "WEIGHBRIDGE_TOKEN": ""}
    done = verify(bare, "--checkpoint", NAME, command=("manage.py",), key=None, **own)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "IDENTICAL  llama/7b@1"


def test_keys_are_never_taken_from_the_portal(live, bare, verify):
    done = verify(bare, "--checkpoint", NAME, key=None)
    assert done.returncode == 2
    assert "keys are not taken from a portal" in done.stderr
    assert "--trusted-key FILE" in done.stderr and done.stderr.count("\n") == 1


def test_a_portal_of_another_signer_is_untrusted(live, bare, verify, tmp_path):
    from tests.verifier.conftest import make_signer

    done = verify(bare, "--checkpoint", NAME, key=make_signer(tmp_path / "k").public)
    assert done.returncode == 1
    assert done.stdout.startswith("UNTRUSTED")


@pytest.mark.parametrize(
    ("arguments", "extra", "says"),
    [
        (["--checkpoint", "llama/8b@1"], {}, "is not published at"),
        ([], {"WEIGHBRIDGE_PORTAL": ""}, "Say which portal to ask"),
        (["--portal", "http://127.0.0.1:1"], {}, "cannot be reached"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_sentence(bare, verify, arguments, extra, says):
    done = verify(bare, *arguments, **extra)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert says in done.stderr


def test_manifests_are_fetched_once_into_a_folder_of_ones_own(live, bare, verify, tmp_path):
    def asked():
        log = (live.portal.data / "logs" / "serve.log").read_text()
        return log.count(" GET /manifests/")

    verify(bare)
    first = asked()
    verify(bare)
    assert asked() == first
    (cache,) = tmp_path.glob("weighbridge-*")
    assert cache.stat().st_mode & 0o777 == 0o700
    (kept,) = cache.rglob("model.sig")
    kept.write_bytes(b"spoiled")
    assert verify(bare).returncode == 0
    assert asked() == first + 1


def test_a_cache_that_somebody_else_made_is_not_used(live, bare, verify, tmp_path):
    planted = tmp_path / f"weighbridge-{os.geteuid()}"
    planted.mkdir(mode=0o777)
    planted.chmod(0o777)
    assert verify(bare).returncode == 0
    assert list(planted.iterdir()) == []


def test_the_sketch_is_asked_for_with_a_token_and_not_kept(live, bare, verify, tmp_path):
    sketches = live.portal.data / "sketches" / f"{NAME}.json"
    sketches.parent.mkdir(parents=True, exist_ok=True)
    sketches.write_text('{"schema": 1, "seed": "00", "tensors": {}}')
    try:
        done = verify(bare, "--checkpoint", NAME, "--checks", "files,weights")
        assert done.returncode == 0, done.stderr
        log = (live.portal.data / "logs" / "serve.log").read_text()
        assert " GET /api/v1/checkpoints/llama/7b@1/sketch 200 " in log
        assert not list(tmp_path.glob("weighbridge-sketches-*"))
        assert verify(bare, "--checkpoint", NAME, WEIGHBRIDGE_TOKEN="").returncode == 0
    finally:
        sketches.unlink()


def test_a_listing_that_leads_out_of_the_cache_is_refused(liar, tmp_path):
    entry = {"name": NAME, "revision": 1, "manifest": [file("model.sig")]}
    spoiled = [
        entry | {"name": "../../etc@1"},
        entry | {"name": "llama/../x@1"},
        entry | {"revision": "1"},
        entry | {"manifest": []},
        entry | {"manifest": [file("model.sig"), file("../evil")]},
        entry | {"manifest": [file("model.sig"), file(".weighbridge/../../evil")]},
        entry | {"manifest": [file("model.sig"), file("config.json")]},
        entry | {"manifest": [file("model.sig"), file(".weighbridge/x") | {"sha256": "0"}]},
        "text",
    ]
    for bad in spoiled:
        with pytest.raises(PortalError, match="form unknown here"):
            list(catalogue.published(Listing(bad)))
    assert [found.name for found in catalogue.published(Listing(entry))] == [NAME]


def file(path):
    return {"path": path, "sha256": "0" * 64, "url": "http://127.0.0.1:1/x"}


class Listing(Site):
    """A portal that lists one entry."""

    def __init__(self, entry):
        super().__init__("http://127.0.0.1:1")
        self.entry = entry

    def get_json(self, place):
        return {"checkpoints": [self.entry], "next": None}


def test_starting_is_quick_and_imports_nothing_heavy():
    script = (
        "import sys, portal.client.command_line as c; c.repair_parser(); c.verify_parser();"
        "print([m for m in ('torch', 'django', 'numpy', 'cryptography', 'tqdm') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert loaded.stdout.strip() == "[]", loaded.stderr


def test_the_cache_is_in_the_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = catalogue.cache_folder(Site("https://portal.example"))
    assert Path(place).is_relative_to(tmp_path)
