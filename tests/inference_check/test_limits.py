"""The inference process under real limits on its memory, as the verifier starts it."""

import os

import pytest

from verifier import inference_run
from verifier.progress import silent


def ask(official):
    folder = official / "hf"
    size = sum(file.stat().st_size for file in folder.iterdir())
    reference = (official / "reference.json").read_bytes()
    options = inference_run.InferenceOptions(device="cpu")
    return inference_run.run(folder, reference, {}, size, options, silent)


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="CUDA: memory is not bounded")
@pytest.mark.parametrize("mebibytes", [24, 120])
def test_too_little_memory_is_not_run_with_a_reason_and_the_next_agrees(
    official, monkeypatch, mebibytes
):
    with monkeypatch.context() as patched:
        planned = 2 * (350 << 20) + inference_run.DATA_PER_CORE * (os.cpu_count() or 1)
        patched.setattr(inference_run, "DATA", (mebibytes << 20) - planned)
        outcome = ask(official)
    assert outcome["status"] == "not-run" and outcome["reason"]
    assert ask(official)["status"] == "agrees"


@pytest.mark.parametrize(
    ("size", "expected"),
    [("350MiB", 350 << 20), ("2g", 2 << 30), ("100", 100), ("64kb", 64 << 10), ("1TiB", 1 << 40)],
)
def test_sizes_are_read_as_the_command_line_reads_them(size, expected):
    assert inference_run._bytes(size) == expected
