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


def run(*command):
    return subprocess.Popen(
        [sys.executable, "-I", guard.__file__, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
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
