"""A long verification goes on where it was interrupted, and believes nothing that could have changed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.verifier.conftest import SHARD, publish
from verifier import engine, resume, walk
from verifier.errors import InputError

MIB = 1 << 20


@pytest.fixture
def journals(tmp_path):
    return tmp_path / "data" / "resume"


def settle(folder):
    """Make the files old enough to be believed: their ctime cannot be set, so wait for it."""
    newest = max(p.stat().st_ctime for p in folder.rglob("*") if p.is_file())
    time.sleep(max(0.0, newest + 2.1 - time.time()))


def interrupted(copy):
    """Run the engine with a journal, and stop when the first shard is done."""
    listing = walk.walk(copy)
    job = engine.Job(listing.files[SHARD], leaf_kinds=("blake3",), limit=listing.files[SHARD].size)
    journals = copy.parent / "data" / "resume"
    with pytest.raises(KeyboardInterrupt), resume.journal(journals, copy.resolve()) as journal:
        next(engine.run([job], lambda more: None, journal=journal))
        raise KeyboardInterrupt


def test_what_was_read_before_an_interruption_is_not_read_again(copy, verify, journals, signer):
    settle(copy)
    interrupted(copy)
    plain = verify(copy, "--checks", "files").report
    done = verify(copy, "--checks", "files", "--resume")
    assert done.report["verdict"] == "identical"
    assert done.report["bytes_read"] == plain["bytes_read"] - (copy / SHARD).stat().st_size
    assert not list(journals.iterdir())


def test_a_file_written_to_since_is_read_again(copy, verify):
    settle(copy)
    interrupted(copy)
    before = (copy / SHARD).stat()
    with (copy / SHARD).open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"changed!")
    os.utime(copy / SHARD, ns=(before.st_atime_ns, before.st_mtime_ns))
    done = verify(copy, "--checks", "files", "--resume")
    assert done.report["verdict"] == "damaged"


def test_nothing_is_noted_of_a_file_that_was_written_a_moment_ago(copy, journals):
    os.utime(copy / SHARD)
    interrupted(copy)
    (journal,) = journals.iterdir()
    assert len(journal.read_text().splitlines()) == 1


def test_nothing_is_believed_after_the_machine_started_anew(copy, verify, journals):
    settle(copy)
    interrupted(copy)
    (journal,) = journals.iterdir()
    head, *rest = journal.read_text().splitlines(keepends=True)
    journal.write_text(json.dumps(json.loads(head) | {"boot": "another"}) + "\n" + "".join(rest))
    again, plain = verify(copy, "--checks", "files", "--resume"), verify(copy, "--checks", "files")
    assert again.report["bytes_read"] == plain.report["bytes_read"]


def test_a_torn_last_line_is_dropped(copy, verify, journals):
    settle(copy)
    interrupted(copy)
    (journal,) = journals.iterdir()
    with journal.open("a") as file:
        file.write('["half')
    done = verify(copy, "--checks", "files", "--resume")
    plain = verify(copy, "--checks", "files")
    assert done.report["verdict"] == "identical"
    assert done.report["bytes_read"] < plain.report["bytes_read"]


def test_digests_of_the_wrong_length_are_not_used(copy, verify, journals):
    settle(copy)
    interrupted(copy)
    (journal,) = journals.iterdir()
    head, line = journal.read_text().splitlines()
    entry = json.loads(line)
    for broken in ("", "zz", "00", 7, None):
        values = dict.fromkeys(entry[-1], broken)
        journal.write_text(f"{head}\n{json.dumps([*entry[:-1], values])}\n")
        assert verify(copy, "--checks", "files", "--resume").report["verdict"] == "identical"


def test_a_journal_that_others_can_write_is_refused(copy, verify, journals):
    settle(copy)
    interrupted(copy)
    (journal,) = journals.iterdir()
    journal.chmod(0o666)
    done = verify(copy, "--checks", "files", "--resume")
    assert done.status == 2
    assert "only you can write" in done.sentence


def test_a_second_run_at_the_same_time_is_refused(copy, journals):
    with (
        resume.journal(journals, copy),
        pytest.raises(InputError, match="is running"),
        resume.journal(journals, copy),
    ):
        pytest.fail("two runs wrote one journal")


def test_a_place_that_cannot_be_written_is_named(copy, verify, tmp_path):
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "resume").write_text("a file in its place")
    done = verify(copy, "--checks", "files", "--resume")
    assert done.status == 2
    assert "--resume cannot write" in done.sentence


def test_an_interrupted_command_says_how_to_go_on_and_goes_on(tmp_path, signer):
    """The real command over real bytes, interrupted while it works, then run again."""
    folder = tmp_path / "official" / "big"
    folder.mkdir(parents=True)
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(1 << 30)
    publish(folder, tmp_path / "work", signer)
    settle(folder)
    command = [sys.executable, "-m", "verifier", str(folder), "--trusted-key", str(signer.public)]
    command += ["--checks", "files", "--resume", "--json", "--digest", "sha256"]
    running = subprocess.Popen(
        [*command, "--progress-json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in running.stderr:
        progress = json.loads(line)
        if 0 < progress["done"] < progress["total"]:
            running.send_signal(signal.SIGINT)
            break
    _, rest = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "goes on from here" in rest
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    size = sum(p.stat().st_size for p in folder.rglob("*.bin"))
    assert (report["verdict"], done.returncode) == ("identical", 0)
    assert report["bytes_read"] < size
