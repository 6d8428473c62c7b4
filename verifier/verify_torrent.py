"""Verify a torrent or a magnet link against a manifest, and against official bytes where given.

manifest → official files (checked by it first) → torrent → verdict. Nothing is downloaded and no
tracker is asked.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import guess, inference_run, magnet, torrent, torrent_check
from .digests import blake3_available
from .errors import InputError
from .files_check import Hasher, check_files
from .findings import Code, FileStatus, Finding, Verdict
from .freshness import Freshness
from .guess import Outcome, Source
from .manifest import BUNDLE_NAME, MAX_SIDE_BYTES, SIDE_FOLDER, Manifest
from .names import shown
from .progress import Progress
from .torrent_check import Judgement, TorrentFileResult
from .torrent_halves import Checkpoint
from .torrent_report import TorrentReport
from .verify import Options, manifest_json, trusted_manifests
from .walk import FoundFile, walk

Judge = Callable[[Manifest, Checkpoint], Judgement]
_MAX_NAMES = 16
_NOT_ASKED = "a torrent has no weights to read"


def verify_source(
    source: Path | str,
    place: Path | None,
    official: Path | None,
    options: Options,
    progress: Progress,
) -> TorrentReport:
    """Verify a torrent (a path) or a magnet link (a text); the rest as :func:`verify_torrent`."""
    verify = verify_magnet if isinstance(source, str) else verify_torrent
    return verify(source, place, official, options, progress)  # type: ignore[arg-type]


def verify_torrent(
    path: Path, place: Path | None, official: Path | None, options: Options, progress: Progress
) -> TorrentReport:
    """Verify the torrent in the file ``path``.

    ``place`` is the folder of the manifest where none is named; ``official`` that of official
    files, which serves as ``place`` too.

    Raises:
        TorrentError: the torrent is malformed or over a limit.
        InputError: there is no manifest, or ``official`` holds no official file.
        ManifestError: the manifest is malformed.
    """
    found = torrent.load(path)
    run = _Run(str(path), place, official, options, progress)
    return run.report(
        lambda _, checkpoint: torrent_check.judge(found, checkpoint, progress), found.as_json()
    )


def verify_magnet(
    uri: str, place: Path | None, official: Path | None, options: Options, progress: Progress
) -> TorrentReport:
    """Say what the magnet link ``uri`` tells: guess the torrent behind its infohash.

    Raises:
        TorrentError: it is no magnet link.
        InputError: there is no manifest, or ``official`` holds no official file.
        ManifestError: the manifest is malformed.
    """
    link = magnet.parse(uri)
    run = _Run(link.plain, place, official, options, progress)
    described: dict[str, Any] = link.as_json()

    def judge(found: Manifest, checkpoint: Checkpoint) -> Judgement:
        folders = [folder for folder in (official, place) if folder is not None]
        outcome = guess.guess(
            link,
            _sources(checkpoint),
            {n: Source(f.size, file=f) for n, f in checkpoint.beside.items()},
            _names(link.name, found.name, folders),
            official,
            progress,
        )
        return _of_guess(outcome, checkpoint, described)

    return run.report(judge, described)


def _sources(checkpoint: Checkpoint) -> dict[str, Source]:
    """Return what is known of the checkpoint's files, or nothing where a length is not known."""
    found = {}
    for name in checkpoint.entries:
        length = checkpoint.length(name)
        if length is None:
            return {}
        found[name] = Source(length, checkpoint.root(name), checkpoint.official.get(name))
    return found


def _own_files(found: Manifest) -> dict[str, FoundFile]:
    """Return the manifest's own files, which may lie in the torrent beside the others."""
    folder = found.location.parent
    if found.location.name != BUNDLE_NAME:
        return {}
    files = walk(folder / SIDE_FOLDER).files if (folder / SIDE_FOLDER).is_dir() else {}
    own = {f"{SIDE_FOLDER}/{name}": file for name, file in files.items()}
    own |= walk(found.location).files
    return {name: file for name, file in own.items() if file.size <= MAX_SIDE_BYTES}


def _names(given: str | None, checkpoint: str, folders: Sequence[Path]) -> list[str]:
    """Return names that a torrent of ``checkpoint`` may have, the likeliest first."""
    version = checkpoint.rpartition("@")[0] or checkpoint
    family, _, variant = version.rpartition("/")
    made = [variant, *(folder.resolve().name for folder in folders), version.replace("/", "-")]
    made += [version.replace("/", "_"), family, checkpoint, version]
    cased = [spelling for name in made for spelling in (name, name.upper(), name.title())]
    return list(dict.fromkeys(filter(None, [given or "", *made, *cased])))[:_MAX_NAMES]


def _of_guess(outcome: Outcome, checkpoint: Checkpoint, described: dict[str, Any]) -> Judgement:
    """Turn what came of guessing into a judgement, and describe the torrent that was found."""
    described["tried"], found = outcome.tried, outcome.guess
    judgement = Judgement(bytes_read=outcome.bytes_read)
    inside = frozenset(found.paths) if found else None
    for name in checkpoint.entries:
        status = FileStatus.CANNOT_BE_TOLD
        if inside is not None:
            status = FileStatus.OFFICIAL if name in inside else FileStatus.MISSING
        size = checkpoint.length(name)
        judgement.results.append(TorrentFileResult(name, size, status, size))
        if status is FileStatus.MISSING:
            message = f"{shown(name)} is not in the torrent."
            judgement.findings.append(Finding(Code.MISSING, name, message))
    if found is None:
        message = _miss(outcome, checkpoint)
        judgement.findings.append(Finding(Code.TORRENT_NOT_TOLD, "", message))
        return judgement
    described |= {"version": found.version, "name": found.name, "keys": list(found.keys)}
    described |= {"piece_length": found.piece_length}
    all_there = frozenset(checkpoint.entries) <= frozenset(found.paths)
    judgement.verdict = Verdict.IDENTICAL if all_there else Verdict.INCOMPLETE
    return judgement


def _miss(outcome: Outcome, checkpoint: Checkpoint) -> str:
    """Say why nothing was found, which proves nothing."""
    if outcome.tried:
        stopped = "" if outcome.complete else ", where trying stopped for its time or number"
        return (
            f"The infohash is of none of {outcome.tried:,} usual torrents of the official files"
            f"{stopped}, which proves nothing."
        )
    if not checkpoint.official:
        return "Nothing could be tried: a v1 infohash needs the official bytes (--official DIR)."
    return "Nothing could be tried: official files are missing, or none have the link's length."


class _Run:
    """What a torrent and a magnet link have in common: the manifest and the official files."""

    def __init__(
        self,
        path: str,
        place: Path | None,
        official: Path | None,
        options: Options,
        progress: Progress,
    ) -> None:
        self.path = path
        self.official = official
        self.options = options
        self.progress = progress
        self.started = time.monotonic()
        self.bytes_read = 0
        place = place or official or (options.manifests[0].parent if options.manifests else None)
        if place is None:
            raise InputError(
                "There is nothing to compare the torrent with; name the manifest with --manifest "
                "FILE, its folder as PATH, or the folder of official files with --official DIR."
            )
        self.place = place

    def report(self, judge: Judge, described: dict[str, Any]) -> TorrentReport:
        """Judge by each manifest that is trusted, and report on the one that fits best."""
        manifests, refused = trusted_manifests(self.place, self.options)
        if not manifests:
            return self._conclude(
                None, Judgement(Verdict.UNTRUSTED, findings=refused[:1]), described
            )
        order = list(Verdict)
        checkpoints = [self._checkpoint(found) for found in manifests]
        if self.official is not None and not any(c.official for c, _ in checkpoints):
            raise InputError(
                f"{shown(str(self.official))} holds no official file of "
                f"{shown(manifests[0].name)}; give the folder with the files that it lists."
            )
        judged = []
        for found, (checkpoint, notes) in zip(manifests, checkpoints, strict=True):
            judgement = judge(found, checkpoint)
            judgement.findings = [*notes, *judgement.findings, *found.findings]
            judged.append((found, judgement, len(checkpoint.official)))
        best = min(judged, key=lambda entry: (order.index(entry[1].verdict), -_official(entry[1])))
        found, judgement, used = best
        trust = self.options.trust
        Freshness(trust.roots, self.options.data, datetime.now(UTC)).remember(found)
        return self._conclude(found, judgement, {**described, "official_files": used})

    def _checkpoint(self, found: Manifest) -> tuple[Checkpoint, list[Finding]]:
        """Return what is known of a checkpoint; official files are checked by its manifest first."""
        own = _own_files(found)
        if self.official is None:
            return Checkpoint(found.files, beside=own), []
        listing = walk(self.official)
        kinds = ("blake3", "sha256") if self.options.digest == "blake3" else ("sha256",)
        hasher = Hasher(
            kinds if blake3_available() else ("sha256",), self.options.whole, self.progress
        )
        check = check_files(listing, found.files, hasher)
        self.bytes_read += hasher.bytes_read
        good = {r.path: listing.files[r.path] for r in check.named(FileStatus.GOOD)}
        findings = [
            Finding(
                Code.OFFICIAL_NOT_USED,
                result.path,
                f"{shown(result.path)} in the official folder is not official, and was not used.",
                result.ranges,
            )
            for result in check.named(FileStatus.DAMAGED, FileStatus.REFUSED)
        ]
        others = {r.path: listing.files[r.path] for r in check.named(FileStatus.UNLISTED)}
        return Checkpoint(found.files, good, {**others, **own}), findings

    def _conclude(
        self, found: Manifest | None, judgement: Judgement, described: dict[str, Any]
    ) -> TorrentReport:
        return TorrentReport(
            path=self.path,
            checkpoint=found.name if found else None,
            verdict=judgement.verdict,
            findings=tuple(judgement.findings),
            files=tuple(judgement.results),
            weights={"status": "not-run", "reason": _NOT_ASKED},
            inference=inference_run.not_run(_NOT_ASKED),
            manifest=manifest_json(found),
            bytes_read=self.bytes_read + judgement.bytes_read,
            seconds=time.monotonic() - self.started,
            accepted=self.options.accepted,
            refusals=tuple(judgement.refusals),
            torrent=described,
        )


def _official(judgement: Judgement) -> int:
    """Return how many bytes of a torrent are official."""
    return sum(r.size or 0 for r in judgement.results if r.status is FileStatus.OFFICIAL)
