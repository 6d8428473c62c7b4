"""Are these the official values, in whatever clothes? Digests of values, made and compared.

A tensor is *exact* when its values have the published digest, *cast* when they are the official
ones rounded to another float type, *quantized* when they lie on a coarser grid within its error,
else *changed*. What that makes of the whole is judged in ``lineage``.

Importing this module does not import torch; its functions do.
"""

import importlib.util
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import layouts, lineage
from .errors import ManifestError, ReadError
from .layouts import EMBEDDING, HEAD, Arranged, LogicalTensor
from .progress import Progress
from .readers import TensorEntry, is_weight_file, read_tensors

if TYPE_CHECKING:
    from .tensor_check import TensorCheck

SCHEMA = 1
MAX_THREADS = 8
KINDS = ("exact", "bf16-rne", "bf16-trunc", "fp16-rne")
STATUSES = ("exact", "cast", "quantized", "changed", "missing", "added")


@dataclass(slots=True)
class WeightsResult:
    """The outcome of a comparison; ``verdict`` is None where no weights could be read.

    ``scheme`` names the rounding of a cast or the quantization. ``tensors`` has a dictionary per
    tensor: name, status (one of ``STATUSES``), statistics. ``changed_fraction`` is of the sampled
    entries, None without a sketch. ``evidence`` is what the verdict rests on.
    """

    verdict: str | None = None
    scheme: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    tensors: list[dict[str, Any]] = field(default_factory=list)
    changed_fraction: float | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    problems: list[ReadError] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)


def available() -> bool:
    """Tell whether torch and numpy, which the comparison needs, are installed; without importing."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "numpy"))


def describe(root: Path, files: Sequence[str], progress: Progress) -> dict[str, Any]:
    """Return the content of tensors.json: each tensor's name, type, shape, place, value digests.

    Raises:
        ReadError: a weight file cannot be read, or its tensors cannot be arranged.
    """
    from . import blocks, value_digests

    entries, problems = _read(root, files)
    sets, unarranged = layouts.arrange(root, entries)
    if problems or unarranged:
        raise (problems + unarranged)[0]
    named = layouts.published_names(sets)
    total, done = sum(tensor.stored_bytes for tensor in named.values()), 0
    rows = []
    with (
        blocks.Files(root, {entry.path for entry in entries}) as opened,
        ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_THREADS)) as pool,
    ):

        def digest(item: tuple[str, LogicalTensor]) -> dict[str, Any]:
            name, tensor = item
            stream = blocks.stream(opened, tensor)
            found = value_digests.digest_values(name, tensor.shape, KINDS, stream)
            return _row(name, tensor, found.digests)

        try:
            for tensor, row in zip(named.values(), pool.map(digest, named.items()), strict=True):
                rows.append(row)
                done += tensor.stored_bytes
                progress("weights", done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        for row in rows:
            tied = _tied_to(row["name"], named, rows, opened)
            if tied:
                row["tied_to"] = tied
    widths = {layouts.head_width_of(root, found.folder, entries) for found in sets}
    return {
        "schema": SCHEMA,
        "head_width": widths.pop() if len(widths) == 1 else None,
        "tensors": rows,
    }


def compare(
    root: Path,
    files: Sequence[str],
    tensors: Mapping[str, Any],
    sketch: Mapping[str, Any] | None,
    progress: Progress,
) -> WeightsResult:
    """Compare the tensors in ``files`` with the published ``tensors``, and judge.

    Unreadable files are ``problems`` of the result, not errors.

    Raises:
        ManifestError: tensors.json is not what this version can read.
    """
    official, head_width = _published(tensors)
    result = WeightsResult()
    entries, result.problems = _read(root, files)
    sets, unarranged = layouts.arrange(root, entries, head_width)
    result.problems += unarranged
    from .tensor_check import TensorCheck

    check = TensorCheck(root, official, sketch)
    name_of = _Names(sets, official)
    pairs = [
        (name_of(tensor), tensor)
        for found in sets
        for tensor in _unpacked(root, found, result.problems)
    ]
    total, done = sum(tensor.stored_bytes for _, tensor in pairs), 0
    for name, tensor in pairs:
        try:
            result.tensors.append(check.look_at(name, tensor))
        except ReadError as error:
            result.problems.append(error)
        done += tensor.stored_bytes
        progress("weights", done, total)
    if not result.tensors:
        return result
    if sketch is not None:
        _match_renamed(result, check, pairs, sketch)
    _account(result, official)
    result.changed_fraction = check.changed_fraction if sketch is not None else None
    judged = lineage.judge(result.tensors, with_sketch=sketch is not None)
    result.verdict, result.scheme = judged.verdict, judged.scheme
    result.evidence = judged.evidence
    return result


def _read(root: Path, files: Iterable[str]) -> tuple[list[TensorEntry], list[ReadError]]:
    """Read the headers of all weight files; the unreadable ones are returned, not raised."""
    entries: list[TensorEntry] = []
    problems: list[ReadError] = []
    for path in files:
        if not is_weight_file(path):
            continue
        try:
            entries += read_tensors(root, path)
        except ReadError as error:
            problems.append(error)
    return entries, problems


def _unpacked(root: Path, found: Arranged, problems: list[ReadError]) -> Sequence[LogicalTensor]:
    """Return the tensors of a set, those of packed matrices joined to one each."""
    from . import packed

    try:
        return packed.join(root, found.tensors)
    except ReadError as error:
        problems.append(error)
        return found.tensors


def _tied_to(
    name: str, named: Mapping[str, LogicalTensor], rows: Sequence[Mapping[str, Any]], files: Any
) -> str | None:
    """Return the name of the embedding whose values an output head repeats, if it does."""
    from . import blocks, value_digests

    embedding = name.removesuffix(HEAD) + EMBEDDING
    if not name.endswith(HEAD) or embedding not in named:
        return None
    head = named[name]
    as_embedding = value_digests.digest_values(
        embedding, head.shape, ("exact",), blocks.stream(files, head)
    )
    official = next(row for row in rows if row["name"] == embedding)
    same = as_embedding.digests["exact"] == official["values"]["exact"]
    return embedding if same else None


def _row(name: str, tensor: LogicalTensor, digests: Mapping[str, str]) -> dict[str, Any]:
    place = [
        {"file": part.entry.path, "start": part.entry.start, "end": part.entry.end}
        for part in tensor.parts
    ]
    return {
        "name": name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "place": place,
        "values": dict(digests),
    }


def _published(tensors: Mapping[str, Any]) -> tuple[dict[str, Mapping[str, Any]], int | None]:
    """Return the rows of tensors.json by name, and the width of a head.

    Raises:
        ManifestError: it has another schema, or a row without what is compared.
    """
    rows = tensors.get("tensors")
    if tensors.get("schema") != SCHEMA or not isinstance(rows, list):
        raise ManifestError("tensors.json has a form that this version cannot read; upgrade.")
    official: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        match row:
            case {"name": str(name), "shape": list(), "values": {"exact": str()}}:
                official[name] = row
            case _:
                raise ManifestError("tensors.json has a row without name, shape or value digests.")
    width = tensors.get("head_width")
    good = type(width) is int and 0 < width <= 1 << 16 and width % 2 == 0
    return official, width if good else None


class _Names:
    """The published name that a tensor of the copy answers to.

    A release of several models publishes names with their folder; a copy in one folder may still
    be one of them, told by the shape.
    """

    def __init__(self, sets: Sequence[Arranged], official: Mapping[str, Any]) -> None:
        self.official = official
        self.several = len({found.folder for found in sets}) > 1
        self.longer: dict[str, list[str]] = {}
        for name in sorted(official):
            for place in (found.end() for found in re.finditer("/", name)):
                self.longer.setdefault(name[place:], []).append(name)

    def __call__(self, tensor: LogicalTensor) -> str:
        own = f"{tensor.folder}/{tensor.name}" if tensor.folder else tensor.name
        if own in self.official:
            return own
        if tensor.name in self.official and not self.several:
            return tensor.name
        for name in self.longer.get(tensor.name, ()):
            if self.official[name]["shape"] == list(tensor.shape):
                return name
        return own if self.several else tensor.name


def _match_renamed(
    result: WeightsResult,
    check: "TensorCheck",
    pairs: Sequence[tuple[str, LogicalTensor]],
    sketch: Mapping[str, Any],
) -> None:
    """Look again at tensors that are nothing like the official one of their name, by another's."""
    from . import matching

    alike = {row["name"] for row in result.tensors if lineage.is_alike(row)}
    pool = [(name, tensor) for name, tensor in pairs if name not in alike]
    free = [name for name in check.official if name not in alike]
    if not pool or not free:
        return
    try:
        found = matching.match(
            check.root, [tensor for _, tensor in pool], free, check.official, sketch
        )
        rows = {row["name"]: row for row in result.tensors}
        again = {name for index, name in found.items() if pool[index][0] != name}
        for index, name in found.items():
            if name in again:
                rows.pop(pool[index][0], None)
        for index, name in found.items():
            if name in again:
                own = pool[index][1].name
                rows[name] = check.look_at(name, pool[index][1]) | {"stored_as": own}
        result.tensors = list(rows.values())
    except ReadError as error:
        result.problems.append(error)


def _account(result: WeightsResult, official: Mapping[str, Mapping[str, Any]]) -> None:
    """Add rows for missing tensors, settle tied heads, and count."""
    seen = {row["name"]: row for row in result.tensors}
    for name, row in official.items():
        if name not in seen and not _is_tied(name, row, official, seen):
            result.missing.append(name)
            result.tensors.append({"name": name, "status": "missing", "statistics": {}})
    result.added = [row["name"] for row in result.tensors if row["status"] == "added"]
    result.counts = dict.fromkeys(STATUSES, 0)
    for row in result.tensors:
        result.counts[row["status"]] += 1


def _is_tied(
    name: str,
    row: Mapping[str, Any],
    official: Mapping[str, Mapping[str, Any]],
    seen: Mapping[str, Mapping[str, Any]],
) -> bool:
    """Tell whether an absent head equals an embedding that is there and right."""
    if not name.endswith(HEAD):
        return False
    embedding = name.removesuffix(HEAD) + EMBEDDING
    there = seen.get(embedding, {}).get("status") in lineage.RUNGS
    return there and row.get("tied_to") == embedding and embedding in official
