"""The same tensors in other layouts: Hugging Face's, Meta's and GGUF's of the LLaMA family.

A checkpoint is arranged into *logical tensors* under canonical (Hugging Face) names. Each knows
the parts it is stored in, and whether its rows lie in another order: Meta rotates neighbouring
channels of a head, Hugging Face channel i with i + d/2 (Su et al. 2021), so that the rows of q and
k are [heads, d/2, 2] in the one and [heads, 2, d/2] in the other. GGUF keeps Meta's order for the
architectures that llama.cpp's converter permutes. Fused projections are taken apart.

Nothing is read here but headers. A name that no table knows stays as it is.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from . import fused
from .dialects import dialect_of, head_width_of, read_config
from .errors import ReadError
from .layout_names import (
    COLUMNS,
    COPIES,
    EITHER,
    EMBEDDING,
    HEAD,
    ROWS,
    Name,
    canonical_name,
    is_buffer,
)
from .readers import QUANTIZED, TensorEntry

__all__ = [
    "EMBEDDING",
    "HEAD",
    "Arranged",
    "LogicalTensor",
    "Part",
    "arrange",
    "canonical_name",
    "head_width_of",
    "is_buffer",
    "published_names",
    "read_config",
]

_GGUF_PART = re.compile(r"-\d{5}-of-\d{5}$")


@dataclass(frozen=True, slots=True)
class Part:
    """A stored piece of a matrix; its first entry is at (``row``, ``column``) of the whole."""

    entry: TensorEntry
    row: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class LogicalTensor:
    """A tensor of the model, wherever its pieces lie.

    ``pair_width`` is set where rows lie in Meta's order: the width of a head. ``copies`` are
    further stored pieces that must hold the same bytes as the only part.
    """

    name: str
    folder: str
    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]
    pair_width: int | None = None
    copies: tuple[TensorEntry, ...] = ()

    @property
    def paths(self) -> set[str]:
        """Files that hold a part or a copy of it."""
        return {part.entry.path for part in self.parts} | {copy.path for copy in self.copies}

    @property
    def block(self) -> tuple[int, int] | None:
        """Entries and bytes of a block where it is stored quantized, else None."""
        return QUANTIZED.get(self.dtype)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the parts, copies not counted."""
        return sum(part.entry.end - part.entry.start for part in self.parts)


@dataclass(frozen=True, slots=True)
class Arranged:
    """The logical tensors of one set of weight files that lie together."""

    folder: str
    layout: str
    tensors: tuple[LogicalTensor, ...]
    files: tuple[str, ...]


def arrange(
    root: Path, entries: Iterable[TensorEntry], head_width: int | None = None
) -> tuple[list[Arranged], list[ReadError]]:
    """Return a set of logical tensors per folder and container, and what could not be arranged.

    ``head_width`` is the official width of a head; where it is None, the copy's own config or
    ``rope.freqs`` tells it.
    """
    groups: dict[tuple[str, str, str], list[TensorEntry]] = {}
    for entry in entries:
        place = PurePosixPath(entry.path)
        folder = "" if place.parent == PurePosixPath(".") else str(place.parent)
        suffix = place.suffix.lower()
        kind = "consolidated" if place.name.startswith("consolidated") else ""
        if suffix == ".gguf":  # each file is a model of its own, unless gguf-split named it a part
            kind = _GGUF_PART.sub("", place.stem)
        groups.setdefault((folder, kind, suffix), []).append(entry)
    sets: list[Arranged] = []
    problems: list[ReadError] = []
    for (folder, _, _), members in sorted(groups.items()):
        try:
            sets.append(_arrange_set(root, folder, members, head_width))
        except ReadError as error:
            problems.append(error)
    return sets, problems


def published_names(sets: Iterable[Arranged]) -> dict[str, LogicalTensor]:
    """Return the tensors of several sets by name, with their folder where there are several.

    Raises:
        ReadError: two containers in one folder hold a tensor of one name.
    """
    sets = list(sets)
    several = len({found.folder for found in sets}) > 1
    named: dict[str, LogicalTensor] = {}
    for found in sets:
        for tensor in found.tensors:
            prefix = f"{found.folder}/" if several and found.folder else ""
            name = prefix + tensor.name
            if name in named:
                raise ReadError(
                    found.files[0], f"tensor {name[:80]!r} lies in another container too"
                )
            named[name] = tensor
    return named


def _arrange_set(
    root: Path, folder: str, entries: Sequence[TensorEntry], head_width: int | None
) -> Arranged:
    """Join the parts of one set of files.

    Raises:
        ReadError: parts do not fit each other, or two shards hold one name.
    """
    files = sorted({entry.path for entry in entries})
    dialect = dialect_of(root, folder, entries, head_width)
    is_meta = dialect.layout == "meta"
    plain, grouped = fused.split(sorted(entries, key=lambda e: e.path), dialect.fusion)
    by_name: dict[str, list[TensorEntry]] = {}
    for entry in plain:
        if not is_buffer(entry.name):
            by_name.setdefault(entry.name, []).append(entry)
    tensors: dict[str, LogicalTensor] = {}
    for name, pieces in (by_name | grouped).items():
        canonical, line = canonical_name(name)
        if name in grouped:
            tensor = _stack(canonical, folder, pieces)
        elif len(pieces) > 1 and not (is_meta and line and len(pieces) == len(files)):
            raise ReadError(pieces[1].path, f"tensor {name[:80]!r} lies in another shard too")
        else:
            tensor = _join(canonical, folder, line if is_meta else None, pieces, by_name)
        if dialect.paired and line and line.rotary:
            tensor = _in_pairs(tensor, dialect.head_width)
        if canonical in tensors:
            raise ReadError(pieces[0].path, f"tensor {canonical[:80]!r} is there under two names")
        tensors[canonical] = tensor
    return Arranged(folder, dialect.layout, tuple(tensors.values()), tuple(files))


def _stack(name: str, folder: str, pieces: Sequence[TensorEntry]) -> LogicalTensor:
    """Make one logical tensor of pieces whose rows follow each other."""
    parts, row = [], 0
    for piece in pieces:
        parts.append(Part(piece, row))
        row += piece.shape[0]
    first = pieces[0]
    return LogicalTensor(name, folder, first.dtype, (row, *first.shape[1:]), tuple(parts))


def _join(
    name: str,
    folder: str,
    line: Name | None,
    pieces: Sequence[TensorEntry],
    by_name: Mapping[str, Sequence[TensorEntry]],
) -> LogicalTensor:
    """Make one logical tensor of its pieces, in the order of their files."""
    first = pieces[0]
    if len(pieces) == 1 or line is None:
        return LogicalTensor(name, folder, first.dtype, first.shape, (Part(first),))
    join = line.join
    if join == EITHER:
        width = next((p[0].shape for n, p in by_name.items() if n.endswith("norm.weight")), (0,))
        join = ROWS if first.shape[-1:] == width else COLUMNS
    rank = 1 if join == COPIES else 2
    across = 1 if join == ROWS else 0
    for piece in pieces:
        same = piece.shape == first.shape if rank == 1 else len(piece.shape) == 2
        if rank == 2 and same:
            same = piece.shape[across] == first.shape[across]
        if not same or piece.dtype != first.dtype:
            raise ReadError(piece.path, f"its part of tensor {piece.name[:80]!r} does not fit")
    if join == COPIES:
        return LogicalTensor(
            name, folder, first.dtype, first.shape, (Part(first),), copies=tuple(pieces[1:])
        )
    parts: list[Part] = []
    row = column = 0
    for piece in pieces:
        parts.append(Part(piece, row, column))
        row += piece.shape[0] if join == ROWS else 0
        column += piece.shape[1] if join == COLUMNS else 0
    shape = (row, first.shape[1]) if join == ROWS else (first.shape[0], column)
    return LogicalTensor(name, folder, first.dtype, shape, tuple(parts))


def _in_pairs(tensor: LogicalTensor, head_width: int | None) -> LogicalTensor:
    """Mark a rotary matrix whose rows lie in Meta's order.

    Raises:
        ReadError: the width of a head is unknown, or does not divide the rows.
    """
    entry = tensor.parts[0].entry
    if head_width is None:
        raise ReadError(entry.path, "params.json, which tells the width of a head, is missing")
    for part in tensor.parts:
        if len(part.entry.shape) not in (1, 2) or part.entry.shape[0] % head_width:
            raise ReadError(
                part.entry.path, f"tensor {entry.name[:80]!r} is not made of whole heads"
            )
    return replace(tensor, pair_width=head_width)
