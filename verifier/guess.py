"""Guess the info dictionary behind a bare infohash, from official files.

The hash commits to a dictionary that it does not show. Whoever made the torrent chose a name, a
piece length, an order of files, perhaps padding and some optional keys: the usual choices are tried.
A match is proof, as finding another dictionary with that hash is not feasible; a miss proves
nothing. Pieces are hashed once for each order, padding and length; a trial is one hash.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from . import bencode
from .magnet import Magnet
from .manifest import BUNDLE_NAME, SIDE_FOLDER
from .merkle import root_of_layer
from .piece_hashes import Region, Stream, hash_stream, piece_layer
from .progress import Progress, counter
from .readers import is_weight_file
from .walk import FoundFile

MAX_TRIES = 100_000
MAX_SECONDS = 60.0
"""No hashing of pieces begins later; one that has begun is finished, and its trials are made."""
_SECONDS_AFTER_HASHING = 10.0
PIECE_LENGTHS = tuple(1 << bits for bits in range(18, 25))
SMALL_PIECE_LENGTHS = tuple(1 << bits for bits in range(14, 18))
"""Tried too where all files have less than ``_SMALL_BYTES``."""
_SMALL_BYTES = 256 << 20
_MAX_SINGLES = 200
_PIECES_PER_TORRENT = 1500
"""What programs aim at when they choose a piece length."""
_FREE = 1 << 20
"""What needs no bytes to be read is tried before everything else."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file that a torrent may hold: length in bytes, Merkle root and bytes where known."""

    length: int
    root: bytes | None = None
    file: FoundFile | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Files that may make up a torrent; ``single``: one file without a folder."""

    paths: tuple[str, ...]
    single: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """Files in an order, cut at ``length`` bytes, and where zeros fill up pieces (BEP 47).

    ``pads``: ``none``, ``after`` each file, ``before`` each that is not empty (so not after the
    last); ``v2``: there is no v1 half to order or fill. The lowest ``rank`` is the likeliest.
    """

    rank: int
    selection: Selection
    order: tuple[str, ...]
    length: int
    pads: str


@dataclass(frozen=True, slots=True)
class Guess:
    """The torrent that was found: its form in words, and the files in it."""

    version: str
    name: str
    piece_length: int
    paths: tuple[str, ...]
    keys: tuple[str, ...]


@dataclass(slots=True)
class Outcome:
    """What came of guessing; ``tried`` counts dictionaries, ``complete`` is false at a limit."""

    guess: Guess | None = None
    tried: int = 0
    complete: bool = True
    bytes_read: int = 0


def guess(
    magnet: Magnet,
    sources: Mapping[str, Source],
    extra: Mapping[str, Source],
    names: Sequence[str],
    folder: Path | None,
    progress: Progress,
) -> Outcome:
    """Try the usual torrents of ``sources``, with and without the ``extra`` files.

    ``names`` are those that the torrent may have, the likeliest first; ``folder``, where the
    official files lie, is asked for its own order.
    """
    return _Guesser(magnet, {**sources, **extra}, tuple(sources), names, folder, progress).run()


class _Guesser:
    """The choices, from the likeliest."""

    def __init__(
        self,
        magnet: Magnet,
        sources: Mapping[str, Source],
        listed: tuple[str, ...],
        names: Sequence[str],
        folder: Path | None,
        progress: Progress,
    ) -> None:
        self.magnet = magnet
        self.sources = sources
        self.listed = listed
        self.names = tuple(dict.fromkeys(filter(None, names)))
        self.folder = folder
        self.progress = progress
        self.started = time.monotonic()
        self.until = self.started + MAX_SECONDS
        self.out = Outcome()
        self._roots: dict[str, bytes] = {}
        self._trees: dict[Selection, dict[bytes, bencode.Value] | None] = {}

    def run(self) -> Outcome:
        """Try until one matches, or a limit is reached."""
        for choice in sorted(self._choices(), key=lambda choice: choice.rank):
            for version, keys in self._forms(choice):
                self._try_names(choice, version, keys)
                if self.out.guess is not None:
                    return self.out
            if not self.out.complete:
                break
        return self.out

    # what may be in the torrent

    def _selections(self) -> Iterator[Selection]:
        """Yield the selections of files that the link's length allows."""
        everything = tuple(self.sources)
        plain = [path for path in self.listed if not path.startswith(".") and "/." not in path]
        weights = [path for path in self.listed if is_weight_file(path)]
        own = tuple(
            path
            for path in everything
            if path in self.listed or path == BUNDLE_NAME or path.startswith(f"{SIDE_FOLDER}/")
        )
        found = [Selection(self.listed), Selection(own), Selection(everything)]
        found += [Selection(tuple(plain)), Selection(tuple(weights))]
        found += [Selection((path,), single=True) for path in self.listed[:_MAX_SINGLES]]
        for selection in dict.fromkeys(found):
            total = self._total(selection)
            if selection.paths and total and self.magnet.length in (None, total):
                yield selection

    def _total(self, selection: Selection) -> int:
        return sum(self.sources[path].length for path in selection.paths)

    def _choices(self) -> Iterator[Choice]:
        """Yield what a torrent may be; the rank adds up how unusual each part of a choice is."""
        for number, selection in enumerate(self._selections()):
            order = next(self._orders(selection.paths))
            for rank, length in enumerate(self._piece_lengths(selection), start=number):
                if self.magnet.v1 is None:
                    yield Choice(rank - _FREE, selection, order, length, "v2")
                for more, (files, pads) in enumerate(self._layouts(selection)):
                    yield Choice(rank + more, selection, files, length, pads)

    def _piece_lengths(self, selection: Selection) -> list[int]:
        """Return the piece lengths, those near what programs choose first."""
        total = self._total(selection)
        aim = (total // _PIECES_PER_TORRENT).bit_length()
        lengths = PIECE_LENGTHS + (SMALL_PIECE_LENGTHS if total < _SMALL_BYTES else ())
        return sorted(lengths, key=lambda length: abs(length.bit_length() - aim))

    def _layouts(self, selection: Selection) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield orders of files and pads for torrents that have a v1 half, the likeliest first."""
        orders = list(self._orders(selection.paths))
        if self.magnet.v2 is None or selection.single:
            yield from ((order, "none") for order in orders[:2])
        if not selection.single:
            yield from ((orders[0], pads) for pads in ("after", "before"))
        if self.magnet.v2 is None:
            yield from ((order, "none") for order in orders[2:])
            if not selection.single:
                yield from ((order, p) for order in orders[1:] for p in ("after", "before"))

    def _orders(self, paths: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Yield the orders in which programs list files; a file tree's own comes first."""
        by_case = sorted(paths, key=lambda path: (path.casefold(), path))
        listed = {path: at for at, path in enumerate(self._as_listed)}
        orders = [sorted(paths, key=lambda path: path.encode().split(b"/"))]
        orders += [sorted(paths, key=lambda path: listed.get(path, len(listed)))]
        orders += [sorted(paths, key=str.encode), by_case, list(paths)]
        yield from dict.fromkeys(map(tuple, orders))

    @cached_property
    def _as_listed(self) -> list[str]:
        """The paths in the order in which the folder gives them."""
        if self.folder is None:
            return []
        folders = {path[:at] for path in self.sources for at, c in enumerate(path) if c == "/"}
        pending, found = [""], []
        while pending:
            path = pending.pop()
            if path in self.sources:
                found.append(path)
            elif path in folders | {""} and (self.folder / path).is_dir():
                inside = [entry.name for entry in (self.folder / path).iterdir()]
                pending += [f"{path}/{name}" if path else name for name in reversed(inside)]
        return found

    # the forms of a torrent; values are bencoded already

    def _forms(self, choice: Choice) -> Iterator[tuple[str, dict[bytes, bytes]]]:
        """Yield versions with the keys that depend on the files, as far as those are known."""
        common = {b"piece length": bencode.encode(choice.length)}
        tree = self._tree(choice.selection)
        v2 = common | {b"file tree": bencode.encode(tree or {}), b"meta version": b"i2e"}
        if choice.pads == "v2":
            if tree is not None:
                yield "v2", v2
            return
        hybrid = choice.selection.single or choice.pads != "none"
        hybrid = hybrid and choice.order == next(self._orders(choice.selection.paths))
        if self.magnet.v2 is not None and tree is None:
            return
        v1 = self._v1_keys(choice)
        if v1 is None:
            return
        if hybrid and tree is not None:
            yield "hybrid", v2 | v1
        if self.magnet.v2 is None:
            yield "v1", common | v1

    def _v1_keys(self, choice: Choice) -> dict[bytes, bytes] | None:
        """Return the keys of v1, or None where bytes are not at hand or the time is over."""
        if any(self.sources[path].file is None for path in choice.order):
            return None
        if time.monotonic() > self.started + MAX_SECONDS:
            self.out.complete = False
            return None
        length = choice.length
        regions: list[Region] = []
        files: list[bencode.Value] = []
        lacking = 0
        for path in choice.order:
            source = self.sources[path]
            if choice.pads == "before" and source.length:
                lacking = _pad(lacking, regions, files)
            regions.append(Region(source.length, source.file))
            parts: list[bencode.Value] = [part.encode() for part in path.split("/")]
            files.append({b"length": source.length, b"path": parts})
            lacking = (lacking - source.length) % length
            if choice.pads == "after":
                lacking = _pad(lacking, regions, files)
        pieces = bencode.encode(self._pieces(Stream(regions, length)))
        if choice.selection.single:
            return {b"length": bencode.encode(regions[0].length), b"pieces": pieces}
        return {b"files": bencode.encode(files), b"pieces": pieces}

    def _pieces(self, stream: Stream) -> bytes:
        stage = f"pieces of {stream.piece_length >> 10:,} KiB"
        advance = counter(self.progress, stage, stream.total)
        self.out.bytes_read += sum(r.length for r in stream.regions if r.file is not None)
        found = b"".join(d for _, digests in hash_stream(stream, advance) for d in digests)
        self.until = max(self.until, time.monotonic() + _SECONDS_AFTER_HASHING)
        return found

    def _tree(self, selection: Selection) -> dict[bytes, bencode.Value] | None:
        """Return the file tree, or None where a root is not known."""
        if selection not in self._trees:
            self._trees[selection] = self._make_tree(selection)
        return self._trees[selection]

    def _make_tree(self, selection: Selection) -> dict[bytes, bencode.Value] | None:
        tree: dict[bytes, bencode.Value] = {}
        for path in selection.paths:
            source = self.sources[path]
            entry: dict[bytes, bencode.Value] = {b"length": source.length}
            if source.length:
                root = source.root or self._root(path)
                if root is None:
                    return None
                entry[b"pieces root"] = root
            *folders, name = path.encode().split(b"/")
            inside = tree
            for folder in folders:
                below = inside.setdefault(folder, {})
                assert isinstance(below, dict)
                inside = below
            inside[name] = {b"": entry}
        return tree

    def _root(self, path: str) -> bytes | None:
        source = self.sources[path]
        if source.file is None:
            return None
        if path not in self._roots:
            length = PIECE_LENGTHS[-1]
            advance = counter(self.progress, f"tree of {path}", source.length)
            layer = piece_layer(source.file, length, advance)
            self._roots[path] = layer if source.length <= length else root_of_layer(layer, length)
        return self._roots[path]

    # trials

    def _try_names(self, choice: Choice, version: str, keys: dict[bytes, bytes]) -> None:
        """Try each name, with the optional keys that programs and trackers add."""
        names, selection = self.names, choice.selection
        if selection.single:
            names = tuple(dict.fromkeys([selection.paths[0].rpartition("/")[2], *names[:1]]))
        for name in names:
            written = bencode.encode(name.encode())
            named = keys | {b"name": written}
            if selection.single and version != "v1":
                entry = _only_file(self._tree(selection) or {})
                named[b"file tree"] = bencode.encode({name.encode(): entry})
            for extra in _extras(written, self.names, version):
                if self.out.tried >= MAX_TRIES or time.monotonic() > self.until:
                    self.out.complete = False
                    return
                self.out.tried += 1
                if self._is_it(named | extra):
                    found = tuple(key.decode() for key in sorted(named | extra))
                    self.out.guess = Guess(version, name, choice.length, selection.paths, found)
                    return

    def _is_it(self, info: dict[bytes, bytes]) -> bool:
        parts = [b"%d:%b%b" % (len(key), key, info[key]) for key in sorted(info)]
        raw = b"d%be" % b"".join(parts)
        if self.magnet.v2 and hashlib.sha256(raw).hexdigest() != self.magnet.v2:
            return False
        v1 = hashlib.sha1(raw, usedforsecurity=False).hexdigest()
        return self.magnet.v1 is None or v1 == self.magnet.v1


def _extras(name: bytes, names: Sequence[str], version: str) -> Iterator[dict[bytes, bytes]]:
    """Yield the optional keys that programs add, the likeliest first."""
    private = {b"private": b"i1e"}
    sources = [{b"source": bencode.encode(text.encode())} for text in names[:3]]
    yield from ({}, private, {b"private": b"i0e"}, {b"name.utf-8": name})
    for source in sources:
        yield from (source, private | source)
    if version == "v1":
        yield {b"meta version": b"i1e"}


def _pad(lacking: int, regions: list[Region], files: list[bencode.Value]) -> int:
    """Add a pad of the bytes ``lacking`` to a whole piece, as libtorrent names it; return 0."""
    if lacking:
        regions.append(Region(lacking, zeros=True))
        path: list[bencode.Value] = [b".pad", b"%d" % lacking]
        files.append({b"attr": b"p", b"length": lacking, b"path": path})
    return 0


def _only_file(tree: dict[bytes, bencode.Value]) -> bencode.Value:
    """Return the entry of the one file in ``tree``, which may lie in folders."""
    (entry,) = tree.values()
    return entry if not isinstance(entry, dict) or b"" in entry else _only_file(entry)
