"""The commands as a person runs them: quick to start, one sentence, nothing left behind."""

import fcntl
import json
import os
import pty
import resource
import shutil
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


def test_ctrl_c_while_modules_load_prints_no_traceback():
    script = (
        "import os, runpy, signal, sys\n"
        "class PressedThen:\n"
        "    def find_spec(name, *rest):\n"
        "        if name == 'verifier.command_line':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, PressedThen)\n"
        "runpy.run_module('verifier', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_an_empty_path_is_not_the_folder_where_we_stand(copy, published):
    outcome = run_command("", "--trusted-key", published.signer.public.resolve(), cwd=copy)
    assert outcome.status == 2
    assert outcome.out == ""
    assert "PATH is empty" in outcome.sentence


def test_a_closed_stdout_changes_nothing_but_that_nobody_reads(copy, published):
    given = [copy, "--trusted-key", published.signer.public, "--checks", "files"]
    outcome = run_command(*given, preexec_fn=lambda: os.close(1))
    assert outcome.status == 0
    assert "Traceback" not in outcome.err


def test_a_report_given_to_a_device_or_pipe_is_written_to_it(copy, published, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    given = [copy, "--trusted-key", published.signer.public, "--checks", "files", "--report", pipe]
    assert run_command(*given).status == 0
    assert pipe.is_fifo()
    assert os.read(reader, 15) == b"<!doctype html>"
    os.close(reader)


def test_a_library_that_is_missing_is_named_in_one_sentence(copy, published, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "class Without(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, *rest):\n"
        "        return None if name == 'cryptography' else PathFinder.find_spec(name, *rest)\n"
        "sys.meta_path[sys.meta_path.index(PathFinder)] = Without\n"
    )
    paths = os.pathsep.join([str(tmp_path), os.getcwd()])
    outcome = run_command(copy, env=os.environ | {"PYTHONPATH": paths})
    assert outcome.status == 2
    assert outcome.err == "cryptography is not installed here; pip install cryptography.\n"


def test_of_several_checkpoints_each_is_named_and_the_bad_one_is_told(copy, published, tmp_path):
    both = tmp_path / "both"
    both.mkdir()
    shutil.copytree(copy, both / "good")
    shutil.copytree(copy, both / "spoiled")
    flip(both / "spoiled" / SHARD, 0)
    outcome = run_command(both, "--trusted-key", published.signer.public, "--checks", "files")
    assert outcome.status == 1
    assert {str(both / "good"), str(both / "spoiled")} <= set(outcome.out.splitlines())
    assert outcome.sentence.startswith("1 of 2 checkpoints are accepted; the first that is not is")
    assert str(both / "spoiled") in outcome.sentence


def test_one_file_is_not_said_to_be_every_file(copy, published):
    given = ["--trusted-key", published.signer.public, "--checks", "files"]
    outcome = run_command(copy / SHARD, *given)
    assert outcome.status == 0
    assert "others were not looked at" in outcome.sentence
    assert "every file" not in outcome.out


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
