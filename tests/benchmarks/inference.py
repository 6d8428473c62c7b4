"""How fast a copy is hashed and run at once, beside tools that do one of the two.

    python -m tests.benchmarks.inference [--layers 24] [--rounds 3] [--folder DIR] [--shape 65b]

Makes a checkpoint of 1.3 billion parameters in fp16 from a seed (2.7 GB), reads it until it is hot,
and takes turns: this check, `openssl dgst -sha256`, `import torch`, transformers in fp16, and, where
accelerate is installed, its disk offload. Each is a whole process; times are wall and CPU, peaks the
process's own. On a machine that others use, trust the CPU times.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

POSITIONS = 32
SHAPE = ("--width", "2048", "--heads", "16", "--kv-heads", "16", "--hidden", "5504")
VOCAB = ("--vocab", "32000")

TRANSFORMERS = """
import sys, torch
torch.set_num_threads(len(__import__("os").sched_getaffinity(0)))
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float16)
with torch.no_grad():
    model(torch.arange(32)[None]).logits.float().logsumexp(-1)
"""
OFFLOAD = """
import sys, torch
from accelerate import init_empty_weights, load_checkpoint_and_dispatch
from transformers import AutoConfig, AutoModelForCausalLM
config = AutoConfig.from_pretrained(sys.argv[1], dtype=torch.float16)
with init_empty_weights():
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
layers = {f"model.layers.{n}": "disk" for n in range(config.num_hidden_layers)}
places = {"model.embed_tokens": "disk", "model.norm": "cpu", "model.rotary_emb": "cpu"}
model = load_checkpoint_and_dispatch(
    model, sys.argv[1], device_map=places | layers | {"lm_head": "disk"}, offload_folder=sys.argv[2],
    dtype=torch.float16,
)
with torch.no_grad():
    model(torch.arange(32)[None]).logits.float().logsumexp(-1)
"""


@dataclass
class Timed:
    """A command, and what its runs took."""

    name: str
    arguments: Sequence[str]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    inner: list[float] = field(default_factory=list)
    peak: int = 0

    def run(self) -> None:
        """Time it once.

        Raises:
            SystemExit: it failed, so that its time would mean nothing.
        """
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as complaints:
            started = time.perf_counter()
            process = subprocess.Popen(list(self.arguments), stdout=out, stderr=complaints)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.wall.append(time.perf_counter() - started)
            if process.returncode:
                complaints.seek(0)
                print(complaints.read()[-2000:].decode(errors="replace"), file=sys.stderr)
                raise SystemExit(f"{self.name} ended with {process.returncode}")
            self.cpu.append(usage.ru_utime + usage.ru_stime)
            self.peak = max(self.peak, usage.ru_maxrss << 10)
            out.seek(0)
            said = out.read()
        if said.startswith(b"{"):
            answer = json.loads(said)
            assert answer["status"] in ("agrees", "not-run"), answer["reason"]
            self.inner.append(answer["seconds"])

    @property
    def row(self) -> str:
        """Return a row of the table."""
        inner = f"{statistics.median(self.inner):.2f}" if self.inner else ""
        return (
            f"| {self.name} | {statistics.median(self.wall):.2f} | {inner} | "
            f"{statistics.median(self.cpu):.2f} | {self.peak / 1e6:.0f} |"
        )


def main() -> None:
    """Measure and print tables of Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--shape", choices=("65b",), help="only this sparse shape, beside hashing")
    parser.add_argument("--ours", action="store_true", help="only this check, for its peak")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        if given.shape:
            sparse(Path(folder), given.shape)
        else:
            dense(Path(folder), given.layers, given.rounds, only_ours=given.ours)


def dense(work: Path, layers: int, rounds: int, *, only_ours: bool) -> None:
    """Compare on a checkpoint of ``layers`` layers that is hot."""
    folder, reference = work / "hf", work / "reference.json"
    python = [sys.executable, "-m"]
    made = [*python, "inference_check.synthetic", str(folder), "--layout", "hf", "--parts", "2"]
    subprocess.run([*made, "--layers", str(layers), *SHAPE, *VOCAB], check=True)
    subprocess.run(
        [*python, "inference_check", str(folder), "--make-reference", str(reference)], check=True
    )
    files = sorted(map(str, folder.glob("*.safetensors")))
    ours = [
        Timed(
            f"this check, {digest}",
            [
                *(*python, "inference_check", str(folder), "--reference", str(reference)),
                *("--json", "--device", "cpu", "--digest", digest),
                *("--positions", str(POSITIONS)),
            ],
        )
        for digest in ("blake3", "sha256")
    ]
    others = [] if only_ours else peers(folder, work, files)
    for command in (*ours, *others):
        command.run()
        for times in (command.wall, command.cpu, command.inner):
            times.clear()
    for _ in range(rounds):
        for command in (*ours, *others):
            command.run()
    size = sum(Path(file).stat().st_size for file in files)
    print(f"\n### {size / 1e9:.2f} GB in {len(files)} files, {layers} layers, hot\n")
    print_rows((*ours, *others))
    if others:
        print_ratios(ours[1], *others)


def peers(folder: Path, work: Path, files: Sequence[str]) -> list[Timed]:
    """Return the commands that do a part of it."""
    python = sys.executable
    found = [
        Timed("`openssl dgst -sha256`", ["openssl", "dgst", "-sha256", *files]),
        Timed("`import torch`", [python, "-c", "import torch"]),
        Timed("transformers fp16, no hash", [python, "-c", TRANSFORMERS, str(folder)]),
    ]
    if importlib.util.find_spec("accelerate"):
        offloaded = [python, "-c", OFFLOAD, str(folder), str(work / "offload")]
        found.append(Timed("accelerate disk offload, no hash", offloaded))
    return found


def print_rows(commands: Sequence[Timed]) -> None:
    """Print what each took."""
    print("| command | wall s | opening to verdict s | CPU s | peak MB |")
    print("| --- | --- | --- | --- | --- |")
    for command in commands:
        print(command.row)


def print_ratios(ours: Timed, hashing: Timed, torch: Timed, *runs: Timed) -> None:
    """Print the ratios of the check with SHA-256 to the others, round by round, as medians."""

    def median(values: Sequence[float]) -> str:
        return f"{statistics.median(values):.2f}"

    rounds = range(len(ours.wall))
    print("\n| ratio, SHA-256 leaves | wall | CPU |\n| --- | --- | --- |")
    print(
        "| opening to verdict / openssl | "
        + median([ours.inner[n] / hashing.wall[n] for n in rounds])
        + " | "
        + median([(ours.cpu[n] - torch.cpu[n]) / hashing.cpu[n] for n in rounds])
        + " |"
    )
    sums = {"openssl + import torch": (hashing, torch)}
    for run in runs:
        alone = "accelerate" in run.name
        sums[run.name if alone else f"openssl, then {run.name.partition(',')[0]}"] = (
            (run,) if alone else (hashing, run)
        )
    for name, parts in sums.items():
        wall = [ours.wall[n] / sum(part.wall[n] for part in parts) for n in rounds]
        cpu = [ours.cpu[n] / sum(part.cpu[n] for part in parts) for n in rounds]
        print(f"| whole process / ({name}) | {median(wall)} | {median(cpu)} |")


def sparse(work: Path, shape: str) -> None:
    """Run a sparse checkpoint of a published size once, beside hashing the same files."""
    from inference_check.sparse import make_sparse

    make_sparse(work / shape, shape)
    files = sorted(map(str, (work / shape).glob("*.pth")))
    check = [sys.executable, "-m", "inference_check.selftest", "--device", "cpu"]
    started = time.perf_counter()
    subprocess.run([*check, "--shapes", shape, "--folder", str(work)], check=True)
    print(f"this check: {time.perf_counter() - started:.0f} s")
    hashing = Timed("`openssl dgst -sha256`", ["openssl", "dgst", "-sha256", *files])
    hashing.run()
    print_rows([hashing])


if __name__ == "__main__":
    main()
