"""Which file of a torrent is meant to be which file of a checkpoint.

The checkpoint may lie in a folder of any name, below another, or be a part of a larger torrent. The
folder in which most of its names lie is taken first; then the longest common end of a path, an
equal Merkle root, and a length that only one file on each side has.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile

from .torrent import Torrent, TorrentFile

_MAX_ALIKE = 100
"""Files of one name that are looked at; a checkpoint's size comes in fewer."""


@dataclass(frozen=True, slots=True)
class Match:
    """A file of the torrent for a file of the checkpoint; ``by`` is ``name``, ``root``, ``length``.

    ``moved``: it does not lie where the others do, or has another name.
    """

    path: str
    by: str
    moved: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is known of a file of the checkpoint: length in bytes and Merkle root, where known."""

    length: int | None
    root: bytes | None = None


def match(
    torrent: Torrent, wanted: Mapping[str, Wanted]
) -> tuple[dict[str, Match], tuple[str, ...]]:
    """Return the match of each file of ``wanted`` that has one, and the folder of most of them.

    Paths begin with the torrent's own name unless it is a single file.
    """
    matcher = _Matcher(full_paths(torrent), wanted)
    matcher.by_folder()
    matcher.by_path()
    matcher.by_root()
    matcher.by_length()
    return matcher.found, matcher.folder


def full_paths(torrent: Torrent) -> dict[str, TorrentFile]:
    """Return the files of ``torrent`` by the path where a download puts them."""
    if torrent.single:
        return torrent.files
    return {f"{torrent.name}/{path}": file for path, file in torrent.files.items()}


class _Matcher:
    """Files left on each side, and what was found so far."""

    def __init__(self, files: Mapping[str, TorrentFile], wanted: Mapping[str, Wanted]) -> None:
        self.left = dict(files)
        self.wanted = wanted
        self.found: dict[str, Match] = {}
        self.folder: tuple[str, ...] = ()

    def by_folder(self) -> None:
        """Take the folder below which most names, and lengths, are those of the checkpoint."""
        score: Counter[tuple[str, ...]] = Counter()
        last = {_last(name) for name in self.wanted}
        for path, file in self.left.items():
            parts = tuple(path.split("/"))
            for at in range(len(parts) if parts[-1] in last else 0):
                name = "/".join(parts[at:])
                if name in self.wanted:
                    fits = self.wanted[name].length == file.length
                    score[parts[:at]] += len(self.wanted) + 1 if fits else 1
        if not score:
            return
        self.folder = min(score, key=lambda folder: (-score[folder], len(folder), folder))
        for name in self.wanted:
            path = "/".join((*self.folder, name))
            if path in self.left:
                self._take(name, path, "name")

    def by_path(self) -> None:
        """Take, for each file left, the file whose path has the longest end in common with it."""
        alike: defaultdict[str, list[str]] = defaultdict(list)
        for path in self.left:
            alike[_last(path)].append(path)
        for name in self._missing():
            there = [path for path in alike[_last(name)][:_MAX_ALIKE] if path in self.left]
            if there:
                self._take(name, min(there, key=lambda p: self._distance(name, p)), "name")

    def by_root(self) -> None:
        """Take files with an official Merkle root, whatever they are called."""
        roots = {file.root: path for path, file in self.left.items() if file.root}
        for name in self._missing():
            root = self.wanted[name].root
            if root in roots and roots[root] in self.left:
                self._take(name, roots[root], "root")

    def by_length(self) -> None:
        """Take files whose length no other file that is left has, on either side."""
        lengths = Counter(file.length for file in self.left.values())
        others = Counter(self.wanted[name].length for name in self._missing())
        unique = {f.length: path for path, f in self.left.items() if lengths[f.length] == 1}
        for name in self._missing():
            length = self.wanted[name].length
            if length and others[length] == 1 and length in unique:
                self._take(name, unique[length], "length")

    def _missing(self) -> list[str]:
        return [name for name in self.wanted if name not in self.found]

    def _distance(self, name: str, path: str) -> tuple[bool, int, bool, int, str]:
        """Order candidates: official root, longest common end, right length, near the others."""
        file, wanted = self.left[path], self.wanted[name]
        parts = path.split("/")
        end = _common(reversed(parts), reversed(name.split("/")))
        right_root = file.root is not None and file.root == wanted.root
        near = _common(parts, self.folder)
        return not right_root, -end, file.length != wanted.length, -near, path

    def _take(self, name: str, path: str, by: str) -> None:
        moved = path != "/".join((*self.folder, name))
        self.found[name] = Match(path, by, moved)
        del self.left[path]


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _common(first: Iterable[str], second: Iterable[str]) -> int:
    """Return how many parts are equal before the first that is not."""
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
