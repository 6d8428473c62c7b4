"""Run a copy on fixed token ids: one pass over its files, layer by layer, on CPU or CUDA."""

import ctypes
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from verifier.digests import LEAF_BYTES
from verifier.layouts import EMBEDDING, HEAD

from .answers import Answers, Head, LayerWatch
from .copies import Copy
from .engine import HEAD_ROWS, Engine
from .errors import NotFinite, NotRun, WrongModel
from .files import PassFiles
from .leaves import LeafDigests
from .model import groups, hidden_states, softcap
from .plan import Plan
from .probes import PROBES, Probes, make_probes
from .stream import SLACK, Stream, open_stream

LEADING = 64
IMPORTED = 240 << 20
"""Bytes that a process with torch and its thread pools holds without us, measured."""
FEWEST_SLOTS = 3
SPARE_SLOTS = 4
"""Slots besides those that the readers are filling: one is multiplied, the others wait for it."""
GENEROUS = 128 << 20
"""Bytes of edges that are kept where nobody bounded the memory."""

KEPT_SHARE = 11
"""Of the memory, one part in so many may hold edges: enough for one layer in eight files, and a
model of more layers holds no more."""
_M_MMAP_THRESHOLD = -3  # malloc.h

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Questions:
    """Fixed token ids, the seed of the sketches, and the ids [T, k] whose logits are asked for.

    ``probed``: whether the matrices are to be signed; ``measured``: their norms too.
    """

    seed: str
    tokens: tuple[int, ...]
    asked: Tensor | None = None
    probed: bool = True
    measured: bool = False


@dataclass(slots=True)
class Run:
    """What a run found; filled in as it goes, so that an error leaves what was known.

    ``complete``: every leaf of the plan was read, and no file changed meanwhile.
    """

    answers: Answers | None = None
    signatures: dict[str, Tensor] = field(default_factory=dict)
    norms: dict[str, float] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    bytes_read: int = 0
    complete: bool = False


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


def give_memory_back() -> None:
    """Have malloc return what is freed: all that is larger than a few pages gets its own mapping.

    Sums of changing sizes would otherwise leave holes in the heap, two hundred megabytes of them
    in 80 layers. Where malloc is not glibc's, nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 10)


@dataclass(frozen=True, slots=True)
class Budget:
    """How ``memory`` is spent: slots of the ring, and bytes of edges that may be kept."""

    slots: int
    keep_bytes: int


def budget(
    copy: Copy, questions: Questions, device: torch.device, dtype: torch.dtype, memory: int | None
) -> Budget:
    """Divide ``memory``, the peak of the whole process in bytes (None: as much as helps).

    On CUDA, whose own context is larger than all of this, it bounds what the check takes itself.

    Raises:
        NotRun: it is too small.
    """
    wanted = threads(device)[0] + SPARE_SLOTS
    if memory is None:
        return Budget(wanted, GENEROUS)
    needed = working_bytes(copy, questions, device, dtype)
    needed += IMPORTED if device.type == "cpu" else 0
    left = memory - needed
    slots = min(wanted, left // (LEAF_BYTES + SLACK))
    if slots < FEWEST_SLOTS:
        least = needed + FEWEST_SLOTS * (LEAF_BYTES + SLACK)
        raise NotRun(
            f"it needs about {least >> 20:,} MiB, and --memory allows {memory >> 20:,} MiB"
        )
    return Budget(slots, min(left - slots * (LEAF_BYTES + SLACK), memory // KEPT_SHARE))


def working_bytes(
    copy: Copy, questions: Questions, device: torch.device, dtype: torch.dtype
) -> int:
    """Return what a run holds besides torch, ring and edges, bytes, from headers and config."""
    c, item = copy.config, dtype.itemsize
    hidden, vocab = c.hidden or 0, c.vocab or 0
    seq, tensors = len(questions.tokens), copy.tensors.values()
    attention = (c.heads + 2 * c.kv_heads) * c.head_width
    # The residual stream and its norms; sums and what is made of them, where they are widest.
    activations = item * seq * (4 * c.width + max(5 * hidden, 4 * attention))
    scores = 3 * item * c.heads * seq**2
    blocks = item * max(1 << 18, hidden, c.width)
    vectors = [tensor for tensor in tensors if len(tensor.shape) == 1]
    small = sum(t.stored_bytes + item * t.shape[0] for t in vectors)
    small += 2 * seq * copy.tensors[EMBEDDING].stored_bytes // max(vocab, 1)
    # Logits of a slice in fp64, several times; packed signs; the probes' vectors.
    head = 8 * 8 * seq * min(HEAD_ROWS, vocab) + 2 * vocab
    if questions.probed:
        head += 2 * PROBES * item * (vocab + 2 * hidden)
    if any(tensor.block for tensor in tensors):
        blocks += 8 * 4 * max(1 << 18, hidden, c.width)  # levels, scales and sums of a decoder
    leaves = 48 * sum(copy.files.values()) // LEAF_BYTES
    headers = 2048 * sum(len(tensor.parts) + len(tensor.copies) for tensor in tensors)
    return activations + scores + blocks + small + head + leaves + headers


def make_plan(copy: Copy, questions: Questions, keep_bytes: int, *, hash_all: bool) -> Plan:
    """Return the order in which ``copy`` is read."""
    order = groups(copy.config)
    if questions.probed and not copy.config.tied:
        order.append((EMBEDDING,))  # no logit depends on most of it; its signature does
    used = copy.paths
    sizes = {p: size for p, size in copy.files.items() if hash_all or p in used}
    return Plan(sizes, copy.tensors, order, keep_bytes, hash_all)


def threads(device: torch.device) -> tuple[int, int]:
    """Return how many threads read and hash, and how many multiply."""
    cores = min(len(os.sched_getaffinity(0)), 32)
    if device.type == "cuda":
        return min(8, max(2, cores - 1)), 1
    readers = 2 if cores < 8 else 4
    return readers, max(1, min(8, cores - readers))


def run(
    copy: Copy,
    questions: Questions,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    memory: int | None = None,
    digests: LeafDigests | None = None,
    report: Report = lambda done, total: None,
    found: Run | None = None,
    stream: Stream | None = None,
) -> Run:
    """Ask ``copy`` the questions; ``report`` is told of bytes read, of how many.

    With ``digests`` every leaf of every weight file is hashed on the way, also where the model
    turns out to be wrong in the middle. ``found`` is filled in as the run goes.

    Raises:
        NotFinite: NaN or Infinity came out of a layer.
        WrongModel: the vocabulary is smaller than the questions, or copies of a vector differ.
        NotRun: the memory does not suffice.
        ReadError: a file cannot be read to its end, or changed meanwhile.
    """
    exact_arithmetic()
    give_memory_back()
    found = Run() if found is None else found
    asked = questions.asked
    highest = max(max(questions.tokens), int(asked.max()) if asked is not None else 0)
    if highest >= (copy.config.vocab or 0):
        raise WrongModel(f"its vocabulary of {copy.config.vocab:,} is not the published one")
    room = budget(copy, questions, device, dtype, memory)
    plan = make_plan(copy, questions, room.keep_bytes, hash_all=digests is not None)
    totals = plan.totals()
    counter = _Counter(found, totals.bytes_read, report)
    readers, multipliers = threads(device)
    torch.set_num_threads(multipliers)
    with PassFiles(copy.root, plan.sizes, copy.tensors, digests, counter.add) as files:
        engine = Engine(
            copy,
            plan,
            files,
            stream or open_stream(device),
            questions.tokens,
            dtype=dtype,
            slots=room.slots,
            edge_bytes=totals.most_kept,
            readers=readers,
            probes=_probes(copy, questions, dtype, device),
            squares=questions.measured,
        )
        found.signatures, found.norms = engine.signatures, engine.norms
        with engine, torch.no_grad():
            found.plan = {
                "slots": room.slots,
                "kept": totals.most_kept,
                "bytes_read": totals.bytes_read + files.small_bytes,
                "bytes_read_twice": totals.bytes_read_again + files.small_bytes,
            }
            try:
                found.answers = _ask(copy, engine, questions)
            except Exception:
                if digests is not None:  # they count whatever the model makes of the weights
                    _complete(engine, found)
                raise
            _complete(engine, found)
    return found


def _complete(engine: Engine, found: Run) -> None:
    engine.drain()
    engine.files.check_unchanged()
    found.complete = True


def _ask(copy: Copy, engine: Engine, questions: Questions) -> Answers:
    """Run the model on the tokens and gather its answers."""
    config, vocab = copy.config, copy.config.vocab or 0
    watch = LayerWatch(questions.seed)
    hidden = hidden_states(config, engine, watch)
    head = Head(questions.seed, len(questions.tokens), vocab, questions.asked)
    leading = min(LEADING, vocab)
    for first, logits in engine.row_products(hidden, EMBEDDING if config.tied else HEAD):
        head.take(first, softcap(logits, config.logit_cap), leading)
    if questions.probed and not config.tied:
        engine.products(hidden[:0], EMBEDDING)
    if not head.finite:
        raise NotFinite("the output head")
    return head.answers(watch.found)


def _probes(
    copy: Copy, questions: Questions, dtype: torch.dtype, device: torch.device
) -> Probes | None:
    if not questions.probed:
        return None
    shapes = [tensor.shape for tensor in copy.tensors.values()]
    rows = max(shape[0] for shape in shapes if len(shape) == 2)
    columns = max(shape[-1] for shape in shapes)
    return make_probes(questions.seed, rows, columns, dtype, device)


class _Counter:
    """Adds up bytes read by several threads, and tells of them one at a time."""

    def __init__(self, found: Run, total: int, report: Report) -> None:
        self.found, self.total, self._report = found, total, report
        self._lock = threading.Lock()

    def add(self, count: int, extra: bool) -> None:
        with self._lock:
            self.total += count if extra else 0
            self.found.bytes_read += count
            self._report(min(self.found.bytes_read, self.total), self.total)
