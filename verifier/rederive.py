"""Re-derive a quantized copy from the official weights that somebody holds.

The official tensors are quantized again with the recipe that the copy names, by its metadata and
the type of each tensor. Where every block comes out as the copy has it, the copy is proven to be
made of these weights and nothing else. A few blocks that do not fit are found wherever they lie.

Rows are read, quantized and compared a few megabytes at a time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import lcm
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import blocks, layouts, recipes
from .block_tally import DIFFERS, REDERIVED, WITHIN, BlockTally
from .errors import ReadError
from .layouts import EMBEDDING, HEAD, Arranged, LogicalTensor
from .progress import Progress
from .readers import ITEM_BYTES, TensorEntry, is_weight_file, read_gguf_metadata, read_tensors

MISSING, UNDETERMINED = "missing", "undetermined"
STEP = 1 << 20
"""Entries that are compared at once."""

FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    21: "Q2_K_S",
    32: "BF16",
}
"""Names of `general.file_type` (llama.h, llama_ftype)."""

_SCALES = ("SCB", "weight_scale", "weight_scales", "scales", "scale")
"""Endings of the names that the scales of int8 rows have beside their matrix."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """A tensor of the copy and the official one; ``scale`` where rows of int8 have one."""

    tensor: LogicalTensor
    official: LogicalTensor
    scale: TensorEntry | None = None

    @property
    def block(self) -> tuple[int, int]:
        """Entries and bytes of what is compared as one: a block, a row of int8, or an entry."""
        if self.scale is not None:
            return self.tensor.shape[1], self.tensor.shape[1]
        return self.tensor.block or (1, ITEM_BYTES[self.tensor.dtype])


def rederive(
    root: Path,
    files: Iterable[str],
    official_root: Path,
    official_files: Iterable[str],
    tensors: Mapping[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """Hold the quantized tensors of a copy to the official ones; ``tensors`` is tensors.json.

    The official files must have been checked. Returns `weights.rederived` of the report: `status`,
    `scheme`, `reason`, and a row for each tensor.
    """
    width = tensors.get("head_width")
    width = width if type(width) is int else None
    official = _official(official_root, official_files, width)
    rows: list[dict[str, Any]] = []
    schemes: set[str] = set()
    sets, problems = _sets(root, files, width)
    for found in sets:
        scales = _int8_scales(found)
        if not scales and not any(tensor.block for tensor in found.tensors):
            continue
        schemes.add(_scheme(root, found))
        rows += _rederive_set(root, official_root, found, official, scales, progress)
        rows += _missing(found, official, tensors)
    if not rows:
        reason = str(problems[0]) if problems else "nothing in the copy is quantized"
        return {"status": "not-run", "scheme": None, "reason": reason, "tensors": []}
    scheme = schemes.pop() if len(schemes) == 1 else "mixed"
    return {
        "status": _worst(rows),
        "scheme": scheme,
        "reason": _reason(rows, scheme),
        "tensors": rows,
    }


def _sets(
    root: Path, files: Iterable[str], width: int | None
) -> tuple[list[Arranged], list[ReadError]]:
    entries: list[TensorEntry] = []
    problems: list[ReadError] = []
    for path in sorted(filter(is_weight_file, files)):
        try:
            entries += read_tensors(root, path)
        except ReadError as error:
            problems.append(error)
    sets, unarranged = layouts.arrange(root, entries, width)
    return sets, problems + unarranged


def _official(root: Path, files: Iterable[str], width: int | None) -> dict[str, LogicalTensor]:
    """Return the official tensors by name; one that lies in two containers is read from the first.

    Raises:
        ReadError: they cannot be read.
    """
    sets, problems = _sets(root, files, width)
    if not sets and problems:
        raise problems[0]
    named: dict[str, LogicalTensor] = {}
    for found in sets:
        for tensor in found.tensors:
            named.setdefault(tensor.name, tensor)
    return named


def _int8_scales(found: Arranged) -> dict[str, TensorEntry]:
    """Return the scales of matrices of int8 rows, by the name of the matrix."""
    by_name = {tensor.name: tensor for tensor in found.tensors}
    scales: dict[str, TensorEntry] = {}
    for name, tensor in by_name.items():
        if tensor.dtype != "I8" or len(tensor.shape) != 2 or len(tensor.parts) != 1:
            continue
        base = name.removesuffix(".weight")
        for stem in (base, base.removeprefix("model.")):
            for ending in _SCALES:
                scale = by_name.get(f"{stem}.{ending}")
                if scale is None or scale.dtype not in ("F32", "F16", "BF16"):
                    continue
                if scale.parts[0].entry.count == tensor.shape[0]:
                    scales.setdefault(name, scale.parts[0].entry)
    return scales


def _scheme(root: Path, found: Arranged) -> str:
    """Name the recipe by the metadata, or by the types of the tensors."""
    for path in found.files if found.layout == "gguf" else ():
        kind = read_gguf_metadata(root, path).get("general.file_type")
        if kind in FILE_TYPES:
            return FILE_TYPES[kind]
    types = sorted({tensor.dtype for tensor in found.tensors if tensor.block})
    return types[0] if len(types) == 1 else "mixed" if types else "int8 per row"


def _rederive_set(
    root: Path,
    official_root: Path,
    found: Arranged,
    official: Mapping[str, LogicalTensor],
    scales: Mapping[str, TensorEntry],
    progress: Progress,
) -> Iterator[dict[str, Any]]:
    own_scales = {entry.name for entry in scales.values()}
    total, done = sum(tensor.stored_bytes for tensor in found.tensors), 0
    for tensor in found.tensors:
        if tensor.parts[0].entry.name in own_scales:
            continue
        counterpart = official.get(tensor.name)
        if counterpart is None and tensor.name == HEAD:
            counterpart = official.get(EMBEDDING)
        yield _row(root, official_root, tensor, counterpart, scales.get(tensor.name))
        done += tensor.stored_bytes
        progress("weights", min(done, total), total)


def _row(
    root: Path,
    official_root: Path,
    tensor: LogicalTensor,
    official: LogicalTensor | None,
    scale: TensorEntry | None,
) -> dict[str, Any]:
    """Return the row of one tensor."""
    row: dict[str, Any] = {
        "name": tensor.name,
        "file": tensor.parts[0].entry.path,
        "dtype": tensor.dtype,
        "status": UNDETERMINED,
    }
    if official is None:
        return row | {"status": DIFFERS, "reason": "there is no such official tensor"}
    if official.shape != tensor.shape:
        return row | {"status": DIFFERS, "reason": f"officially it is {list(official.shape)}"}
    if scale is None and not recipes.can_compare(tensor.dtype):
        return row | {"reason": f"{tensor.dtype} is not decoded here"}
    is_vector = len(tensor.shape) == 1 and tensor.block is None
    if not (is_vector or len(tensor.shape) == 2) or official.dtype not in recipes.FLOATS:
        return row | {"reason": "it is no matrix of floats"}
    pair = _Pair(tensor, official, scale)
    try:
        paths = tensor.paths | ({scale.path} if scale else set())
        with (
            blocks.Files(root, paths) as files,
            blocks.Files(official_root, official.paths) as others,
        ):
            source = _best_source(pair, files, others)
            tally = BlockTally()
            for piece in _compare(pair, files, others, source):
                tally.add(piece)
    except ReadError as error:
        return row | {"reason": str(error)}
    return row | _outcome(pair, tally, source)


def _outcome(pair: _Pair, tally: BlockTally, source: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "status": tally.status,
        "blocks": tally.blocks,
        "unequal": tally.unequal.count if tally.has_recipe else None,
        "outside": tally.wrong.count,
    }
    if source:
        found["source"] = source
    shown = tally.shown
    if shown.runs:
        entry = pair.tensor.parts[0].entry
        size = pair.block[1]
        found["first_block"] = shown.runs[0][0]
        found["runs"] = [list(run) for run in shown.runs]
        if len(pair.tensor.parts) == 1:
            found["ranges"] = [
                [entry.start + a * size, entry.start + b * size] for a, b in shown.runs
            ]
    return found


def _best_source(pair: _Pair, files: blocks.Files, others: blocks.Files) -> str:
    """Return the type that the official values went through, as the first rows tell it."""
    if pair.official.dtype == pair.tensor.dtype or not recipes.has_recipe(pair.tensor.dtype):
        return ""
    counts: dict[str, int] = {}
    for source in recipes.SOURCES:
        first = next(_compare(pair, files, others, source), None)
        if first is None or first.equals is None:
            return ""
        counts[source] = int((~first.equals).sum())
        if not counts[source]:
            break
    return min(counts, key=lambda source: counts[source])


def _compare(
    pair: _Pair, files: blocks.Files, others: blocks.Files, source: str
) -> Iterator[recipes.Compared]:
    """Yield what the blocks are, in the order of the copy's rows."""
    tensor = pair.tensor
    columns = blocks.as_matrix(tensor.shape)[1]
    unit = lcm(tensor.pair_width or 1, pair.official.pair_width or 1)
    if unit * columns > 16 * STEP:
        raise ReadError(tensor.parts[0].entry.path, "it has rows too long to be a matrix")
    step = max(STEP // (columns or 1) // unit, 1) * unit
    for part in tensor.parts:
        entry = part.entry
        height = blocks.as_matrix(entry.shape)[0]
        for start in range(0, height, step):
            stop = min(start + step, height)
            wanted = blocks.read_rows(others, pair.official, part.row + start, part.row + stop)
            if tensor.pair_width is not None:
                wanted = blocks.to_pairs(wanted, tensor.pair_width)
            yield _compare_rows(pair, files, entry, (start, stop), (wanted, source))


def _compare_rows(
    pair: _Pair,
    files: blocks.Files,
    entry: TensorEntry,
    span: tuple[int, int],
    official: tuple[Tensor, str],
) -> recipes.Compared:
    wanted, source = official[0].to(torch.float32).contiguous(), official[1]
    start, stop = span
    if pair.scale is not None:
        columns = entry.shape[1]
        levels = files.read(entry, start * columns, stop * columns).view(-1, columns)
        scale = files.read(pair.scale, start, stop)
        absmax = pair.scale.name.endswith("SCB")
        return recipes.compare_int8(levels, scale, wanted, absmax=absmax)
    row = (entry.end - entry.start) // entry.shape[0]
    raw = files.read_bytes(entry, start * row, stop * row)
    return recipes.compare(pair.tensor.dtype, raw, wanted, source)


def _missing(
    found: Arranged, official: Mapping[str, LogicalTensor], tensors: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each official tensor that the copy lacks; a tied head is not missed."""
    own = {tensor.name for tensor in found.tensors}
    tied = {row["name"] for row in tensors.get("tensors", ()) if row.get("tied_to") in own}
    for name in official:
        if name not in own and name not in tied:
            yield {"name": name, "file": found.files[0], "status": MISSING}


def _worst(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what holds for every tensor."""
    statuses = {row["status"] for row in rows}
    for status in (DIFFERS, MISSING, UNDETERMINED, WITHIN):
        if status in statuses:
            return DIFFERS if status == MISSING else status
    return REDERIVED


def _reason(rows: Sequence[Mapping[str, Any]], scheme: str) -> str:
    """Return one sentence about what was found, without its full stop."""
    counts = {status: sum(row["status"] == status for row in rows) for status in _ORDER}
    status = _worst(rows)
    if status == REDERIVED:
        return f"all {len(rows):,} tensors are the official ones quantized as {scheme}, bit by bit"
    if status == WITHIN:
        return (
            f"{counts[REDERIVED]:,} of {len(rows):,} tensors are made again bit by bit, "
            f"the others lie within the error of {scheme}"
        )
    first = next(row for row in rows if row["status"] in (status, MISSING))
    if status == UNDETERMINED:
        return f"{counts[UNDETERMINED]:,} tensors cannot be told: {first['reason']}"
    wrong = counts[DIFFERS] + counts[MISSING]
    text = f"{wrong:,} of {len(rows):,} tensors do not come from the official ones: {first['name']}"
    if first.get("ranges"):
        start, end = first["ranges"][0][0], first["ranges"][-1][1]
        text += (
            f", {first['outside']:,} of {first['blocks']:,} blocks from block "
            f"{first['first_block']:,}, in bytes {start:,} to {end:,} of {first['file']}"
        )
    elif first.get("reason"):
        text += f", {first['reason']}"
    return text + (" is missing" if first["status"] == MISSING else "")


_ORDER = (REDERIVED, WITHIN, UNDETERMINED, DIFFERS, MISSING)
