"""Run a command that ends, with all it started, when the worker does.

`python guard.py COMMAND...`, with a pipe from the worker as standard input: the kernel closes that
pipe however the worker ends, by SIGKILL too. The inference check has a session of its own, so no
signal to a process group reaches it; but what loses its parent here becomes a child of this
process (PR_SET_CHILD_SUBREAPER, prctl(2)), which kills until none is left.
"""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
ADDRESS_SPACE = 256 << 30  # bytes; shards are mapped, and torch reserves far more than it uses
ENDED = 128 + signal.SIGKILL


def main() -> None:
    """Run the command in the arguments and exit with its status, 128 + n where signal n ended it."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not Path("/dev/nvidiactl").exists():  # CUDA maps the memory of all devices at once
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    ending = threading.Event()
    watch = threading.Thread(target=_end_with_worker, args=[ending], daemon=True)
    watch.start()
    status = child.wait()
    if ending.is_set():
        watch.join()  # it exits, when all has ended
    _end_all()
    os._exit(status if status >= 0 else 128 - status)


def _end_with_worker(ending: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    ending.set()
    _end_all()
    os._exit(ENDED)


def _end_all() -> None:
    """Kill the children, and their children as they become ours, until there is none."""
    while children := _children():
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                continue


def _children() -> list[int]:
    """Return the processes whose parent is this one, by proc_pid_stat(5)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(parent) == os.getpid():
                found.append(int(entry.name))
    return found


if __name__ == "__main__":
    main()
