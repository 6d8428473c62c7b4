"""The order in which a checkpoint is read, from headers alone: layer by layer, a leaf at a time.

Every file is read in whole leaves, the 4 MiB on which its signed digests stand, so that each byte
is hashed and multiplied from the same read. Matrices that are multiplied with the same activations
form a *group*; groups follow each other as the model computes them, whatever the order in the
files. A leaf that reaches into a later group has an *edge* there: it is kept until it is due if the
budget allows, the one due last making room; an edge not kept is read, hashed and compared again.
Leaves that belong to no matrix come last and are only hashed.

The plan is generated, never held: a 65-billion-parameter checkpoint has thirty thousand leaves.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from verifier.digests import LEAF_BYTES, leaf_count
from verifier.layouts import LogicalTensor, Part
from verifier.readers import ITEM_BYTES, QUANTIZED

EDGE_STEP = 1 << 18
Edge = tuple[str, int]
"""File and offset at which a kept piece begins."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes [start, stop) of a file: whole entries of one part of a matrix, all in one leaf.

    ``stop`` lies beyond the leaf only where the leaf ends inside an entry or a block of them, as in
    a file whose header has an odd length; then by less than that.
    """

    name: str
    part: Part
    group: int
    start: int
    stop: int

    @property
    def edge(self) -> Edge:
        """What it is kept under."""
        return self.part.entry.path, self.start

    @property
    def size(self) -> int:
        """Bytes of the piece."""
        return self.stop - self.start

    @property
    def held(self) -> int:
        """Bytes of memory that keeping it takes."""
        return memory_of(self.size)


@dataclass(frozen=True, slots=True)
class Item:
    """One step of the plan.

    With a ``leaf``: read it, use ``uses``, keep ``keeps``. Without: use what was kept before; with
    no ``uses`` either, the group is complete. ``drops`` are forgotten in any case.
    """

    path: str = ""
    leaf: int | None = None
    uses: tuple[Piece, ...] = ()
    keeps: tuple[Piece, ...] = ()
    drops: tuple[Edge, ...] = ()
    again: bool = False

    @property
    def ends_group(self) -> bool:
        """Whether all products of a group have been made."""
        return self.leaf is None and not self.uses


@dataclass(frozen=True, slots=True)
class Totals:
    """What a plan comes to: bytes read in leaves, of them read again, most bytes kept at once."""

    bytes_read: int
    bytes_read_again: int
    most_kept: int


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int
    name: str
    part: Part
    group: int


@dataclass(frozen=True)
class Plan:
    """``groups`` of matrices of ``tensors`` in the order of the model, in files of these ``sizes``.

    ``keep_bytes`` bounds what is kept; with ``hash_all`` leaves without a matrix are read too.
    """

    sizes: Mapping[str, int]
    tensors: Mapping[str, LogicalTensor]
    groups: Sequence[Sequence[str]]
    keep_bytes: int
    hash_all: bool

    def totals(self) -> Totals:
        """Go through the plan without reading."""
        read = again = kept = most = 0
        held: dict[Edge, int] = {}
        for item in self.items():
            if item.leaf is not None:
                size = leaf_size(self.sizes[item.path], item.leaf)
                read += size
                again += size if item.again else 0
            for edge in (*item.drops, *(piece.edge for piece in item.uses)):
                kept -= held.pop(edge, 0)
            for piece in item.keeps:
                held[piece.edge] = piece.held
                kept += piece.held
            most = max(most, kept)
        return Totals(read, again, most)

    def items(self) -> Iterator[Item]:
        """Yield the steps in order; the same each time."""
        seen = {path: bytearray(leaf_count(size)) for path, size in self.sizes.items()}
        kept: dict[Edge, Piece] = {}
        for group in range(len(self.groups)):
            done: set[tuple[str, int]] = set()
            for path, span in self._spans_of(group):
                for leaf in range(span.start // LEAF_BYTES, -(-span.end // LEAF_BYTES)):
                    if (path, leaf) in done:
                        continue
                    done.add((path, leaf))
                    pieces = self._pieces(path, leaf)
                    now = tuple(piece for piece in pieces if piece.group == group)
                    if not now:
                        continue
                    if all(piece.edge in kept for piece in now):
                        for piece in now:
                            del kept[piece.edge]
                        yield Item(path, None, now)
                        continue
                    drops = [piece.edge for piece in now if kept.pop(piece.edge, None)]
                    later = [p for p in pieces if p.group > group and p.edge not in kept]
                    keeps, evicted = self._choose(kept, later)
                    again = bool(seen[path][leaf])
                    seen[path][leaf] = 1
                    yield Item(path, leaf, now, keeps, (*drops, *evicted), again)
            yield Item()
        for path in sorted(self.sizes) if self.hash_all else ():
            for leaf, was in enumerate(seen[path]):
                if not was:
                    yield Item(path, leaf)

    def _choose(
        self, kept: dict[Edge, Piece], later: Sequence[Piece]
    ) -> tuple[tuple[Piece, ...], list[Edge]]:
        """Keep the pieces that are due soonest (Belady 1966); return them and what must go."""
        held = sum(piece.held for piece in kept.values())
        chosen: dict[Edge, Piece] = {}
        evicted: list[Edge] = []
        for piece in sorted(later, key=lambda p: (p.group, p.start)):
            victims: list[Piece] = []
            room = self.keep_bytes - held
            for old in sorted(kept.values(), key=lambda p: -p.group):
                if room >= piece.held or old.group <= piece.group or old.edge in chosen:
                    break
                victims.append(old)
                room += old.held
            if room < piece.held:
                continue
            for old in victims:
                del kept[old.edge]
                evicted.append(old.edge)
                held -= old.held
            kept[piece.edge] = chosen[piece.edge] = piece
            held += piece.held
        return tuple(chosen.values()), evicted

    def _spans_of(self, group: int) -> list[tuple[str, _Span]]:
        found = [
            (part.entry.path, _Span(part.entry.start, part.entry.end, name, part, group))
            for name in self.groups[group]
            for part in self.tensors[name].parts
        ]
        return sorted(found, key=lambda place: (place[0], place[1].start))

    @cached_property
    def _by_file(self) -> dict[str, tuple[list[int], list[_Span]]]:
        """Spans of each file in the order of their ends, with those ends to look them up by."""
        files: dict[str, list[_Span]] = {}
        for group in range(len(self.groups)):
            for path, span in self._spans_of(group):
                files.setdefault(path, []).append(span)
        result = {}
        for path, spans in files.items():
            spans.sort(key=lambda span: (span.end, span.group))
            result[path] = [span.end for span in spans], spans
        return result

    def _pieces(self, path: str, leaf: int) -> list[Piece]:
        """Return what lies in a leaf: of each matrix the entries that begin there."""
        low = leaf * LEAF_BYTES
        high = low + leaf_size(self.sizes[path], leaf)
        ends, spans = self._by_file[path]
        pieces = []
        for span in spans[bisect_right(ends, low) :]:
            if span.start >= high:
                break
            _, unit = unit_of(span.part.entry.dtype)
            start = span.start + max(0, -(-(low - span.start) // unit)) * unit
            stop = min(span.end, span.start + -(-(high - span.start) // unit) * unit)
            if start < stop:
                pieces.append(Piece(span.name, span.part, span.group, start, stop))
        return pieces


def unit_of(dtype: str) -> tuple[int, int]:
    """Return the entries and bytes that cannot be cut apart: one entry, or a block of them."""
    return QUANTIZED.get(dtype) or (1, ITEM_BYTES[dtype])


def memory_of(size: int) -> int:
    """Return the memory that a kept piece takes: whole steps, so that it can be used again."""
    return -(-size // EDGE_STEP) * EDGE_STEP


def leaf_size(file_size: int, leaf: int) -> int:
    """Return the bytes of one leaf; the last of a file is short."""
    return min(LEAF_BYTES, file_size - leaf * LEAF_BYTES)
