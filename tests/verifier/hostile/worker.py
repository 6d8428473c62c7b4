"""A server that runs verifications of hostile folders, each in a process of its own.

    stdin   {"arguments": [...], "room": FOLDER, "user": ID|null, "rewrite": [...]}   a line per case
    stdout  {"status", "out", "err", "seconds", "cpu", "peak", "deeds", "died"}

Modules are imported once; a fork per case starts from there, so that its CPU time and its growth in
memory are its own, and a crash or an endless loop ends that case alone. An audit hook (PEP 578)
notes whatever the case does beyond reading.
"""

import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

PATIENCE_S = 30
"""On a busy machine; the bound that counts is that of CPU time."""
_STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn")
_STARTS += ("pickle.find_class", "socket.connect", "socket.bind", "ctypes.dlopen")
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod")
_CHANGES += ("os.chown", "os.truncate", "os.utime", "os.mkfifo", "os.mknod", "shutil.rmtree")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def warm() -> None:
    """Import what a verification imports, and let torch do what it does once."""
    import torch

    import verifier.command_line
    import verifier.lists
    import verifier.oms_command
    import verifier.report_html
    import verifier.tensor_check
    import verifier.values
    import verifier.verify  # noqa: F401

    torch.set_num_threads(1)  # a fork has no threads but its first


def listen(deeds: list[str], allowed: str) -> None:
    """Note in ``deeds`` what is started, and what is written outside the folder ``allowed``."""

    def inside(path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return True  # a descriptor: what opened it was noted
        place = os.path.abspath(os.fsdecode(path))
        return place == "/dev/null" or place.startswith(f"{allowed}/") or place == allowed

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = given
            if isinstance(flags, int) and flags & _WRITING and not inside(path):
                deeds.append(f"{event} {path!r}")
        elif event == "pickle.find_class" and given[0].startswith("verifier."):
            pass  # the digest engine's own children send errors back so
        elif event in _STARTS:
            deeds.append(f"{event} {given[:2]!r}")
        elif event in _CHANGES and not inside(given[0]):
            deeds.append(f"{event} {given[0]!r}")

    sys.addaudithook(hook)


def run(case: dict[str, Any], room: Path) -> dict[str, Any]:
    """Run one case in this process, which ends after it."""
    from verifier.command_line import main

    os.chdir(room / "cwd")
    os.environ |= {"WEIGHBRIDGE_DATA": str(room / "data"), "HOME": str(room / "home")}
    os.environ |= {"TMPDIR": str(room / "cwd")}
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(room / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
    if case.get("user"):
        os.setgroups([])
        os.setresgid(case["user"], case["user"], case["user"])
        os.setresuid(case["user"], case["user"], case["user"])
    deeds: list[str] = []
    listen(deeds, str(room / "data"))
    before, used = _peak(), time.process_time()
    try:
        status = main(case["arguments"])
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    sys.stdout.flush()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "status": status,
        "cpu": time.process_time() - used + children.ru_utime + children.ru_stime,
        "peak": _peak() - before,
        "deeds": deeds,
    }


def _peak() -> int:
    """Return the most memory that this process has had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def serve(case: dict[str, Any]) -> dict[str, Any]:
    """Fork, run ``case`` there, and return what became of it."""
    room = Path(case["room"])
    ours, theirs = os.pipe()
    started = time.monotonic()
    process = os.fork()
    if process == 0:
        answer: dict[str, Any] = {"died": "without a word"}
        try:
            os.setpgid(0, 0)
            answer = run(case, room)
        except BaseException as error:  # noqa: BLE001  a traceback is what the test looks for
            import traceback

            traceback.print_exc()
            answer = {"died": repr(error)[:200]}
        finally:
            os.write(theirs, json.dumps(answer).encode())
            os._exit(0)
    os.close(theirs)
    ready, _, _ = select.select([ours], [], [], PATIENCE_S)
    answer = {"died": f"it took more than {PATIENCE_S} seconds"}
    if ready:
        data = os.read(ours, 1 << 16)
        answer = json.loads(data) if data else {"died": "its process crashed"}
    else:
        os.killpg(process, signal.SIGKILL)
    os.close(ours)
    os.waitpid(process, 0)
    answer["seconds"] = time.monotonic() - started
    return answer


def answer_cases() -> None:
    """Answer line by line until nobody asks any more."""
    warm()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer_cases()
