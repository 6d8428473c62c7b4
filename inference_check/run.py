"""Run a copy on fixed token ids: one pass over its weights, layer by layer, on CPU or CUDA."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.blocks import BLOCK, Files
from verifier.layouts import EMBEDDING, HEAD

from .answers import Answers, Head, LayerWatch
from .copies import Copy
from .errors import NotFinite, NotRun, WrongModel
from .model import hidden_states
from .weights import BLOCK_ENTRIES, Weights

LEADING = 64
IMPORTED = 230 << 20
"""Bytes that a process with torch holds before it has read anything, measured."""

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Questions:
    """Fixed token ids, the seed of the sketches, and the ids [T, k] whose logits are asked for."""

    seed: str
    tokens: tuple[int, ...]
    asked: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """The answers of one run, and how many bytes of weights it read."""

    answers: Answers
    bytes_read: int


def choose_device(name: str) -> torch.device:
    """Return the device called ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        NotRun: it is not here.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?", name):
        raise NotRun(f"there is no device called {name[:40]!r}")
    present = torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not present):
        return torch.device("cpu")
    if not present:
        raise NotRun("CUDA was asked for and is not available here")
    device = torch.device("cuda" if name == "auto" else name)
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise NotRun(f"there is no device {name}")
    return device


def exact_arithmetic() -> None:
    """Turn off every shortcut that would make fp32 less than fp32: TF32, reduced sums."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False


def memory_needed(copy: Copy, positions: int) -> int:
    """Return the peak of the whole process on the CPU, bytes, from the plan alone."""
    c = copy.config
    hidden, vocab = c.hidden or 0, c.vocab or 0
    attention = (c.heads + 2 * c.kv_heads) * c.head_width
    activations = 8 * positions * (6 * c.width + 3 * hidden + 3 * attention)
    scores = 3 * 8 * c.heads * positions**2
    # Stored, widened and transposed blocks; logits of a slice in fp64, several times.
    blocks = 4 * BLOCK + 3 * 8 * BLOCK_ENTRIES + 8 * 8 * positions * (BLOCK_ENTRIES // c.width + 1)
    return IMPORTED + activations + scores + blocks + 64 * vocab


def run(
    copy: Copy,
    questions: Questions,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    report: Report = lambda done, total: None,
) -> Run:
    """Ask ``copy`` the questions; ``report`` is told of bytes read, of how many.

    Raises:
        NotFinite: NaN or Infinity came out of a layer.
        WrongModel: the vocabulary is smaller than the questions, or copies of a vector differ.
        ReadError: a file cannot be read to its end, or changed meanwhile.
    """
    exact_arithmetic()
    config, tokens = copy.config, questions.tokens
    vocab = config.vocab or 0
    asked = questions.asked
    highest = max(max(tokens), int(asked.max()) if asked is not None else 0)
    if highest >= vocab:
        raise WrongModel(f"its vocabulary of {vocab:,} is not the published one")
    done, total = 0, copy.bytes_to_read(len(tokens))

    def tick(count: int) -> None:
        nonlocal done
        done += count
        report(done, total)

    with Files(copy.root, copy.paths) as files:
        weights = Weights(copy.tensors, files, device=device, dtype=dtype, tick=tick)
        watch = LayerWatch(questions.seed)
        hidden = hidden_states(config, weights, tokens, watch)
        head = Head(questions.seed, len(tokens), vocab, asked)
        leading = min(LEADING, vocab)
        with torch.no_grad():
            for first, logits in weights.row_products(hidden, EMBEDDING if config.tied else HEAD):
                head.take(first, logits, leading)
        if not head.finite:
            raise NotFinite("the output head")
    return Run(head.answers(watch.found), done)


def check_memory(copy: Copy, positions: int, allowed: int) -> None:
    """Raise NotRun if the plan needs more than ``allowed`` bytes."""
    needed = memory_needed(copy, positions)
    if needed > allowed:
        raise NotRun(
            f"it needs about {needed >> 20:,} MiB, and --memory allows {allowed >> 20:,} MiB"
        )
