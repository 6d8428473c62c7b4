"""Measure the check on this machine: agreement of CPU and device per family, time, memory, copies.

    python -m inference_check.selftest --device cuda [--shapes small|7b|65b …] [--folder DIR]

Prints tables of Markdown. Shapes are sparse files of the published sizes, which take no room on
the disk; each runs in a process of its own, so that its peak is its own. Exit status 1: a family
does not agree.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from verifier.digests import LEAF_BYTES, blake3_available

from .compare import FLOOR, MARGIN, Distances, distances
from .config import from_hugging_face
from .copies import Copy, open_copy
from .errors import InferenceError
from .families import FAMILIES
from .leaves import LeafDigests
from .model import shapes
from .run import Questions, choose_device, run
from .signs import token_ids
from .sparse import SHAPES, make_sparse
from .stream import open_stream
from .synthetic import draw, write_json

SEED = "selftest"
POSITIONS = 32
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
COPIES = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m inference_check.selftest", description="Measure the check on this machine."
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--shapes", nargs="*", choices=sorted(SHAPES), default=["7b", "65b"])
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--memory", type=int, default=350, metavar="MIB", help="as --memory")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    try:
        device = choose_device(given.device)
    except InferenceError as error:
        print(f"{error}.", file=sys.stderr)
        return 2
    if given.one is not None:
        print(json.dumps(measure(given.one, device, given.memory << 20)))
        return 0
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        work = Path(folder)
        agreed = print_families(work, device)
        print_shapes(work, given.shapes, device, given.memory)
        print_copies(device)
    return 0 if agreed else 1


def family_config(model_type: str) -> dict[str, Any]:
    """Return a config.json of a small model of the family."""
    config: dict[str, Any] = {
        "model_type": model_type,
        "architectures": [FAMILIES[model_type].architecture],
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "vocab_size": 2048,
        "rms_norm_eps": 1e-6,
    }
    return config


def make_family(folder: Path, config: Mapping[str, Any]) -> Copy:
    """Write a checkpoint with this config, its entries drawn from a seed."""
    folder.mkdir(parents=True)
    write_json(folder / "config.json", dict(config))
    tensors = {
        name: draw(name, size, 7).half() for name, size in shapes(from_hugging_face(config)).items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return open_copy(folder)


def print_families(work: Path, device: torch.device) -> bool:
    """Print how far fp32 on the CPU and on the device are from fp64 and from each other."""
    print(f"| family | fp32 from fp64 | {device} from CPU | largest allowed |")
    print("| --- | --- | --- | --- |")
    agreed = True
    configs = {name: family_config(name) for name in FAMILIES}
    configs["llama, scaled and tied"] = {
        **family_config("llama"),
        "rope_scaling": LLAMA3,
        "tie_word_embeddings": True,
    }
    for name, config in configs.items():
        eps64, apart = compare_devices(make_family(work / name, config), device)
        allowed = max(FLOOR, MARGIN * eps64)
        agreed = agreed and apart <= allowed
        print(f"| {name} | {eps64:.1e} | {apart:.1e} | {allowed:.1e} |", flush=True)
    print()
    return agreed


def compare_devices(copy: Copy, device: torch.device) -> tuple[float, float]:
    """Return the worst distances of fp32 from fp64, and of the device from the CPU."""
    cpu = torch.device("cpu")
    tokens = tuple(token_ids(SEED, POSITIONS, copy.config.vocab or 0))
    exact = run(copy, Questions(SEED, tokens), device=cpu, dtype=torch.float64).answers
    assert exact is not None
    asked = Questions(SEED, tokens, exact.ids)
    here = run(copy, asked, device=cpu).answers
    there = run(copy, asked, device=device).answers
    assert here is not None
    assert there is not None
    return _worst(distances(exact, here)), _worst(distances(here, there))


def _worst(found: Distances) -> float:
    return max(*found.worst.values(), *found.layers)


def print_shapes(work: Path, names: Sequence[str], device: torch.device, memory: int) -> None:
    """Print time and memory of checkpoints of published sizes, each in its own process."""
    if not names:
        return
    print(f"| shape, {device} | GB | s | GB/s | peak MiB | on the device | read twice |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        folder = work / f"shape-{name}"
        make_sparse(folder, name)
        command = [sys.executable, "-m", "inference_check.selftest", "--one", str(folder)]
        command += ["--device", str(device), "--memory", str(memory)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        found = json.loads(done.stdout)
        rate = found["bytes"] / found["seconds"] / 1e9
        print(
            f"| {name} | {found['bytes'] / 1e9:.2f} | {found['seconds']:.1f} | {rate:.2f} | "
            f"{found['peak'] >> 20} | {found['device_peak'] >> 20} | {found['twice']:.2%} |",
            flush=True,
        )
    print()


def measure(folder: Path, device: torch.device, memory: int) -> dict[str, Any]:
    """Run one checkpoint, hashing its leaves; return bytes, seconds and peaks."""
    copy = open_copy(folder)
    tokens = tuple(token_ids(SEED, POSITIONS, copy.config.vocab or 0))
    digests = LeafDigests("blake3" if blake3_available() else "sha256")
    started = time.perf_counter()
    found = run(copy, Questions(SEED, tokens), device=device, memory=memory, digests=digests)
    on_device = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return {
        "bytes": found.bytes_read,
        "seconds": time.perf_counter() - started,
        "peak": peak_bytes(),
        "device_peak": on_device,
        "twice": found.plan["bytes_read_twice"] / found.bytes_read,
    }


def peak_bytes() -> int:
    """Return the most memory that this process has held; getrusage counts its parent's too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def print_copies(device: torch.device) -> None:
    """Print how fast leaves get from slots to where they are multiplied."""
    stream = open_stream(device)
    target = torch.empty(LEAF_BYTES, dtype=torch.uint8, device=device)
    slots = stream.slots(4)
    started = time.perf_counter()
    for turn in range(COPIES):
        source = slots[turn % len(slots)].tensor[:LEAF_BYTES]
        if device.type == "cpu":  # where nothing is copied: what memory itself allows
            target.copy_(source)
        else:
            _, copied = stream.upload(source)
            stream.used()
            if turn % len(slots) == len(slots) - 1:
                copied.synchronize()
    stream.finish()
    rate = COPIES * LEAF_BYTES / (time.perf_counter() - started) / 1e9
    print(f"Copies of 4 MiB from slots to {device}: {rate:.1f} GB/s")


if __name__ == "__main__":
    sys.exit(main())
