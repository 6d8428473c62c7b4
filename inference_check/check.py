"""The check itself: open a copy, ask it what the reference asks, judge, and say so as data."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from verifier.errors import ReadError

from . import compare
from .answers import GROUP
from .copies import Copy, open_copy
from .errors import NotFinite, NotRun, WrongModel
from .leaves import LeafDigests
from .reference import Reference, load_reference
from .run import Run, choose_device, run

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How a copy is run. ``memory`` is the peak of the whole process, bytes, None for any.

    ``stand_in`` is a folder whose config serves where the copy has none; ``rung`` is what the
    weights check named (``cast:bf16-rne``, ``quantized:Q4_0``), else None. ``digest`` is the kind
    of the leaves that are hashed on the way, None for none; ``leaves_out`` a file to write them to.
    """

    device: str = "auto"
    positions: int = 32
    memory: int | None = None
    stand_in: Path | None = None
    rung: str | None = None
    digest: str | None = None
    leaves_out: Path | None = None


@dataclass(slots=True)
class Check:
    """The outcome: the ``inference`` object of a report."""

    status: str = "not-run"
    reason: str = ""
    device: str | None = None
    dtype: str = "float32"
    positions: int = 0
    statistics: dict[str, Any] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    per_position: list[float | None] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    first_layer: str | None = None
    first_tensor: str | None = None
    tensors: list[dict[str, Any]] = field(default_factory=list)
    eps64: float | None = None
    plan: dict[str, Any] = field(default_factory=dict)
    leaves: dict[str, Any] = field(default_factory=dict)
    prompts: dict[str, Any] = field(default_factory=dict)
    bytes_read: int = 0
    seconds: float = 0.0


def check(path: Path, reference: Path, options: Options, progress: Progress) -> Check:
    """Run the copy in ``path`` against the reference file; every outcome is a ``Check``."""
    started = time.monotonic()
    outcome = Check()
    try:
        _check(path, reference, options, progress, outcome)
    except NotFinite as error:
        outcome.status, outcome.reason, outcome.first_layer = "disagrees", str(error), error.place
        if outcome.first_tensor is not None:
            outcome.reason += f", and lie in {outcome.first_tensor}"
    except WrongModel as error:
        outcome.status, outcome.reason = "disagrees", str(error)
    except (NotRun, ReadError) as error:
        outcome.status, outcome.reason = "not-run", str(error)
    except (MemoryError, RuntimeError) as error:  # torch: CUDA faults, failed allocations
        outcome.status, outcome.reason = "not-run", why_it_failed(error)
    outcome.seconds = round(time.monotonic() - started, 3)
    return outcome


def why_it_failed(error: MemoryError | RuntimeError) -> str:
    """Say what torch or the system could not do; memory in words, all else in torch's."""
    text = str(error)
    short = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    if short or re.search("can't allocate memory|out of memory|can't start new thread", text):
        return "there is not enough memory for it here"
    return f"torch failed: {(text.splitlines() or ['no reason was given'])[0][:200]}"


def _check(path: Path, file: Path, options: Options, progress: Progress, outcome: Check) -> None:
    reference = load_reference(file)
    positions = min(options.positions, len(reference.tokens)) // GROUP * GROUP
    if positions < GROUP:
        raise NotRun(f"at least {GROUP} positions are needed")
    device = choose_device(options.device)
    outcome.device, outcome.positions = str(device), positions
    outcome.prompts = {"seed": reference.seed, "tokens": list(reference.tokens[:positions])}
    copy = open_copy(path, options.stand_in)
    _check_size(copy, reference)
    digests = LeafDigests(options.digest) if options.digest else None
    found = Run()
    try:
        run(
            copy,
            reference.questions(positions),
            device=device,
            memory=options.memory,
            digests=digests,
            report=progress,
            found=found,
        )
    except NotFinite:
        outcome.first_tensor = compare.first_not_finite(found.signatures)
        raise
    finally:
        outcome.bytes_read, outcome.plan = found.bytes_read, found.plan
        if digests is not None and found.complete:
            _hand_over(digests, options.leaves_out, outcome)
    _judge(reference, found, options, outcome)


def _hand_over(digests: LeafDigests, file: Path | None, outcome: Check) -> None:
    """Report what was hashed, and write the leaves to ``file`` if they are wanted."""
    outcome.leaves = {"kind": digests.kind, "roots": digests.roots()}
    if file is not None:
        try:
            digests.write(file)
        except OSError as error:
            raise NotRun(f"the digests cannot be written: {error.strerror}") from None


def _judge(reference: Reference, ran: Run, options: Options, outcome: Check) -> None:
    assert ran.answers is not None
    published = compare.first_positions(reference.answers, outcome.positions)
    found = replace(
        compare.distances(published, ran.answers),
        signatures=compare.signature_distances(reference.signatures, ran.signatures),
    )
    fill_in(outcome, reference, found, options.rung)


def fill_in(
    outcome: Check, reference: Reference, found: compare.Distances, rung: str | None
) -> None:
    """Judge distances, and write down what they are and what they mean."""
    judged = compare.judge(reference, found, rung)
    outcome.status, outcome.reason, outcome.eps64 = judged.status, judged.reason, reference.eps64
    outcome.first_layer, outcome.first_tensor = judged.first_layer, judged.first_tensor
    outcome.statistics = compare.statistics(found)
    outcome.thresholds = dict.fromkeys(found.worst, judged.threshold)
    if found.signatures:
        outcome.thresholds["signatures"] = compare.SIGNED
    outcome.per_position = [compare.finite_or_none(value) for value in found.positions]
    outcome.layers = compare.layer_rows(found, judged.layer_thresholds)
    outcome.tensors = compare.signature_rows(found)


def _check_size(copy: Copy, reference: Reference) -> None:
    for what, own, published in (
        ("layers", copy.config.layers, reference.layers),
        ("channels", copy.config.width, reference.width),
        ("tokens in its vocabulary", copy.config.vocab, reference.vocab),
    ):
        if own != published:
            raise WrongModel(f"it has {own} {what}, and the published model has {published}")
