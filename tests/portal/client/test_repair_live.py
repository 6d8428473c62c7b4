"""Repair against a real portal, run as a person runs it, and killed as nobody should."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.portal.client.conftest import (
    BIG,
    DEEP,
    EMPTY,
    LEAF,
    NAME,
    ROOT,
    SMALL,
    grant_command,
    run,
    tree,
)

pytestmark = pytest.mark.slow


def flip(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_only_the_leaf_with_the_flipped_bit_is_fetched(live, copy):
    flip(copy / BIG, LEAF + 5)
    before = len(live.downloads())
    done = live.repair(copy)
    assert done.returncode == 0, done.stderr
    assert "1 file mended, 1 leaf fetched (4.2 MB)" in done.stderr
    assert tree(copy) == tree(live.official)
    (line,) = live.downloads()[before:]
    assert "/big.dat 206 " in line


def test_truncated_longer_empty_and_missing_files_are_mended(live, copy):
    os.truncate(copy / BIG, LEAF + 7)
    (copy / SMALL).write_bytes((copy / SMALL).read_bytes() + b"more")
    (copy / EMPTY).write_bytes(b"not empty")
    shutil.rmtree(copy / "sub")
    (copy / "extra.bin").write_bytes(b"mine")
    done = live.repair(copy)
    assert done.returncode == 0, done.stderr
    assert tree(copy) == tree(live.official) | {"extra.bin": b"mine"}


def test_a_whole_copy_needs_no_portal(live, copy):
    done = live.repair(copy, extra={"WEIGHBRIDGE_PORTAL": "http://127.0.0.1:1"})
    assert (done.returncode, done.stderr) == (
        0,
        "llama/7b@1 is identical: nothing needed mending.\n",
    )


def test_a_folder_with_nothing_is_filled_by_its_name(live, tmp_path):
    (tmp_path / "new").mkdir()
    done = live.repair(tmp_path / "new", "--checkpoint", NAME)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "new") == tree(live.official)


@pytest.mark.parametrize("spoiled", ["model.sig", ".weighbridge/leaves.b3"])
def test_a_manifest_that_was_spoiled_is_replaced_by_the_portals(live, copy, spoiled):
    (copy / spoiled).write_bytes(b"{}")
    flip(copy / DEEP, 0)
    done = live.repair(copy, "--checkpoint", NAME)
    assert done.returncode == 0, done.stderr
    assert tree(copy) == tree(live.official)


def test_one_file_is_mended_alone(live, copy):
    flip(copy / DEEP, 0)
    shutil.copytree(copy / ".weighbridge", copy / "sub" / ".weighbridge")
    done = live.repair(copy / DEEP, "--manifest", copy / "model.sig")
    assert done.returncode == 0, done.stderr
    assert (copy / DEEP).read_bytes() == (live.official / DEEP).read_bytes()


def test_manage_py_repairs_with_the_keys_installed_here(live, copy):
    flip(copy / SMALL, 3)
    environment = live.environment | {"WEIGHBRIDGE_DATA": str(live.portal.data)}
    done = subprocess.run(
        [sys.executable, ROOT / "manage.py", "repair", copy],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert tree(copy) == tree(live.official)


def test_without_a_key_nothing_is_trusted(live, copy):
    done = subprocess.run(
        [sys.executable, "-m", "portal.client", "repair", copy],
        env=live.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "--trusted-key FILE" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("extra", "arguments", "status", "says"),
    [
        ({"WEIGHBRIDGE_PORTAL": ""}, [], 2, "say from where with --portal URL"),
        ({"WEIGHBRIDGE_TOKEN": ""}, [], 1, "set WEIGHBRIDGE_TOKEN"),
        ({"WEIGHBRIDGE_TOKEN": "hf_nonsense"}, [], 1, "not known here"),
        ({"WEIGHBRIDGE_TOKEN": "two words"}, [], 2, "copy it again"),
        ({"WEIGHBRIDGE_PORTAL": "http://portal.example"}, [], 2, "without encryption"),
        ({"WEIGHBRIDGE_PORTAL": "ftp://portal.example"}, [], 2, "is not an address such as"),
        ({"WEIGHBRIDGE_PORTAL": "https://a:b@portal.example"}, [], 2, "no name and password"),
        ({}, ["--checkpoint", "llama/7b@9"], 2, "is not published at"),
        ({}, ["--checkpoint", "nonsense"], 2, "FAMILY/VARIANT@VERSION"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(live, copy, extra, arguments, status, says):
    flip(copy / SMALL, 3)
    done = live.repair(copy, *arguments, extra=extra)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr
    assert says in done.stderr
    assert (copy / SMALL).read_bytes() != (live.official / SMALL).read_bytes()


def test_a_revoked_grant_is_told_with_its_reason(live, copy):
    portal = live.portal
    grant = run(portal, *grant_command("gone@uni.example", NAME))
    token = run(portal, "token", "gone@uni.example", "--scope", "download")
    code = (
        "from django.utils.timezone import now; from portal.access import decisions;"
        "from portal.access.models import Grant; from portal.accounts.models import User;"
        f"decisions.revoke(Grant.objects.get(pk={grant}), by=User.objects.get("
        "email='reviewer@lab.example'), reason='The project has ended.', at=now())"
    )
    run(portal, "shell", "-v0", "-c", code)
    flip(copy / SMALL, 3)
    done = live.repair(copy, extra={"WEIGHBRIDGE_TOKEN": token})
    assert done.returncode == 1
    assert "The grant was revoked: The project has ended." in done.stderr


def kill_until_done(live, copy, kills, seed):
    """Start repairs and kill them at random moments; then let one end. Returns the log's lines."""
    dice = random.Random(seed)
    before = len(live.downloads())
    official = tree(live.official)
    old = tree(copy)
    for _ in range(kills):
        process = subprocess.Popen(
            live.command(copy, "--checkpoint", NAME),
            env=live.environment,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(dice.uniform(0.12, 0.6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        for name, content in tree(copy).items():
            if "/.repair-" not in f"/{name}":
                assert content in (official[name], old.get(name)), "half of a file was seen"
    done = live.repair(copy, "--checkpoint", NAME)
    assert done.returncode == 0, done.stderr
    assert tree(copy) == official, "and no draft is left"
    return live.downloads()[before:]


def spoil(copy):
    for offset in (0, LEAF + 1, 2 * LEAF + 2, 3 * LEAF + 3):
        flip(copy / BIG, offset)
    (copy / DEEP).unlink()
    (copy / "model.sig").write_bytes(b"")


def test_a_repair_that_is_killed_ten_times_ends_well(live, copy):
    spoil(copy)
    kill_until_done(live, copy, 10, seed=1)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(20))
def test_a_repair_that_is_killed_many_times_ends_well(live, copy, seed):
    spoil(copy)
    kill_until_done(live, copy, 15, seed)
