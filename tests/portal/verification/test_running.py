"""Real checks by real processes: what a worker does, and what is left when it is killed."""

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from django.db import connections
from django.utils.timezone import now

from portal.audit.models import Event
from portal.catalog.models import Name
from portal.catalog.publishing import publish
from portal.verification import copies, running
from portal.verification.asking import ask_folder, ask_upload, ask_urls
from portal.verification.models import Verification
from tests.conftest import make_person

pytestmark = pytest.mark.slow
ROOT = Path(running.settings.BASE_DIR)
WITHIN = 90  # seconds


@pytest.fixture
def data(committed_db, settings):
    """A portal of this test's own, with `llama/tiny@1` published."""
    settings.DATA = committed_db.parent
    settings.DROP_FOLDER = settings.DATA / "drop"
    settings.STORE_FOLDER = settings.DATA / "store"
    settings.CHECK_DEVICE = "cpu"
    folder = settings.DROP_FOLDER / "copy"
    folder.mkdir(parents=True)
    (folder / "a.bin").write_bytes(bytes(range(256)) * 1000)
    publish(folder, Name.parse("llama/tiny@1"), by="command:publish", at=now())
    return settings.DATA


@pytest.fixture
def person(data):
    from django.contrib.auth.models import Group

    user = make_person("reviewer@lab.example", is_staff=True)
    user.groups.add(Group.objects.get(name="Reviewers"))
    return user


def again(check):
    return Verification.objects.get(pk=check.pk)


def wait_for(true, what):
    until = time.monotonic() + WITHIN
    while not true():
        assert time.monotonic() < until, f"{what}: not within {WITHIN} s"
        time.sleep(0.05)


def test_a_folder_is_checked_and_its_place_is_not_told(person, data):
    check = ask_folder(person, "copy", None, at=now())
    running.run_check(check.pk)
    done = again(check)
    assert (done.status, done.verdict, done.exit_status) == ("done", "identical", 0)
    assert done.report["path"] == "copy" and str(data) not in str(done.report)
    assert done.bytes_done == done.bytes_total == 256_000
    assert not copies.folder_of(check.pk).exists()


def test_a_damaged_upload_is_found_and_then_removed(person, data):
    from django.core.files.uploadedfile import SimpleUploadedFile

    files = [SimpleUploadedFile("a.bin", b"x" * 256_000)]
    check = ask_upload(person, files, None, at=now())
    running.run_check(check.pk)
    assert (again(check).verdict, again(check).exit_status) == ("damaged", 1)
    assert not copies.folder_of(check.pk).exists()


@pytest.fixture
def site(data, settings):
    """The drop folder, served over HTTP."""
    handler = partial(QuietHandler, directory=settings.DROP_FOLDER)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_files_are_fetched_checked_and_their_signatures_forgotten(person, site, settings):
    settings.FETCH_PRIVATE_ADDRESSES = True
    check = ask_urls(person, [f"{site}/copy/a.bin?signature=secret"], None, at=now())
    running.run_check(check.pk)
    done = again(check)
    assert (done.verdict, done.report["path"]) == ("identical", "the copy")
    assert done.what == [f"{site}/copy/a.bin"]
    assert not copies.folder_of(check.pk).exists()


def test_no_more_is_fetched_than_is_left_today(person, site, settings):
    settings.FETCH_PRIVATE_ADDRESSES = True
    settings.CHECK_BYTES_PER_DAY = 255_999
    check = ask_urls(person, [f"{site}/copy/a.bin"], None, at=now())
    running.run_check(check.pk)
    assert again(check).status == "failed" and "255,999 are left" in again(check).sentence


def test_a_check_of_a_private_address_fails_and_says_so(person, site):
    check = ask_urls(person, [f"{site}/copy/a.bin"], None, at=now())
    running.run_check(check.pk)
    assert again(check).status == "failed" and "not a public address" in again(check).sentence


def test_a_check_without_a_root_fails_and_tells_no_path(person, data):
    (data / "keys" / "1.root.json").write_text("no root")
    check = ask_folder(person, "copy", None, at=now())
    running.run_check(check.pk)
    done = again(check)
    assert done.status == "failed" and "keys cannot be used" in done.sentence
    assert str(data) not in done.sentence
    assert str(data) not in done.sentence


def find_verifier(folder):
    """Return the process that checks ``folder``, without its guard; None before it is there."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[1:4] == [b"-m", b"verifier", str(folder).encode()]:
            return int(entry.name)
    return None


def lives(pid):
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def stop_verifier(folder):
    """Halt the verifier of ``folder`` in the middle of its work, and return its process."""
    wait_for(lambda: find_verifier(folder), "the verifier")
    pid = find_verifier(folder)
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_the_verifier_ends_when_its_check_is_taken_over(person, data, settings):
    settings.CHECK_LEASE_SECONDS = 1
    check = ask_folder(person, "copy", None, at=now())
    stopped = []

    def take_over():
        stopped.append(stop_verifier(settings.DROP_FOLDER / "copy"))
        Verification.objects.filter(pk=check.pk).update(owner=check.pk)
        connections.close_all()

    thief = threading.Thread(target=take_over)
    thief.start()
    running.run_check(check.pk)
    thief.join()
    assert not lives(stopped[0])
    assert (again(check).status, again(check).owner) == ("running", check.pk)


@pytest.fixture
def start_worker(data):
    """Start `manage.py worker` on this test's portal; a function, to be called again."""
    started = []
    environment = os.environ | {
        "WEIGHBRIDGE_DATA": str(data),
        "WEIGHBRIDGE_CHECK_LEASE_SECONDS": "4",
        "WEIGHBRIDGE_CHECK_DEVICE": "cpu",
    }

    def start():
        command = [sys.executable, "manage.py", "worker"]
        with (data / "worker.log").open("ab") as log:
            started.append(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            kill_tree(process)


def kill_tree(process):
    """End a worker and its pool as a power cut does."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_check_outlives_its_worker_and_is_finished_once(person, data, settings, start_worker):
    check = ask_folder(person, "copy", None, at=now())
    # as if its message was lost: the reconciler must find the row
    Verification.objects.filter(pk=check.pk).update(woken_at=None)
    worker = start_worker()
    verifier = stop_verifier(settings.DROP_FOLDER / "copy")
    kill_tree(worker)
    wait_for(lambda: not lives(verifier), "the end of the verifier")
    assert again(check).status == "running"
    start_worker()
    wait_for(lambda: again(check).status != "running", "the second attempt")
    done = again(check)
    assert (done.status, done.verdict, done.attempt) == ("done", "identical", 2)
    assert Event.objects.filter(subject=check.subject, action="verification.finished").count() == 1
    assert "superuser" not in (data / "worker.log").read_text()
