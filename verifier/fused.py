"""Take projections apart that a layout stores as one tensor: q, k and v, or gate and up.

Rows of such a tensor are those of its members one after another, and a member is a tensor of its
own at a part of the place. InternLM2 alone lays them in groups: for each key/value head its query
heads, then the key, then the value (its modeling file, `rearrange(qkv, "b q (h gs d) -> …")`).

How many rows are q's is read off the output projection, whose columns they are; the config is only
asked where that is not there. What cannot be told stays as it is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .layout_names import FusedName, fused_name
from .readers import TensorEntry

_OUTPUTS = ("self_attn.o_proj.weight", "attention.wo.weight", "attn_output.weight")


@dataclass(frozen=True, slots=True)
class Fusion:
    """What is known of a set of files: ``query_rows`` by its config, in all heads together.

    ``up_holds_gate``: `ffn_up` is gate and up. ``grouped``: InternLM2's order of rows, which needs
    ``head_width``.
    """

    query_rows: int | None = None
    head_width: int | None = None
    grouped: bool = False
    up_holds_gate: bool = False


def split(
    entries: Sequence[TensorEntry], known: Fusion
) -> tuple[list[TensorEntry], dict[str, list[TensorEntry]]]:
    """Return the entries with members in place of what was fused, and members lying in groups.

    The latter are given by name, each with the pieces that make it, in the order of its rows.
    """
    plain: list[TensorEntry] = []
    grouped: dict[str, list[TensorEntry]] = {}
    outputs = _output_columns(entries)
    for entry in entries:
        name = fused_name(entry.name)
        if name is None or (name.module == "ffn_up" and not known.up_holds_gate):
            plain.append(entry)
            continue
        queries = outputs.get((entry.path, name.layer)) or outputs.get(("", name.layer))
        sizes = _sizes(entry, name, queries or known.query_rows)
        if sizes is None:
            plain.append(entry)
        elif known.grouped and len(sizes) == 3:
            pieces = _in_groups(entry, name, sizes, known.head_width)
            grouped |= pieces
            plain += [] if pieces else [entry]
        else:
            plain += _one_after_another(entry, name, sizes)
    return plain, grouped


def _output_columns(entries: Iterable[TensorEntry]) -> dict[tuple[str, str], int]:
    """Return the columns of output projections by file and layer, and by layer alone."""
    found: dict[tuple[str, str], int] = {}
    for entry in entries:
        for ending in _OUTPUTS:
            if entry.name.endswith(ending) and len(entry.shape) == 2:
                layer = entry.name.removesuffix(ending)
                found[entry.path, layer] = found["", layer] = entry.shape[1]
    return found


def _sizes(entry: TensorEntry, name: FusedName, queries: int | None) -> tuple[int, ...] | None:
    """Return the rows of each member, or None where they cannot be told."""
    if len(entry.shape) not in (1, 2):
        return None
    rows, count = entry.shape[0], len(name.members)
    if count == 2:
        return None if rows % 2 else (rows // 2, rows // 2)
    if queries is None or not 0 < queries < rows or (rows - queries) % 2:
        return None
    rest = (rows - queries) // 2
    return (queries, rest, rest) if queries % rest == 0 else None


def _one_after_another(
    entry: TensorEntry, name: FusedName, sizes: Iterable[int]
) -> list[TensorEntry]:
    members, row = [], 0
    for member, size in zip(name.members, sizes, strict=True):
        members.append(entry.rows(row, row + size, member))
        row += size
    return members


def _in_groups(
    entry: TensorEntry, name: FusedName, sizes: Sequence[int], head_width: int | None
) -> dict[str, list[TensorEntry]]:
    """Return the pieces of each member, a group for each key/value head; nothing if they do not fit."""
    queries, keys, _ = sizes
    if head_width is None or keys % head_width:
        return {}
    groups = keys // head_width
    if queries % (groups * head_width):
        return {}
    widths = (queries // groups, head_width, head_width)
    pieces: dict[str, list[TensorEntry]] = {member: [] for member in name.members}
    row = 0
    for _ in range(groups):
        for member, width in zip(name.members, widths, strict=True):
            pieces[member].append(entry.rows(row, row + width, member))
            row += width
    return pieces
