"""The same tensors under other names: Hugging Face's and Meta's layout of the LLaMA family.

A checkpoint is arranged into *logical tensors* under canonical (Hugging Face) names. Each knows
the parts it is stored in, and whether its rows lie in another order: Meta rotates neighbouring
channels of a head, Hugging Face channel i with i + d/2 (Su et al. 2021), so that the rows of q and
k are [heads, d/2, 2] in the one and [heads, 2, d/2] in the other.

Nothing is read here but headers. A name that no table knows stays as it is.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from . import strict_json
from .errors import ManifestError, ReadError
from .readers import TensorEntry, open_source

ROWS, COLUMNS, COPIES, EITHER = "rows", "columns", "copies", "either"
"""How model-parallel parts make a whole; EITHER: columns in LLaMA 1 and 2, rows in Llama 3."""

MAX_CONFIG = 1 << 20


@dataclass(frozen=True, slots=True)
class Name:
    """One line of a family's table; ``rotary`` matrices have rows in the order of their layout."""

    canonical: str
    meta: str
    join: str
    rotary: bool = False


LLAMA = (
    #    Hugging Face (canonical)                         Meta                            parts
    Name("model.embed_tokens.weight", "tok_embeddings.weight", EITHER),
    Name("model.layers.N.input_layernorm.weight", "layers.N.attention_norm.weight", COPIES),
    Name("model.layers.N.self_attn.q_proj.weight", "layers.N.attention.wq.weight", ROWS, True),
    Name("model.layers.N.self_attn.k_proj.weight", "layers.N.attention.wk.weight", ROWS, True),
    Name("model.layers.N.self_attn.v_proj.weight", "layers.N.attention.wv.weight", ROWS),
    Name("model.layers.N.self_attn.o_proj.weight", "layers.N.attention.wo.weight", COLUMNS),
    Name("model.layers.N.post_attention_layernorm.weight", "layers.N.ffn_norm.weight", COPIES),
    Name("model.layers.N.mlp.gate_proj.weight", "layers.N.feed_forward.w1.weight", ROWS),
    Name("model.layers.N.mlp.up_proj.weight", "layers.N.feed_forward.w3.weight", ROWS),
    Name("model.layers.N.mlp.down_proj.weight", "layers.N.feed_forward.w2.weight", COLUMNS),
    Name("model.norm.weight", "norm.weight", COPIES),
    Name("lm_head.weight", "output.weight", ROWS),
)
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

_BY_META = {name.meta: name for name in LLAMA}
_BY_CANONICAL = {name.canonical.removeprefix("model."): name for name in LLAMA}
_ONLY_META = frozenset(_BY_META) - frozenset(_BY_CANONICAL)
# Buffers that are computed from the config and hold nothing that was learnt.
_BUFFERS = re.compile(r"(^|\.)(rope\.freqs|rotary_emb\.inv_freq|position_ids)$")
_PREFIX = re.compile(r"^(?:(?:module|_orig_mod|model)\.)+")
_LAYER = re.compile(r"(?<=^layers\.)\d{1,6}(?=\.)")


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
    groups: dict[tuple[str, bool, str], list[TensorEntry]] = {}
    for entry in entries:
        place = PurePosixPath(entry.path)
        folder = "" if place.parent == PurePosixPath(".") else str(place.parent)
        key = (folder, place.name.startswith("consolidated"), place.suffix.lower())
        groups.setdefault(key, []).append(entry)
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


def canonical_name(name: str) -> tuple[str, Name | None]:
    """Return the canonical name and the line of the table that holds it, if one does."""
    bare = _PREFIX.sub("", name)
    number = _LAYER.search(bare)
    pattern = _LAYER.sub("N", bare)
    line = _BY_META.get(pattern) or _BY_CANONICAL.get(pattern)
    if line is not None:
        layer = str(int(number.group())) if number else ""
        return line.canonical.replace(".N.", f".{layer}."), line
    return (f"model.{bare}" if bare != name and number else name), None


def is_buffer(name: str) -> bool:
    """Tell whether a tensor is a buffer computed from the config, which is not compared."""
    return _BUFFERS.search(name) is not None


def head_width_of(root: Path, folder: str, entries: Sequence[TensorEntry] = ()) -> int | None:
    """Return the width of a head as the config beside the weights, or ``rope.freqs``, tells it."""
    params = read_config(root, f"{folder}/params.json" if folder else "params.json")
    config = read_config(root, f"{folder}/config.json" if folder else "config.json")
    for found, whole, heads in (
        (params, "dim", "n_heads"),
        (config, "hidden_size", "num_attention_heads"),
    ):
        width: Any = found.get("head_dim")
        if not width and _positive(found.get(whole)) and _positive(found.get(heads)):
            width = found[whole] // found[heads]
        if _positive(width) and width % 2 == 0:
            return int(width)
    for entry in entries:
        if entry.name.endswith("rope.freqs") and len(entry.shape) == 1 and entry.shape[0]:
            return 2 * entry.shape[0]
    return None


def read_config(root: Path, path: str) -> dict[str, Any]:
    """Return a small JSON object beside the weights, or nothing where it cannot be read."""
    try:
        with open_source(root, path) as source:
            if source.size > MAX_CONFIG:
                return {}
            found = strict_json.loads(source.read(0, source.size), path)
    except (ReadError, ManifestError):
        return {}
    return found if isinstance(found, dict) else {}


def _positive(value: object) -> bool:
    return type(value) is int and 0 < value < 1 << 32


def _arrange_set(
    root: Path, folder: str, entries: Sequence[TensorEntry], head_width: int | None
) -> Arranged:
    """Join the parts of one set of files.

    Raises:
        ReadError: parts do not fit each other, or two shards hold one name.
    """
    files = sorted({entry.path for entry in entries})
    is_meta = any(_LAYER.sub("N", _PREFIX.sub("", e.name)) in _ONLY_META for e in entries)
    if is_meta and head_width is None:
        head_width = head_width_of(root, folder, entries)
    by_name: dict[str, list[TensorEntry]] = {}
    for entry in sorted(entries, key=lambda e: e.path):
        if not is_buffer(entry.name):
            by_name.setdefault(entry.name, []).append(entry)
    tensors: dict[str, LogicalTensor] = {}
    for name, pieces in by_name.items():
        canonical, line = canonical_name(name)
        if len(pieces) > 1 and not (is_meta and line and len(pieces) == len(files)):
            raise ReadError(pieces[1].path, f"tensor {name[:80]!r} lies in another shard too")
        tensor = _join(canonical, folder, line if is_meta else None, pieces, by_name)
        if is_meta and line and line.rotary:
            tensor = _in_pairs(tensor, head_width)
        if canonical in tensors:
            raise ReadError(pieces[0].path, f"tensor {canonical[:80]!r} is there under two names")
        tensors[canonical] = tensor
    return Arranged(folder, "meta" if is_meta else "hf", tuple(tensors.values()), tuple(files))


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
        if len(part.entry.shape) != 2 or part.entry.shape[0] % head_width:
            raise ReadError(
                part.entry.path, f"tensor {entry.name[:80]!r} is not made of whole heads"
            )
    return LogicalTensor(
        tensor.name, tensor.folder, tensor.dtype, tensor.shape, tensor.parts, head_width
    )
