"""What each half of a torrent says of the files of a checkpoint: v1 by pieces, v2 by trees.

A v1 piece that matches proves every byte in it, whoever gave the bytes; one that does not match
tells only of files that are known to be official, and only where nothing else lies in it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .digests import DIGEST_BYTES
from .files_check import merge
from .findings import FileStatus, Range
from .manifest import ManifestFile
from .merkle import root_of_layer
from .names import shown
from .piece_hashes import Region, Stream, hash_stream, piece_layer
from .progress import Progress, counter
from .torrent import SHA1_BYTES, Half, TorrentFile
from .walk import FoundFile

_UNKNOWN, _OFFICIAL, _DIFFERS = range(3)
_MAX_NAMED = 8


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a torrent is compared with: the manifest's files, and those official ones at hand.

    ``beside`` are other files, by name, that may lie between them in the torrent: the manifest's
    own and what else lies in the official folder. Nothing vouches for them.
    """

    entries: Mapping[str, ManifestFile]
    official: Mapping[str, FoundFile] = field(default_factory=dict)
    beside: Mapping[str, FoundFile] = field(default_factory=dict)

    def length(self, name: str) -> int | None:
        """Return how many bytes a file has, if that is known."""
        size = self.entries[name].size
        return self.official[name].size if size is None and name in self.official else size

    def root(self, name: str) -> bytes | None:
        """Return a file's Merkle root as it was signed, if it was."""
        signed = self.entries[name].bt2_root
        return bytes.fromhex(signed) if signed else None


@dataclass(frozen=True, slots=True)
class Pieces:
    """How many pieces that a file lies in are official, differ, and are there."""

    official: int
    differ: int
    total: int

    def __str__(self) -> str:
        return f"{self.official:,} of {self.total:,} pieces official"


@dataclass(slots=True)
class Told:
    """What one half says of one file."""

    status: FileStatus
    pieces: Pieces | None = None
    ranges: tuple[Range, ...] = ()


class V1:
    """The v1 half: ``named`` gives the checkpoint's name of each path, ``beside`` other bytes."""

    def __init__(
        self,
        half: Half,
        piece_length: int,
        checkpoint: Checkpoint,
        named: Mapping[str, str],
        beside: Mapping[str, FoundFile],
    ) -> None:
        self.half = half
        self.length = piece_length
        self.checkpoint = checkpoint
        self.named = named
        self.beside = beside
        self.spans = list(_spans(half))
        self.owners = _Owners(self.spans, piece_length)
        self.told: dict[str, Told] = {}
        self.states = bytearray()
        self.bytes_read = 0

    def tell(self, progress: Progress) -> dict[str, Told]:
        """Hash the pieces that are known, and say what they tell of each file.

        Raises:
            ReadError: an official file cannot be read, or is not what it was.
        """
        self.states = self._piece_states(progress)
        for start, file in self.spans:
            name = self.named.get(file.path)
            if name is not None and file.kind != "pad":
                self.told[name] = self._file(name, file, start)
        return self.told

    def accusations(self) -> Iterator[tuple[list[str], str]]:
        """Yield the files that share a differing piece though none of them differs by itself."""
        shared: dict[tuple[str, ...], int] = {}
        for piece, state in enumerate(self.states):
            if state == _DIFFERS:
                files = tuple(self.named[path] for path in self.owners.of(piece))
                if not any(self.told[name].status is FileStatus.DIFFERS for name in files):
                    shared.setdefault(files, piece)
        for sharing, piece in shared.items():
            listed = ", ".join(shown(name) for name in sharing[:_MAX_NAMED])
            more = f" and {len(sharing) - _MAX_NAMED:,} more" if len(sharing) > _MAX_NAMED else ""
            message = f"One of {listed}{more} differs: they share piece {piece:,}."
            if not sharing:
                message = f"Piece {piece:,} holds only padding, and is not zeros."
            yield list(sharing), message

    def _regions(self) -> Iterator[Region]:
        """Yield what is known of the joined files: a longer file may begin with the official one."""
        for file in self.half.files:
            name = self.named.get(file.path)
            source = self.checkpoint.official.get(name) if name else self.beside.get(file.path)
            if file.kind != "file" or source is None:
                yield Region(file.length, zeros=file.kind == "pad")
                continue
            known = min(file.length, source.size)
            yield Region(known, source)
            yield Region(file.length - known)

    def _piece_states(self, progress: Progress) -> bytearray:
        stream = Stream(self._regions(), self.length)
        states = bytearray(stream.count)
        if not self.checkpoint.official:
            return states
        total = min(sum(map(len, stream.known_runs())) * self.length, stream.total)
        vouched = {path for path, name in self.named.items() if name in self.checkpoint.official}
        for run, digests in hash_stream(stream, counter(progress, "pieces", total)):
            for piece, digest in zip(run, digests, strict=True):
                at = piece * SHA1_BYTES
                if self.half.pieces[at : at + SHA1_BYTES] == digest:
                    states[piece] = _OFFICIAL
                elif vouched.issuperset(self.owners.of(piece)):
                    states[piece] = _DIFFERS
        self.bytes_read = total
        return states

    def _file(self, name: str, file: TorrentFile, start: int) -> Told:
        size = self.checkpoint.length(name)
        if file.kind == "link":
            return Told(FileStatus.REFUSED)
        if size is None:
            return Told(FileStatus.CANNOT_BE_TOLD)
        if not file.length:
            return Told(FileStatus.DIFFERS if size else FileStatus.OFFICIAL)
        first, last = start // self.length, (start + file.length - 1) // self.length
        found = self.states[first : last + 1]
        pieces = Pieces(found.count(_OFFICIAL), found.count(_DIFFERS), len(found))
        ranges = [
            (max(p * self.length - start, 0), min((p + 1) * self.length - start, file.length))
            for p in range(first, last + 1)
            if self.states[p] == _DIFFERS and self.owners.of(p) == [file.path]
        ]
        if file.length != size or ranges:
            return Told(FileStatus.DIFFERS, pieces, merge(ranges))
        official = pieces.official == pieces.total
        return Told(FileStatus.OFFICIAL if official else FileStatus.CANNOT_BE_TOLD, pieces)


class V2:
    """The v2 half: a tree per file, compared by its root with what was signed, or over bytes."""

    def __init__(
        self, half: Half, piece_length: int, checkpoint: Checkpoint, progress: Progress
    ) -> None:
        self.half = half
        self.length = piece_length
        self.checkpoint = checkpoint
        self.progress = progress
        self.layers: dict[str, bytes] = {}
        self.bytes_read = 0

    def tell(self, named: Mapping[str, str]) -> dict[str, Told]:
        """Say what the half tells of each file; ``named`` gives the checkpoint's name of a path.

        Raises:
            ReadError: an official file cannot be read, or is not what it was.
        """
        files = self.half.real
        return {name: self._file(name, files[path]) for path, name in named.items()}

    def _file(self, name: str, file: TorrentFile) -> Told:
        size = self.checkpoint.length(name)
        if file.kind == "link":
            return Told(FileStatus.REFUSED)
        if size is None:
            return Told(FileStatus.CANNOT_BE_TOLD)
        total = -(-file.length // self.length)
        if file.length != size:
            return Told(FileStatus.DIFFERS, Pieces(0, 0, total))
        if not size:
            return Told(FileStatus.OFFICIAL)
        root = self.checkpoint.root(name) or self._root(name, total)
        if root is None:
            return Told(FileStatus.CANNOT_BE_TOLD, Pieces(0, 0, total))
        if root == file.root:
            return Told(FileStatus.OFFICIAL, Pieces(total, 0, total))
        return self._differs(name, file, total)

    def _differs(self, name: str, file: TorrentFile, total: int) -> Told:
        """Say which pieces differ, where the official bytes and the torrent's layer are there."""
        if total == 1:
            return Told(FileStatus.DIFFERS, Pieces(0, 1, 1), ((0, file.length),))
        theirs = (self.half.layers or {}).get(file.root or b"", b"")
        if name not in self.checkpoint.official or len(theirs) != total * DIGEST_BYTES:
            return Told(FileStatus.DIFFERS)
        ours = self._layer(name)
        ranges = [
            (piece * self.length, min((piece + 1) * self.length, file.length))
            for piece, at in enumerate(range(0, len(ours), DIGEST_BYTES))
            if ours[at : at + DIGEST_BYTES] != theirs[at : at + DIGEST_BYTES]
        ]
        pieces = Pieces(total - len(ranges), len(ranges), total)
        return Told(FileStatus.DIFFERS, pieces, merge(ranges))

    def _root(self, name: str, total: int) -> bytes | None:
        if name not in self.checkpoint.official:
            return None
        layer = self._layer(name)
        return layer if total == 1 else root_of_layer(layer, self.length)

    def _layer(self, name: str) -> bytes:
        if name not in self.layers:
            file = self.checkpoint.official[name]
            advance = counter(self.progress, f"tree of {shown(name)}", file.size)
            self.layers[name] = piece_layer(file, self.length, advance)
            self.bytes_read += file.size
        return self.layers[name]


class _Owners:
    """Which files a piece of the joined files touches; pads and empty files are nobody's."""

    def __init__(self, spans: list[tuple[int, TorrentFile]], piece_length: int) -> None:
        real = [(start, f) for start, f in spans if f.length and f.kind != "pad"]
        self.starts = [start for start, _ in real]
        self.ends = [start + file.length for start, file in real]
        self.paths = [file.path for _, file in real]
        self.length = piece_length

    def of(self, piece: int) -> list[str]:
        """Return the paths of the files that ``piece`` touches, in order."""
        start, end = piece * self.length, (piece + 1) * self.length
        return self.paths[bisect_right(self.ends, start) : bisect_left(self.starts, end)]


def _spans(half: Half) -> Iterator[tuple[int, TorrentFile]]:
    """Yield each file with where it begins in the joined files."""
    at = 0
    for file in half.files:
        yield at, file
        at += file.length
