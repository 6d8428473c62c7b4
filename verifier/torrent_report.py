"""The report on a torrent or a magnet link: the same schema, and what only torrents have."""

from dataclasses import dataclass, field
from typing import Any

from .findings import Code, FileResult, FileStatus, Verdict
from .names import shown
from .report import Report

MEANINGS = {
    Verdict.UNTRUSTED: "the manifest cannot be trusted, so the torrent was not compared with it",
    Verdict.IDENTICAL: "every file of the checkpoint is in this torrent, byte for byte",
    Verdict.INCOMPLETE: "what this torrent has of the checkpoint is official; files are missing",
    Verdict.DAMAGED: "this torrent is not the official checkpoint: files in it differ",
    Verdict.UNRELATED: "no file of this torrent has a name and length of the checkpoint",
    Verdict.UNDETERMINED: "nothing here can say whether this is the official checkpoint",
}

_UNSIGNED = "every file of this torrent matches the list, which nobody signed"
_TELLING = (
    Code.TORRENT_DIFFERS,
    Code.LINK,
    Code.TORRENT_NOT_TOLD,
    Code.TORRENT_HALF_NOT_TOLD,
    Code.MISSING,
)


@dataclass(frozen=True, slots=True)
class TorrentReport(Report):
    """One run on one torrent; ``torrent`` is what it says of itself."""

    torrent: dict[str, Any] = field(default_factory=dict)

    @property
    def objection(self) -> str | None:
        """Why the status is 1, or None: one sentence."""
        name = f"The torrent of {shown(self.checkpoint or 'the checkpoint')}"
        if self.verdict is Verdict.UNTRUSTED:
            return self.findings[0].message
        if self.verdict not in self.accepted:
            found = {finding.code: finding for finding in reversed(self.findings)}
            telling = next((found[code] for code in _TELLING if code in found), None)
            reason = self.meaning if telling is None else telling.message.rstrip(".")
            if self.verdict is Verdict.UNRELATED:
                reason = self.meaning
            return f"{name} is {self.verdict.value}: {reason}; {self._remedy}."
        if self.refusals:
            return f"{name} is {self.verdict.value}, but {self.refusals[0].message}"
        return None

    @property
    def sentence(self) -> str:
        """The last line on stderr: why, and what to do."""
        if self.objection:
            return self.objection
        name = f"The torrent of {shown(self.checkpoint or 'the checkpoint')}"
        return f"{name} is {self.verdict.value}: {self.meaning}."

    @property
    def meaning(self) -> str:
        """What the verdict says of a torrent."""
        if self.verdict is Verdict.IDENTICAL and not self.manifest.get("signed_by"):
            return _UNSIGNED
        return MEANINGS[self.verdict]

    def as_json(self) -> dict[str, Any]:
        """Return the report as ``weighbridge.report/1``, with ``torrent`` and ``meaning``."""
        return Report.as_json(self) | {"torrent": self.torrent, "meaning": self.meaning}

    def _rungs(self) -> list[tuple[str, str]]:
        signature = Report._rungs(self)[0]
        return [signature, ("torrent", self._title()), ("files", count(self.files))]

    def _title(self) -> str:
        facts = [str(self.torrent.get("version") or "magnet link")]
        facts += [
            f"{key.removeprefix('infohash_')} {self.torrent[key]}"
            for key in ("infohash_v1", "infohash_v2")
            if self.torrent.get(key)
        ]
        return ", ".join(facts)

    @property
    def _remedy(self) -> str:
        """What to do about a verdict that is not accepted."""
        if self.verdict is Verdict.UNDETERMINED:
            if not self.torrent.get("official_files"):
                return "give the folder of official files with --official DIR"
            return "download it and verify the copy"
        if self.verdict is Verdict.INCOMPLETE:
            return "get the missing files elsewhere, or accept it with --accept incomplete"
        return "do not load what it holds"


def count(files: tuple[FileResult, ...]) -> str:
    """Return how many files have which status, in words."""
    counts = {status: sum(file.status is status for file in files) for status in FileStatus}
    words = (f"{n:,} {status.value.replace('-', ' ')}" for status, n in counts.items() if n)
    return ", ".join(words) or "none compared"
