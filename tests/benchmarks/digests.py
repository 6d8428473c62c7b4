"""How fast a copy is verified, beside the tools that only hash: `python -m tests.benchmarks.digests`.

All read the same hot files in one run, in turn; each is a whole process less its own `--help`.
Needs `b3sum` and coreutils, and twice --gib of memory for files that stay hot.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from tests.benchmarks.processes import Command, ratio, table, take_turns
from verifier import dsse, oms
from verifier.describe import Checkpoint, describe
from verifier.engine import cpu_count
from verifier.progress import silent

GIB = 1 << 30
META_LOOP = 'cd "$1" && md5sum -c checklist.chk'


def main() -> None:
    """Measure and print tables of Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=4.0, help="size of the checkpoint")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as work:
        for files in (1, 8):
            shards(Path(work) / f"{files}-files", files, int(given.gib * GIB), given.rounds)
        many_files(Path(work) / "many", given.rounds)
        starting(given.rounds)


def shards(work: Path, files: int, size: int, rounds: int) -> None:
    """Compare on ``size`` bytes in ``files`` files."""
    folder, public = publish(work, files, size)
    print(f"\n### {size / GIB:g} GiB in {files} file{'s' if files > 1 else ''}\n", flush=True)
    names = sorted(str(path) for path in folder.glob("*.bin"))
    python, threads = sys.executable, str(cpu_count())
    verify = [python, "-m", "verifier"]
    key = ["--trusted-key", str(public), "--checks", "files"]
    ours = Command(
        "`verify --checks files` (BLAKE3)", [*verify, str(folder), *key], [*verify, "--help"]
    )
    sha256 = Command(
        "`verify --checks files --digest sha256`",
        [*verify, str(folder), *key, "--digest", "sha256"],
        [*verify, "--help"],
    )
    tool = str(Path(python).with_name("model_signing"))
    signed = [tool, "verify", "key", str(folder), "--signature", str(folder / "model.sig")]
    peer = Command(
        "`model_signing verify key`", [*signed, "--public_key", str(public)], [tool, "--help"]
    )
    b3sum = Command(
        f"`b3sum --num-threads {threads}`",
        ["b3sum", "--num-threads", threads, *names],
        ["b3sum", "--help"],
    )
    hub = Hub(folder)
    hf = str(Path(python).with_name("hf"))
    others = [
        Command("`sha256sum` (coreutils)", ["sha256sum", *names], ["sha256sum", "--help"]),
        Command(
            "`hf cache verify`",
            [hf, "cache", "verify", "x/y", "--local-dir", str(folder)],
            [hf, "--help"],
            hub.environment,
        ),
        Command("`md5sum -c checklist.chk`", ["sh", "-c", META_LOOP, "sh", str(folder)]),
    ]
    commands = [ours, b3sum, sha256, peer, *others]
    with hub:
        take_turns(commands, rounds)
    print(table(commands, ours, size))
    memory = statistics.median(in_memory(size) for _ in range(rounds))
    share = size / sha256.median / memory
    print(
        f"\n`verify` ÷ `model_signing`: {ratio(ours, peer):.2f}; `verify` ÷ `b3sum`: "
        f"{ratio(ours, b3sum):.2f}; `--digest sha256` ÷ hashlib over memory "
        f"({memory / 1e9:.2f} GB/s on {threads} threads): {share:.2f}",
        flush=True,
    )
    shutil.rmtree(work)


def many_files(work: Path, rounds: int) -> None:
    """Measure what each of 1,000 small files adds."""
    few, public = publish(work / "few", 1, 4096)
    many, other = publish(work / "many", 1000, 1000 * 4096)
    commands = [
        Command(
            name,
            [
                sys.executable,
                "-m",
                "verifier",
                str(folder),
                "--trusted-key",
                str(key),
                "--checks",
                "files",
            ],
        )
        for name, folder, key in (("one", few, public), ("many", many, other))
    ]
    take_turns(commands, rounds)
    pairs = zip(commands[1].seconds, commands[0].seconds, strict=True)
    each = statistics.median(many - one for many, one in pairs)
    print(f"\nEach of 1,000 files of 4 KiB adds {each:.3f} ms.", flush=True)


def starting(rounds: int) -> None:
    """Measure how long `--help` takes."""
    python = sys.executable
    helps = [
        Command("`python -m verifier --help`", [python, "-m", "verifier", "--help"]),
        Command("`manage.py verify --help`", [python, "manage.py", "verify", "--help"]),
        Command("`manage.py check`", [python, "manage.py", "check"]),
    ]
    take_turns(helps, rounds)
    print("\n| command | seconds |\n| --- | --- |")
    for command in helps:
        print(f"| {command.name} | {command.median:.2f} |")


def publish(work: Path, files: int, size: int) -> tuple[Path, Path]:
    """Make a checkpoint of random bytes, signed as the portal does, with Meta's checklist beside."""
    folder = work / "checkpoint"
    folder.mkdir(parents=True)
    for number in range(files):
        with (folder / f"shard-{number:04}.bin").open("wb") as file:
            left = size // files
            while left:
                file.write(block := os.urandom(min(left, 1 << 26)))
                left -= len(block)
    names = sorted(path.name for path in folder.iterdir())
    lines = subprocess.run(["md5sum", *names], cwd=folder, capture_output=True, check=True).stdout
    (folder / "checklist.chk").write_bytes(lines)
    checkpoint = Checkpoint("bench/bytes@1", 1, "2026-01-02T03:04:05+00:00")
    describe(folder, checkpoint, work / "work", silent)
    key = ec.generate_private_key(ec.SECP256R1())
    listed = json.loads((work / "work" / "resources.json").read_text())["resources"]
    bundle = oms.sign([oms.Resource(**entry) for entry in listed], checkpoint.name, key)
    (folder / "model.sig").write_bytes(bundle)
    shutil.copytree(work / "work" / ".weighbridge", folder / ".weighbridge")
    public = work / "release.pub.pem"
    public.write_bytes(dsse.public_pem(key.public_key()))
    return folder, public


def in_memory(size: int) -> float:
    """Return the bytes per second that hashlib reaches on all cores over memory that is there."""
    data = memoryview(bytearray(os.urandom(1 << 26)))
    rounds = max(1, size // len(data))
    with ThreadPoolExecutor(cpu_count()) as pool:
        started = time.perf_counter()
        list(pool.map(lambda _: hashlib.sha256(data).digest(), range(rounds)))
        return rounds * len(data) / (time.perf_counter() - started)


class Hub:
    """A Hub on loopback that lists the folder, for the client that asks it which digests to find."""

    def __init__(self, folder: Path) -> None:
        listing = json.dumps([_entry(folder, path) for path in folder.rglob("*") if path.is_file()])

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_tree = "/tree/" in self.path
                self.send_response(200 if is_tree else 404)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(listing.encode() if is_tree else b"{}")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.environment = {
            "HF_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "HF_HOME": str(folder.parent / "hf"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def __enter__(self) -> None:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _entry(folder: Path, path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    lfs = {"oid": sha256, "size": size, "pointerSize": 134}
    name = str(path.relative_to(folder))
    return {"type": "file", "path": name, "size": size, "oid": sha256[:40], "lfs": lfs}


if __name__ == "__main__":
    main()
