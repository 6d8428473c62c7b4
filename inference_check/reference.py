"""The published answers of a checkpoint: made from the official weights, signed with the manifest.

    {"schema": 2, "family", "layers", "width", "vocab", "seed", "tokens": […],
     "logsumexp", "std", "ids", "logits", "sketch", "activations",    base64, little-endian
     "probes": {"names": […], "signatures"},                          likewise
     "eps64": …, "layers_eps64": […]}

The answers are those of fp64. ``eps64`` is how far fp32 is from them on this very model, measured
when the reference is made: what another machine, layout or order of sums may differ by grows with
it, and so do the thresholds (compare.py). ``signatures`` [tensors, 5] are four probes of each
tensor and its Frobenius norm (probes.py); schema 1, which is still read, has none. Gemma's √D is
not rounded to the stored type. Some tens of kilobytes.
"""

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verifier import strict_json
from verifier.errors import ManifestError

from .answers import GROUP, LAYER_SKETCH, SKETCH, Answers
from .compare import SIGNED, distances
from .config import LONGEST, MAX_LAYERS, MAX_VOCAB, MAX_WIDTH
from .copies import Copy
from .errors import NotRun
from .probes import PROBES, in_model_order
from .run import LEADING, Questions, Report, run
from .signs import token_ids

SCHEMA = 2
READABLE = (1, 2)
MAX_BYTES = 16 << 20
MAX_SEED = 256
MAX_TENSORS, MAX_NAME = 20_000, 256
DEFAULT_SEED = "weighbridge reference 1"


@dataclass(frozen=True, slots=True)
class Reference:
    """A published reference, its lengths checked against each other."""

    layers: int
    width: int
    vocab: int
    seed: str
    tokens: tuple[int, ...]
    answers: Answers
    eps64: float
    layers_eps64: tuple[float, ...]
    signatures: dict[str, Tensor] = field(default_factory=dict)

    def questions(self, positions: int) -> Questions:
        """Return what to ask a copy about the first ``positions`` positions."""
        return Questions(
            self.seed,
            self.tokens[:positions],
            self.answers.ids[:positions],
            probed=bool(self.signatures),
        )


def make_reference(
    copy: Copy, positions: int, seed: str, report: Report, known: Reference | None = None
) -> dict[str, Any]:
    """Run the official weights in fp64 and in fp32 and return the content of reference.json.

    ``known`` is another reference of the same weights: its errors of fp32 serve, in one pass less.

    Raises:
        NotRun: ``known`` is of other weights, so that these are not the official ones.
        NotFinite: the weights give NaN or Infinity.
        ReadError: a file cannot be read.
    """
    config = copy.config
    vocab = config.vocab or 0
    tokens = tuple(token_ids(seed, positions, vocab))
    cpu = torch.device("cpu")

    if known is not None and (known.layers, known.width) != (config.layers, config.width):
        raise NotRun("the published reference is of another model")

    def first_half(done: int, total: int) -> None:
        report(done, total if known is not None else 2 * total)

    def second_half(done: int, total: int) -> None:
        report(total + done, 2 * total)

    asked = Questions(seed, tokens, measured=True)
    exact_run = run(copy, asked, device=cpu, dtype=torch.float64, report=first_half)
    exact = exact_run.answers
    assert exact is not None
    if known is not None:
        _check_norms(known, exact_run.norms)
    if known is not None:
        eps64, layers_eps64 = known.eps64, list(known.layers_eps64)
    else:
        asked = Questions(seed, tokens, exact.ids, probed=False)
        single = run(copy, asked, device=cpu, dtype=torch.float32, report=second_half).answers
        assert single is not None
        found = distances(exact, single)
        eps64, layers_eps64 = max(found.worst.values()), found.layers
    return {
        "schema": SCHEMA,
        "family": config.model_type,
        "layers": config.layers,
        "width": config.width,
        "vocab": vocab,
        "seed": seed,
        "tokens": list(tokens),
        "logsumexp": _pack(exact.logsumexp),
        "std": _pack(exact.std),
        "ids": _pack(exact.ids),
        "logits": _pack(exact.logits),
        "sketch": _pack(exact.sketch),
        "activations": _pack(exact.layers),
        "probes": _pack_probes(exact_run.signatures, exact_run.norms),
        "eps64": eps64,
        "layers_eps64": layers_eps64,
    }


def _check_norms(known: Reference, norms: Mapping[str, float]) -> None:
    """Compare the norms of the tensors with the signed ones: a damaged store must judge nobody."""
    for name, row in known.signatures.items():
        if not abs(norms.get(name, math.nan) - float(row[PROBES])) <= SIGNED * float(row[PROBES]):
            raise NotRun(f"{name} is not as it was published; look whether the store is damaged")


def load_reference(path: Path) -> Reference:
    """Read reference.json.

    Raises:
        NotRun: it cannot be read, or is not a reference that this version understands.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        content = strict_json.loads(data, "the reference", max_bytes=MAX_BYTES)
    except OSError as error:
        raise NotRun(f"the reference cannot be read: {error.strerror}") from None
    except ManifestError as error:
        raise NotRun(str(error).removesuffix(".")) from None
    try:
        return _understand(content)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise NotRun("the reference is not one that this version understands") from None


def as_text(reference: Mapping[str, Any]) -> str:
    """Return reference.json, the same text for the same content."""
    return json.dumps(reference, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _understand(content: Mapping[str, Any]) -> Reference:
    tokens, seed = content["tokens"], content["seed"]
    layers = _between(content["layers"], 1, MAX_LAYERS)
    vocab = _between(content["vocab"], 1, MAX_VOCAB)
    seq = _between(len(tokens), GROUP, LONGEST)
    leading = min(LEADING, vocab)
    if content["schema"] not in READABLE or not isinstance(seed, str) or len(seed) > MAX_SEED:
        raise ValueError("schema or seed")
    ids = _unpack(content["ids"], "<i4", seq, leading).long()
    for token in (*tokens, int(ids.min()), int(ids.max())):
        _between(token, 0, vocab - 1)
    answers = Answers(
        vocab=vocab,
        logsumexp=_unpack(content["logsumexp"], "<f4", seq),
        std=_unpack(content["std"], "<f4", seq),
        ids=ids,
        logits=_unpack(content["logits"], "<f4", seq, leading),
        best=ids[:, 0],
        sketch=_unpack(content["sketch"], "<f4", seq, SKETCH),
        layers=_unpack(content["activations"], "<f4", layers + 1, seq // GROUP, LAYER_SKETCH + 1),
    )
    eps = [float(e) for e in (content["eps64"], *content["layers_eps64"])]
    if len(eps) != layers + 2 or not all(0 <= e < math.inf for e in eps):
        raise ValueError("eps64")
    return Reference(
        layers=layers,
        width=_between(content["width"], 1, MAX_WIDTH),
        vocab=vocab,
        seed=seed,
        tokens=tuple(tokens),
        answers=answers,
        eps64=eps[0],
        layers_eps64=tuple(eps[1:]),
        signatures=_unpack_probes(content["probes"]) if content["schema"] > 1 else {},
    )


def _between(value: object, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError("out of bounds")
    return value


def _pack_probes(signatures: Mapping[str, Tensor], norms: Mapping[str, float]) -> dict[str, Any]:
    names = sorted(signatures, key=in_model_order)
    rows = [torch.cat((signatures[n], torch.tensor([norms[n]]).double())) for n in names]
    return {"names": names, "signatures": _pack(torch.stack(rows))}


def _unpack_probes(content: Mapping[str, Any]) -> dict[str, Tensor]:
    names = content["names"]
    count = _between(len(names), 1, MAX_TENSORS)
    if not all(isinstance(name, str) and len(name) <= MAX_NAME for name in names):
        raise ValueError("names")
    values = _unpack(content["signatures"], "<f4", count, PROBES + 1)
    if bool((values[:, PROBES] < 0).any()):
        raise ValueError("norms")
    return dict(zip(names, values, strict=True))


def _pack(values: Tensor) -> str:
    kind = "<f4" if values.dtype.is_floating_point else "<i4"
    return base64.b64encode(values.numpy().astype(kind).tobytes()).decode()


def _unpack(text: str, kind: str, *shape: int) -> Tensor:
    values = np.frombuffer(base64.b64decode(text, validate=True), kind).reshape(shape)
    found = torch.from_numpy(values.astype("f8" if kind == "<f4" else "i8"))
    if not bool(torch.isfinite(found).all()):
        raise ValueError("not finite")
    return found
