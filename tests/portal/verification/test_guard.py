import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from portal.verification import guard

SESSION_OF_ITS_OWN = """
import subprocess, sys
far = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(far.pid, flush=True)
far.wait()
"""


def run(*command, memory=1 << 30):
    return subprocess.Popen(
        [sys.executable, "-I", guard.__file__, str(memory), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("status", [0, 1, 2])
def test_the_status_of_the_command_is_kept(status):
    with run(sys.executable, "-c", f"raise SystemExit({status})") as process:
        assert process.wait(timeout=30) == status


def test_all_that_was_started_ends_when_the_pipe_closes():
    with run(sys.executable, "-c", SESSION_OF_ITS_OWN) as process:
        far = Path("/proc") / process.stdout.readline().decode().strip()
        process.stdin.close()
        assert process.wait(timeout=30) == guard.ENDED
    assert not far.exists()


def told(process):
    """What the guard says of itself, before the command does anything."""
    return json.loads(process.stderr.readline())["isolation"]


def test_the_command_reaches_no_network_or_the_guard_says_why():
    """The name of the network's namespace is another one, and only a loopback that is down."""
    look = "import os, socket; print(os.readlink('/proc/self/ns/net'), socket.if_nameindex())"
    with run(sys.executable, "-c", look) as process:
        network, seen = told(process)["network"], process.stdout.read().decode()
    ours = os.readlink("/proc/self/ns/net")
    if network == "none":
        assert ours not in seen and seen.strip().endswith("[(1, 'lo')]")
    else:
        assert ours in seen and network.startswith("the worker's: ")


def test_files_can_be_read_and_written_without_the_network(tmp_path):
    (tmp_path / "a").write_text("weights")
    copy = "import sys, shutil; shutil.copy(sys.argv[1] + '/a', sys.argv[1] + '/b')"
    with run(sys.executable, "-c", copy, str(tmp_path)) as process:
        assert process.wait(timeout=30) == 0
    assert (tmp_path / "b").read_text() == "weights"
    assert (tmp_path / "b").stat().st_uid == os.geteuid()


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="CUDA: memory is not bounded")
def test_a_process_gets_no_more_memory_than_it_may_have():
    take = "import sys; bytearray(int(sys.argv[1]))"
    for size, status in ((64 << 20, 0), (512 << 20, 1)):
        with run(sys.executable, "-c", take, str(size), memory=256 << 20) as process:
            assert told(process)["memory"].startswith("268,435,456 bytes")
            assert process.wait(timeout=30) == status
