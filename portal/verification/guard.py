"""Run a command without a network that ends, with all it started, when the worker does.

`python guard.py BYTES COMMAND...`: each process may have so many bytes of memory. Standard input is
a pipe from the worker: the kernel closes it however the worker ends, by SIGKILL too. The inference
check has a session of its own, so no signal to a process group reaches it; but what loses its parent
here becomes a child of this process (PR_SET_CHILD_SUBREAPER, prctl(2)), which kills until none is
left.

The network is a new, empty one (network_namespaces(7)). Where the kernel gives none the command runs
all the same, and a line of JSON on stderr says so. Memory is bounded as data (RLIMIT_DATA): shards
are mapped, and torch reserves far more addresses than it uses, so RLIMIT_AS only stops a runaway.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
ADDRESS_SPACE = 256 << 30  # bytes; shards are mapped, and torch reserves far more than it uses
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # unshare(2)
ENDED = 128 + signal.SIGKILL


def main() -> None:
    """Run the command in the arguments and exit with its status, 128 + n where signal n ended it."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    told = {"network": _leave_network(), "memory": _limit(int(sys.argv[1]))}
    print(json.dumps({"isolation": told}), file=sys.stderr, flush=True)
    child = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL)
    ending = threading.Event()
    watch = threading.Thread(target=_end_with_worker, args=[ending], daemon=True)
    watch.start()
    status = child.wait()
    if ending.is_set():
        watch.join()  # it exits, when all has ended
    _end_all()
    os._exit(status if status >= 0 else 128 - status)


def _leave_network() -> str:
    """Enter a network without interfaces, and say whether that worked.

    Root needs no namespace of users for it, in which it could not read the files of others.
    """
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) == 0:
        return "none"
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return f"the worker's: {os.strerror(ctypes.get_errno())}"
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    except OSError:  # the process then has no name, and the same rights to files
        pass
    return "none"


def _limit(most: int) -> str:
    """Bound the memory of each process from here on, and say how."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if Path("/dev/nvidiactl").exists():  # CUDA maps the memory of all devices at once
        return "not bounded: CUDA"
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    return f"{most:,} bytes of data for each process"


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
