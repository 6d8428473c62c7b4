"""Torrents: what a `.torrent` file says, checked before any of it is believed.

    v1 (BEP 3)    info.files in order (or one `length`), joined and cut at `piece length`; `pieces`
                  is the SHA-1 of each piece. BEP 47: a file whose `attr` has `p` is that many zeros.
    v2 (BEP 52)   info.`file tree`; per file the root of a SHA-256 tree over its 16 KiB blocks. The
                  layer of that tree at `piece length` stands in `piece layers`, outside info.
    hybrid        both, which may disagree

The infohash is the SHA-1 (v1) or SHA-256 (v2) of the bytes of `info` as they were written.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from . import bencode
from .digests import BLOCK_BYTES, DIGEST_BYTES
from .errors import ManifestError, TorrentError
from .manifest import read_bounded
from .merkle import root_of_layer
from .names import MAX_NAME_BYTES, MAX_PART_BYTES, shown
from .walk import MAX_DEPTH, MAX_FILE_BYTES

MAX_FILES = 10_000
MIN_PIECE_BYTES = 1 << 10
MAX_PIECE_BYTES = 1 << 28
SHA1_BYTES = 20


@dataclass(frozen=True, slots=True)
class TorrentFile:
    """One file below the torrent's name; ``kind`` is ``file``, ``pad`` (zeros) or ``link``."""

    path: str
    length: int
    kind: str = "file"
    root: bytes | None = None


@dataclass(frozen=True, slots=True)
class Half:
    """What one version of the protocol says: its files in order, and the digests of their bytes.

    v1 has ``pieces``, SHA-1 digests in a row; v2 has ``layers``, by the root that they lead to.
    """

    version: int
    infohash: str
    files: tuple[TorrentFile, ...]
    pieces: bytes = b""
    layers: Mapping[bytes, bytes] | None = None

    @property
    def real(self) -> dict[str, TorrentFile]:
        """What a download leaves on a disk, by path: no pads."""
        return {file.path: file for file in self.files if file.kind != "pad"}


@dataclass(frozen=True, slots=True)
class Torrent:
    """A torrent: ``single`` is one file without a folder; ``contradictions`` are sentences."""

    name: str
    piece_length: int
    halves: tuple[Half, ...]
    single: bool
    trackers: int
    canonical: bool
    contradictions: tuple[str, ...]

    @property
    def files(self) -> dict[str, TorrentFile]:
        """The files of either half, by path; the v2 entry where both have one, for its root."""
        found: dict[str, TorrentFile] = {}
        for half in self.halves:
            found |= half.real
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the torrent as a report shows it; trackers are counted, never named."""
        hashes = {half.version: half.infohash for half in self.halves}
        return {
            "name": self.name,
            "version": "hybrid" if len(hashes) == 2 else f"v{self.halves[0].version}",
            "infohash_v1": hashes.get(1),
            "infohash_v2": hashes.get(2),
            "piece_length": self.piece_length,
            "pieces": sum(len(half.pieces) // SHA1_BYTES for half in self.halves) or None,
            "files": len(self.files),
            "bytes": sum(file.length for file in self.files.values()),
            "trackers": self.trackers,
        }


def load(path: Path) -> Torrent:
    """Read the torrent in the file ``path``.

    Raises:
        TorrentError: it cannot be read, is malformed, over a limit, or names files outside itself.
    """
    try:
        data = read_bounded(path, bencode.MAX_BYTES, "The torrent")
    except ManifestError as error:
        raise TorrentError(str(error)) from None
    return parse(data, f"The torrent {shown(str(path))}")


def parse(data: bytes, what: str = "The torrent") -> Torrent:
    """Read the torrent that is all of ``data``; ``what`` names it in errors.

    Raises:
        TorrentError: as :func:`load`.
    """
    document = bencode.decode(data, what)
    info = document.fields.get(b"info")
    if not isinstance(info, dict) or document.raw is None:
        raise TorrentError(f"{what} has no `info`; it is not a torrent.")
    return _Parser(what, document, info, document.raw).torrent()


class _Parser:
    """The fields of one torrent, each checked for its type and bounds when it is asked for."""

    def __init__(
        self,
        what: str,
        document: bencode.Document,
        info: dict[bytes, bencode.Value],
        raw: memoryview,
    ) -> None:
        self.what = what
        self.document = document
        self.info = info
        self.raw = raw

    def torrent(self) -> Torrent:
        """Put the halves together."""
        name = self._part(self._get(self.info, b"name", bytes))
        halves = []
        if b"pieces" in self.info or b"file tree" not in self.info:
            halves.append(self._v1(name))
        if b"file tree" in self.info:
            halves.append(self._v2())
        for half in halves:
            self._check_paths(half)
        return Torrent(
            name=name,
            piece_length=self._piece_length(),
            halves=tuple(halves),
            single=all(list(half.real) == [name] for half in halves),
            trackers=self._trackers(),
            canonical=self.document.canonical,
            contradictions=tuple(self._contradictions(halves)),
        )

    def _v1(self, name: str) -> Half:
        if (b"files" in self.info) == (b"length" in self.info):
            raise self._bad("info", "it has to have one of `files` and `length`")
        if b"length" in self.info:
            files = [TorrentFile(name, self._length(self.info))]
        else:
            entries = self._get(self.info, b"files", list)
            self._count(len(entries))
            files = [self._v1_file(entry) for entry in entries]
        pieces = self._get(self.info, b"pieces", bytes)
        total = sum(file.length for file in files)
        if total > MAX_FILE_BYTES:
            raise self._bad("length", "the files have more than 2^50 bytes")
        if len(pieces) != -(-total // self._piece_length()) * SHA1_BYTES:
            raise self._bad("pieces", f"its length does not fit files of {total:,} bytes")
        infohash = hashlib.sha1(self.raw, usedforsecurity=False).hexdigest()
        return Half(1, infohash, tuple(files), pieces=pieces)

    def _v1_file(self, entry: bencode.Value) -> TorrentFile:
        parts = self._get(entry, b"path", list)
        kind = self._kind(entry)
        if not 0 < len(parts) <= MAX_DEPTH:
            raise self._bad("path", f"it does not have 1 to {MAX_DEPTH} parts")
        path, length = self._path([self._part(part) for part in parts]), self._length(entry)
        if kind == "pad" and length >= self._piece_length():
            raise self._bad("length", "a pad that only fills up a piece is as long as one")
        return TorrentFile(path, length, kind)

    def _v2(self) -> Half:
        if self._get(self.info, b"meta version", int) != 2:
            raise self._bad("meta version", "it is not 2, the only one with a `file tree`")
        length = self._piece_length()
        if length < BLOCK_BYTES or length & (length - 1):
            raise self._bad("piece length", "it is not a power of two from 16 KiB on")
        tree = self._tree(self._get(self.info, b"file tree", dict), (), 0)
        files = tuple(islice(tree, MAX_FILES + 1))
        self._count(len(files))
        layers = {}
        for root, layer in self._optional(self.document.fields, b"piece layers", dict, {}).items():
            if not isinstance(layer, bytes) or len(root) != DIGEST_BYTES:
                raise self._bad("piece layers", "it does not lead from roots to digests")
            layers[root] = layer
        infohash = hashlib.sha256(self.raw).hexdigest()
        return Half(2, infohash, files, layers=layers)

    def _tree(
        self, folder: dict[bytes, bencode.Value], above: tuple[str, ...], depth: int
    ) -> Iterator[TorrentFile]:
        """Yield the files below ``folder`` in the order of their names' bytes."""
        if depth > MAX_DEPTH:
            raise self._bad("file tree", f"it is deeper than {MAX_DEPTH} folders")
        for name in sorted(folder):
            path = (*above, self._part(name))
            entry = folder[name]
            if not isinstance(entry, dict):
                raise self._bad("file tree", "it has an entry that is not a dictionary")
            if b"" not in entry:
                yield from self._tree(entry, path, depth + 1)
                continue
            described = entry[b""]
            if len(entry) > 1 or not isinstance(described, dict):
                raise self._bad("file tree", "it has an entry that is both a file and a folder")
            yield self._v2_file(self._path(path), described)

    def _v2_file(self, path: str, entry: dict[bytes, bencode.Value]) -> TorrentFile:
        length, kind = self._length(entry), self._kind(entry)
        root = self._optional(entry, b"pieces root", bytes, None)
        if kind == "pad" or not length:
            root = None
        elif root is None or len(root) != DIGEST_BYTES:
            raise self._bad("pieces root", f"{shown(path)[:80]!r} has none of 32 bytes")
        return TorrentFile(path, length, kind, root)

    def _check_paths(self, half: Half) -> None:
        """Refuse two files of one name, and a file that is also a folder."""
        paths = [file.path for file in half.files if file.kind != "pad"]
        seen = set(paths)
        folders = {path[:at] for path in paths for at, c in enumerate(path) if c == "/"}
        if len(seen) != len(paths) or seen & folders:
            raise self._bad("path", "two files have one path, or a file is also a folder")
        if not paths:
            raise self._bad("files", "there is none")

    def _contradictions(self, halves: list[Half]) -> Iterator[str]:
        """Say where the torrent contradicts itself, so that programs would not agree on it."""
        if len(halves) == 2:
            first, second = ({f.path: (f.length, f.kind) for f in h.real.values()} for h in halves)
            if first != second:
                yield "its v1 half and its v2 half list different files"
        checked: set[bytes] = set()
        for half in halves:
            for file in half.files if half.layers is not None else ():
                layer = (half.layers or {}).get(file.root or b"")
                if layer is None or file.length <= self._piece_length():
                    continue  # a layer that is not there is asked from peers
                if not self._leads(layer, file, checked):
                    yield f"the piece layer of {shown(file.path)} does not lead to its root"

    def _leads(self, layer: bytes, file: TorrentFile, checked: set[bytes]) -> bool:
        """Tell whether a piece layer leads to the root of ``file``; each is hashed only once."""
        length = self._piece_length()
        if len(layer) != -(-file.length // length) * DIGEST_BYTES:
            return False
        if file.root not in checked and root_of_layer(layer, length) != file.root:
            return False
        checked.add(file.root or b"")
        return True

    def _trackers(self) -> int:
        """Count the addresses of trackers; none is ever asked."""
        tiers = self._optional(self.document.fields, b"announce-list", list, [])
        urls = [url for tier in tiers if isinstance(tier, list) for url in tier]
        urls.append(self.document.fields.get(b"announce"))
        return len({url for url in urls if isinstance(url, bytes)})

    def _piece_length(self) -> int:
        length: int = self._get(self.info, b"piece length", int)
        if not MIN_PIECE_BYTES <= length <= MAX_PIECE_BYTES:
            raise self._bad("piece length", "it is not between 1 KiB and 256 MiB")
        return length

    def _length(self, entry: bencode.Value) -> int:
        length: int = self._get(entry, b"length", int)
        if not 0 <= length <= MAX_FILE_BYTES:
            raise self._bad("length", "it is not between 0 and 2^50 bytes")
        return length

    def _kind(self, entry: bencode.Value) -> str:
        attributes = self._optional(entry, b"attr", bytes, b"")
        return "pad" if b"p" in attributes else "link" if b"l" in attributes else "file"

    def _part(self, part: bencode.Value) -> str:
        """Return one part of a path, which has to be the plain name of a file or folder."""
        if not isinstance(part, bytes) or not 0 < len(part) <= MAX_PART_BYTES:
            raise self._bad("path", f"a part of it is not a text of 1 to {MAX_PART_BYTES} bytes")
        try:
            text = part.decode()
        except UnicodeDecodeError:
            raise self._bad("path", f"{part[:80]!a} is not UTF-8") from None
        if text in (".", "..") or any(c in "/\\" or c < " " or c == "\x7f" for c in text):
            raise self._bad("path", f"{shown(text)[:80]!r} does not name a file inside the folder")
        return text

    def _path(self, parts: Sequence[str]) -> str:
        if sum(map(len, parts)) + len(parts) > MAX_NAME_BYTES:
            raise self._bad("path", f"it is longer than {MAX_NAME_BYTES:,} characters")
        return "/".join(parts)

    def _count(self, number: int) -> None:
        if number > MAX_FILES:
            raise self._bad("files", f"there are more than {MAX_FILES:,}")

    def _get(self, entry: Any, key: bytes, kind: type) -> Any:
        value = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(value, kind):
            raise self._bad(key.decode(), "it is missing or of the wrong type")
        return value

    def _optional(self, entry: Any, key: bytes, kind: type, default: Any) -> Any:
        there = isinstance(entry, Mapping) and key in entry
        return self._get(dict(entry), key, kind) if there else default

    def _bad(self, field: str, reason: str) -> TorrentError:
        return TorrentError(f"{self.what} cannot be judged: `{field}`: {reason}.")
