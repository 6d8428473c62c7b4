"""The commands as a person runs them: quick to start, one sentence, nothing left behind."""

import fcntl
import json
import os
import pty
import resource
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from tests.verifier.conftest import SHARD, flip, run_command


def test_help_is_there_at_once_and_imports_nothing_heavy():
    started = time.perf_counter()
    done = run_command("--help")
    seconds = time.perf_counter() - started
    assert done.status == 0
    assert "--trusted-key" in done.out
    assert seconds < 0.75  # 0.12 s on a quiet machine; tests share theirs
    script = (
        "import sys, verifier.oms, verifier.manifest, verifier.report, verifier.verify;"
        "print([m for m in ('torch', 'django', 'numpy', 'tqdm') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert loaded.stdout.strip() == "[]", loaded.stderr


def test_without_json_the_verdict_comes_first_and_it_fits_a_screen(copy, published):
    for number in range(100):
        (copy / f"extra-{number}.txt").touch()
    flip(copy / SHARD, 0)
    outcome = run_command(copy, "--trusted-key", published.signer.public, "--checks", "files")
    lines = outcome.out.splitlines()
    assert lines[0].startswith("DAMAGED")
    assert len(lines) <= 24
    assert outcome.status == 1
    assert outcome.sentence.startswith("This copy of test/tiny@1 is damaged")


def test_an_escape_sequence_in_a_name_does_not_reach_the_terminal(copy, published):
    (copy / "evil\x1b[2J\nname.safetensors").touch()
    outcome = run_command(copy, "--trusted-key", published.signer.public, "--checks", "files")
    assert "\x1b" not in outcome.out + outcome.err


def test_progress_is_lines_of_json_and_the_last_line_is_the_sentence(copy, published):
    outcome = run_command(
        copy, "--trusted-key", published.signer.public, "--checks", "files", "--progress-json"
    )
    *lines, sentence = outcome.err.splitlines()
    steps = [json.loads(line) for line in lines]
    assert steps[-1]["stage"] == "files"
    assert steps[-1]["done"] == steps[-1]["total"]
    assert sentence.startswith("This copy of test/tiny@1 is identical")


def test_a_terminal_sees_a_bar_and_then_only_the_sentence(tmp_path):
    with (tmp_path / "big").open("wb") as file:
        file.truncate(512 << 20)
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = ["describe", tmp_path, "--name", "test/a@1", "--revision", "1", "--issued"]
    command += ["2026-01-02T03:04:05+00:00", "--out", tmp_path.with_name("work")]
    done = subprocess.run([sys.executable, "-m", "verifier", *map(str, command)], stderr=terminal)
    os.close(terminal)
    written = os.read(screen, 1 << 20).decode()
    os.close(screen)
    assert done.returncode == 0
    assert "files:" in written
    assert written.split("\r")[-2].strip().startswith("No value digests")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x", "--checks", "smell"],
        ["x", "--accept", "untrusted"],
        ["x", "--memory", "lots"],
        ["x", "--positions", "0"],
        ["x", "--trusted-key", "/none"],
        ["describe", "x"],
        ["oms"],
    ],
)
def test_wrong_usage_is_one_sentence_and_2(arguments, tmp_path):
    outcome = run_command(*arguments, cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.getcwd()})
    assert outcome.status == 2
    assert outcome.sentence


def test_installed_keys_serve_where_none_is_given(copy, published, tmp_path):
    (tmp_path / "data" / "keys").mkdir(parents=True)
    (tmp_path / "data" / "keys" / "release.pub.pem").write_bytes(
        published.signer.public.read_bytes()
    )
    env = os.environ | {"WEIGHBRIDGE_DATA": str(tmp_path / "data")}
    assert run_command(copy, "--checks", "files", env=env).status == 0
    seen = json.loads((tmp_path / "data" / "seen.json").read_text())
    assert list(seen.values()) == [{"test/tiny@1": 1}]


def test_the_page_is_written_or_the_reason_said(copy, published, tmp_path):
    given = [copy, "--trusted-key", published.signer.public, "--checks", "files", "--report"]
    assert run_command(*given, tmp_path / "report.html").status == 0
    assert "identical" in (tmp_path / "report.html").read_text()
    outcome = run_command(*given, tmp_path / "none" / "report.html")
    assert (outcome.status, outcome.out) == (2, "")
    assert "cannot be written" in outcome.sentence


def processes_of(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing_behind(tmp_path, number):
    folder, work = tmp_path / "big", tmp_path / "work"
    folder.mkdir()
    with (folder / "big").open("wb") as file:
        file.truncate(64 << 30)
    command = ["describe", folder, "--name", "test/big@1", "--revision", "1"]
    command += ["--issued", "2026-01-02T03:04:05+00:00", "--out", work, "--progress-json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "verifier", *map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        process.stderr.readline()
        process.send_signal(number)
        said = process.stderr.read()
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    assert not [path for path in work.rglob("*") if path.is_file()]
    deadline = time.monotonic() + 5
    while processes_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes_of(process.pid)


def test_a_write_that_fails_is_said_in_one_sentence(tmp_path):
    """A limit on the size of files fails a write as a full disk does: in the middle of it."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_text("a")
    command = ["describe", tmp_path / "model", "--name", "test/a@1", "--revision", "1"]
    command += ["--issued", "2026-01-02T03:04:05+00:00", "--out", tmp_path / "work"]
    outcome = run_command(
        *command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    )
    assert outcome.status == 2
    assert "cannot be written: File too large" in outcome.sentence
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
