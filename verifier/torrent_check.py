"""Judge a torrent: which of its files are those of the checkpoint, without downloading it.

Names and lengths come first and cost nothing. A v2 half is judged by the Merkle roots that the
manifest signed, or over official bytes. A v1 half needs the official bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .findings import Code, FileResult, FileStatus, Finding, Range, Verdict
from .manifest import BUNDLE_NAME, SIDE_FOLDER
from .names import shown
from .progress import Progress
from .readers import is_weight_file
from .torrent import Half, Torrent
from .torrent_halves import V1, V2, Checkpoint, Pieces, Told
from .torrent_match import Match, Wanted, full_paths, match
from .walk import FoundFile, check_unchanged

_WORST = (
    FileStatus.DIFFERS,
    FileStatus.REFUSED,
    FileStatus.MISSING,
    FileStatus.CANNOT_BE_TOLD,
    FileStatus.OFFICIAL,
)


@dataclass(frozen=True, slots=True)
class TorrentFileResult(FileResult):
    """One file of the checkpoint or of the torrent: where it lies in it, and its pieces by half."""

    in_torrent: str | None = None
    pieces: Mapping[str, Pieces] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the file as the report spells it."""
        pieces = {
            half: {"official": p.official, "differ": p.differ, "total": p.total}
            for half, p in self.pieces.items()
        }
        return FileResult.as_json(self) | {"in_torrent": self.in_torrent, "pieces": pieces}


@dataclass(slots=True)
class Judgement:
    """What became of each file, and of the torrent as a whole."""

    verdict: Verdict = Verdict.UNDETERMINED
    results: list[FileResult] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    refusals: list[Finding] = field(default_factory=list)
    bytes_read: int = 0


def judge(torrent: Torrent, checkpoint: Checkpoint, progress: Progress) -> Judgement:
    """Compare ``torrent`` with ``checkpoint``.

    Raises:
        ReadError: an official file cannot be read, or changed meanwhile.
    """
    return _Judge(torrent, checkpoint, progress).run()


class _Judge:
    """One torrent and one checkpoint."""

    def __init__(self, torrent: Torrent, checkpoint: Checkpoint, progress: Progress) -> None:
        self.torrent = torrent
        self.checkpoint = checkpoint
        self.progress = progress
        self.full = full_paths(torrent)
        self.beside: dict[str, FoundFile] = {}
        self.out = Judgement()
        wanted = {n: Wanted(checkpoint.length(n), checkpoint.root(n)) for n in checkpoint.entries}
        self.matches, folder = match(torrent, wanted)
        self.folder = "".join(f"{part}/" for part in folder)

    def run(self) -> Judgement:
        """Judge each half, then each file, then the whole."""
        told = {f"v{half.version}": self._half(half) for half in self.torrent.halves}
        for file in (*self.checkpoint.official.values(), *self.beside.values()):
            check_unchanged(file)
        self._drop_accidents(told)
        for name in self.checkpoint.entries:
            self._file(name, {half: found.get(name) for half, found in told.items()})
        self._unlisted()
        self._oddities()
        self.out.verdict = self._verdict()
        return self.out

    def _half(self, half: Half) -> dict[str, Told]:
        """Return what ``half`` says of each file of the checkpoint that it has."""
        length, real = self.torrent.piece_length, half.real
        inner = {path: path.removeprefix(f"{self.torrent.name}/") for path in self.full}
        named = {inner[found.path]: name for name, found in self.matches.items()}
        named = {path: name for path, name in named.items() if path in real}
        if half.layers is not None:
            v2 = V2(half, length, self.checkpoint, self.progress)
            told = v2.tell(named)
            self.out.bytes_read += v2.bytes_read
            return told
        at_hand = self.checkpoint.beside
        self.beside = {
            inner[path]: at_hand[name]
            for path in self.full
            if (name := self._beside(path)) in at_hand
        }
        v1 = V1(half, length, self.checkpoint, named, self.beside)
        told = v1.tell(self.progress)
        self.out.bytes_read += v1.bytes_read
        for names, message in v1.accusations():
            strangers = [name for name in names if self.matches[name].by == "length"]
            for name in strangers:
                told[name].status = FileStatus.DIFFERS  # all evidence for it was its length
            if not strangers:
                self._note(Code.TORRENT_DIFFERS, "", message)
        return told

    def _beside(self, path: str) -> str:
        """Return the name of a file of the torrent in the checkpoint's folder, else nothing."""
        return path.removeprefix(self.folder) if path.startswith(self.folder) else ""

    # each file, and the whole

    def _drop_accidents(self, told: Mapping[str, Mapping[str, Told]]) -> None:
        """Forget matches by length alone that turned out to be other files."""
        for name, found in list(self.matches.items()):
            halves = [half[name] for half in told.values() if name in half]
            differs = any(half.status is FileStatus.DIFFERS for half in halves)
            if found.by == "length" and differs:
                del self.matches[name]

    def _file(self, name: str, told: Mapping[str, Told | None]) -> None:
        """Put together what the halves say of one file."""
        found, size = self.matches.get(name), self.checkpoint.length(name)
        if found is None:
            self._note(Code.MISSING, name, f"{shown(name)} is not in the torrent.")
            self.out.results.append(TorrentFileResult(name, size, FileStatus.MISSING, size))
            return
        by_half = {key: half or Told(FileStatus.MISSING) for key, half in told.items()}
        statuses = {half.status for half in by_half.values()}
        one_told = statuses == {FileStatus.OFFICIAL, FileStatus.CANNOT_BE_TOLD}
        if one_told and name not in self.checkpoint.official:
            statuses = {FileStatus.OFFICIAL}  # the v1 half needs bytes; a finding says so
        result = TorrentFileResult(
            name,
            self.full[found.path].length,
            next(status for status in _WORST if status in statuses),
            size,
            max((half.ranges for half in by_half.values()), key=len),
            in_torrent=found.path,
            pieces={key: half.pieces for key, half in by_half.items() if half.pieces},
        )
        self.out.results.append(result)
        self._explain(result, found)

    def _explain(self, result: TorrentFileResult, found: Match) -> None:
        """Add the findings on one file that is in the torrent."""
        name, called = result.path, shown(result.path)
        counts = "; ".join(f"{half}: {pieces}" for half, pieces in result.pieces.items())
        if found.moved:
            where = f"{called} is {shown(found.path)} in the torrent."
            self._note(Code.TORRENT_MOVED, name, where)
        if result.status is FileStatus.DIFFERS:
            why = counts or "its Merkle root is not the official one"
            if result.size != result.expected_size:
                why = f"it has {result.size:,} bytes instead of {result.expected_size:,}"
            self._note(Code.TORRENT_DIFFERS, name, f"{called} differs: {why}.", result.ranges)
        elif result.status is FileStatus.REFUSED:
            self._note(Code.LINK, name, f"{called} is a link in the torrent, which has no bytes.")
        elif result.status is FileStatus.MISSING:
            self._note(Code.MISSING, name, f"{called} is in one half of the torrent only.")
        elif result.status is FileStatus.CANNOT_BE_TOLD:
            at_hand = name in self.checkpoint.official
            why = counts if at_hand else "its official bytes are not at hand (--official DIR)"
            self._note(Code.TORRENT_NOT_TOLD, name, f"{called} cannot be told: {why}.")

    def _unlisted(self) -> None:
        taken = {found.path for found in self.matches.values()}
        for path, file in self.full.items():
            rest = self._beside(path)
            if path in taken or rest == BUNDLE_NAME or rest.startswith(f"{SIDE_FOLDER}/"):
                continue
            self._note(Code.UNLISTED, path, f"{shown(path)} is not in the manifest.")
            self.out.results.append(
                TorrentFileResult(path, file.length, FileStatus.UNLISTED, in_torrent=path)
            )

    def _oddities(self) -> None:
        """Note what is odd about the torrent itself."""
        if not self.torrent.canonical:
            message = "The torrent's keys are not in order; programs may refuse it."
            self._note(Code.TORRENT_IRREGULAR, "", message)
        for sentence in self.torrent.contradictions:
            message = f"The torrent contradicts itself: {sentence}."
            self.out.refusals.append(self._note(Code.TORRENT_CONTRADICTS, "", message))
        official = (r for r in self.out.results if r.status is FileStatus.OFFICIAL and r.size)
        by_root = any(result.path not in self.checkpoint.official for result in official)
        if len(self.torrent.halves) == 2 and by_root:
            message = (
                "The v1 half cannot be told without the official bytes, and a program that knows "
                "v1 alone trusts only that half."
            )
            self._note(Code.TORRENT_HALF_NOT_TOLD, "", message)

    def _verdict(self) -> Verdict:
        """Return the first that holds."""
        results = [r for r in self.out.results if r.status is not FileStatus.UNLISTED]
        statuses = {result.status for result in results}
        if not any(
            r.status is not FileStatus.MISSING and r.expected_size in (None, r.size)
            for r in results
        ):
            return Verdict.UNRELATED
        differ = any(finding.code is Code.TORRENT_DIFFERS for finding in self.out.findings)
        if differ or FileStatus.REFUSED in statuses:
            return Verdict.DAMAGED
        half_told = any(f.code is Code.TORRENT_HALF_NOT_TOLD for f in self.out.findings)
        if half_told or FileStatus.CANNOT_BE_TOLD in statuses:
            return Verdict.UNDETERMINED  # other bytes may come through the half that is not told
        if FileStatus.MISSING not in statuses:
            return Verdict.IDENTICAL
        return Verdict.UNDETERMINED if self._other_weights(results) else Verdict.INCOMPLETE

    def _other_weights(self, results: list[FileResult]) -> bool:
        """Tell whether weight files are missing, and others lie beside what is there."""
        missing = any(r.status is FileStatus.MISSING and is_weight_file(r.path) for r in results)
        return missing and any(
            r.status is FileStatus.UNLISTED and is_weight_file(self._beside(r.path))
            for r in self.out.results
        )

    def _note(self, code: Code, path: str, message: str, ranges: tuple[Range, ...] = ()) -> Finding:
        finding = Finding(code, path, message, ranges)
        self.out.findings.append(finding)
        return finding
