"""Compare the files of a copy with the manifest: which are there, byte for byte, and where not.

Leaves are compared where the manifest has them: they prove the file, since whole digest and leaves
were signed together, and they say which 4 MiB differ. Otherwise the whole SHA-256 decides.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from . import causes, engine, names, oms
from .digests import LEAF_BYTES
from .findings import Code, FileResult, FileStatus, Finding, Range
from .manifest import ManifestFile
from .progress import Progress, counter
from .readers import is_weight_file
from .resume import Journal
from .serialization import differing, is_sharded
from .walk import ChangedError, FoundFile, Listing, check_unchanged


@dataclass(slots=True)
class FilesCheck:
    """What became of each file: the manifest's first, then what it does not list."""

    results: list[FileResult] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def named(self, *statuses: FileStatus) -> list[FileResult]:
        """Return the results with one of ``statuses``."""
        return [result for result in self.results if result.status in statuses]


@dataclass(slots=True)
class Hasher:
    """The digest engine with a memory, so that several manifests cost one read of the copy."""

    kinds: tuple[str, ...]
    whole: bool
    progress: Progress
    journal: Journal | None = None
    bytes_read: int = 0
    _known: dict[engine.Job, engine.Digests] = field(default_factory=dict)

    def job(
        self, file: FoundFile, entry: ManifestFile, sizes: Collection[int | None] = ()
    ) -> engine.Job:
        """Return what must be hashed of ``file`` to compare it with ``entry``.

        Not more than the entry has bytes, unless ``file`` has one of the other official ``sizes``
        and may be another official file.
        """
        leaves = entry.leaf_list(self.kinds)
        longer = entry.size is not None and file.size > entry.size and file.size not in sizes
        return self.job_of(
            file,
            leaves.kind if leaves else None,
            entry.algorithm if leaves is None or self.whole else None,
            entry.size if longer else None,
        )

    def job_of(
        self, file: FoundFile, leaves: str | None, whole: str | None, limit: int | None = None
    ) -> engine.Job:
        """Return the one job for these digests; the same for every manifest, so done once."""
        if self.whole and whole is None:
            whole = "sha256"
        return engine.Job(
            file,
            leaf_kinds=(leaves,) if leaves else (),
            whole_kinds=(whole,) if whole else (),
            limit=limit,
        )

    def adopt(self, job: engine.Job, kind: str, leaves: bytes) -> None:
        """Take ``leaves`` that another process of ours read as what ``job`` would find.

        They count only where they are all that the job asks for and the file is still the same.
        """
        if job.whole_kinds or job.leaf_kinds != (kind,) or job.size != job.file.size:
            return
        try:
            check_unchanged(job.file)
        except ChangedError:
            return
        self._known[job] = engine.Digests(job, {kind: bytearray(leaves)})

    def run(self, jobs: Iterable[engine.Job]) -> Mapping[engine.Job, engine.Digests]:
        """Do those of ``jobs`` that were not done before; return all that is known."""
        todo = [job for job in jobs if job not in self._known]
        tell = counter(self.progress, "files", sum(job.work for job in todo))

        def advance(more: int) -> None:
            self.bytes_read += more
            tell(more)

        for result in engine.run(todo, advance, journal=self.journal):
            self._known[result.job] = result
        return self._known


def check_files(
    listing: Listing, files: Mapping[str, ManifestFile], hasher: Hasher, *, only: bool = False
) -> FilesCheck:
    """Compare ``listing`` with the manifest's ``files``.

    With ``only``, where one file is looked at, the others are not missing.
    """
    check = FilesCheck()
    refused = {finding.path: finding for finding in listing.findings}
    sizes = {entry.size for entry in files.values()}
    jobs = {
        name: hasher.job(listing.files[name], entry, sizes)
        for name, entry in files.items()
        if name in listing.files and not _length_decides(listing.files[name], entry, hasher)
    }
    known = hasher.run(jobs.values())
    evidence = causes.Evidence(listing, files)
    for name, entry in files.items():
        if name in jobs:
            _compare(check, entry, known[jobs[name]], evidence)
        elif name in listing.files:
            _length_differs(check, entry, listing.files[name], evidence)
        elif name in refused:
            check.results.append(FileResult(name, None, FileStatus.REFUSED, entry.size))
        elif not only:
            _missing(check, entry, evidence)
    check.findings += listing.findings
    _add_unlisted(check, listing, files)
    return check


def without_ignored(
    listing: Listing, statement: oms.Statement, files: Mapping[str, ManifestFile]
) -> Listing:
    """Leave out what ``statement`` says to skip: names at the top and all below them.

    Where it lists shards, it has none for a file of no bytes; such files are left out too.
    """
    skipped = frozenset(oms.GIT_PATHS) | {path.strip("/") for path in statement.ignore_paths}
    sharded = is_sharded(statement.serialization.algorithm)

    def is_skipped(name: str) -> bool:
        if name in files:
            return False
        if sharded and name in listing.files and listing.files[name].size == 0:
            return True
        parts = name.split("/")
        return any("/".join(parts[:depth]) in skipped for depth in range(1, len(parts) + 1))

    return Listing(
        root=listing.root,
        files={name: file for name, file in listing.files.items() if not is_skipped(name)},
        findings=[finding for finding in listing.findings if not is_skipped(finding.path)],
        truncated=listing.truncated,
    )


def _length_decides(file: FoundFile, entry: ManifestFile, hasher: Hasher) -> bool:
    """Tell whether a wrong length is all that could be learned: there are no leaves to compare."""
    no_leaves = entry.leaf_list(hasher.kinds) is None and not is_sharded(entry.algorithm)
    return no_leaves and entry.size is not None and entry.size != file.size


def _compare(
    check: FilesCheck, entry: ManifestFile, found: engine.Digests, evidence: causes.Evidence
) -> None:
    file = found.job.file
    if found.error is not None:
        code = Code.CHANGED if _is_change(found.error) else Code.UNREADABLE
        message = f"{names.shown(file.name)} was refused: {found.error.message}."
        check.findings.append(Finding(code, file.name, message))
        check.results.append(FileResult(file.name, file.size, FileStatus.REFUSED, entry.size))
        return
    kind = found.job.leaf_kinds[0] if found.job.leaf_kinds else None
    ranges: tuple[Range, ...] = ()
    digests = b""
    if kind is None:
        expected = file.size if entry.size is None else entry.size
        digest = found.whole[entry.algorithm]
        ranges = differing(entry.algorithm, entry.whole, digest, (expected, file.size))
    else:
        digests = bytes(found.leaves[kind])
        ranges = _bad_ranges(file, entry, kind, digests)
        if not ranges and found.whole and found.whole["sha256"] != entry.sha256:
            ranges = _whole_differs(check, entry, file)
    if ranges:
        _damaged(check, entry, file, ranges, evidence.of_damage(file, entry, kind, digests))
    else:
        check.results.append(FileResult(file.name, file.size, FileStatus.GOOD, entry.size))


def _bad_ranges(file: FoundFile, entry: ManifestFile, kind: str, found: bytes) -> tuple[Range, ...]:
    """Return the bytes that differ, at the precision of a leaf."""
    leaves = entry.leaf_list((kind,))
    assert leaves is not None
    expected = entry.size or 0
    spans = [
        (i * LEAF_BYTES, min((i + 1) * LEAF_BYTES, expected)) for i in leaves.bad_leaves(found)
    ]
    if file.size > expected:
        spans.append((expected, file.size))
    return merge(spans)


def _whole_differs(check: FilesCheck, entry: ManifestFile, file: FoundFile) -> tuple[Range, ...]:
    """With ``--whole``: note that the leaves agree and the whole digest, which was signed, not."""
    message = (
        f"{names.shown(entry.name)} has its signed leaves but not its signed SHA-256: "
        "the manifest contradicts itself; ask its publisher."
    )
    check.findings.append(Finding(Code.WHOLE_DIFFERS, entry.name, message))
    return ((0, max(file.size, 1)),)


def _damaged(
    check: FilesCheck,
    entry: ManifestFile,
    file: FoundFile,
    ranges: tuple[Range, ...],
    guess: causes.Guess | None,
) -> None:
    shown = ", ".join(f"[{start:,}, {end:,})" for start, end in ranges[:3])
    more = f" and {len(ranges) - 3} more ranges" if len(ranges) > 3 else ""
    why = f": {guess.sentence}" if guess else ""
    if not why and entry.size is not None and entry.size != file.size:
        why = f": it has {file.size:,} bytes instead of {entry.size:,}"
    message = f"{names.shown(file.name)} differs in bytes {shown}{more}{why}."
    cause = guess.cause if guess else None
    check.findings.append(Finding(Code.DAMAGED, file.name, message, ranges, cause))
    check.results.append(FileResult(file.name, file.size, FileStatus.DAMAGED, entry.size, ranges))


def _length_differs(
    check: FilesCheck, entry: ManifestFile, file: FoundFile, evidence: causes.Evidence
) -> None:
    ranges = ((0, max(file.size, entry.size or 0)),)
    _damaged(check, entry, file, ranges, evidence.of_damage(file, entry, None, b""))


def _missing(check: FilesCheck, entry: ManifestFile, evidence: causes.Evidence) -> None:
    guess = evidence.of_absence(entry.name)
    why = f": {guess.sentence}" if guess else ""
    message = f"{names.shown(entry.name)} is missing{why}."
    cause = guess.cause if guess else None
    check.findings.append(Finding(Code.MISSING, entry.name, message, cause=cause))
    check.results.append(FileResult(entry.name, entry.size, FileStatus.MISSING, entry.size))


def _add_unlisted(check: FilesCheck, listing: Listing, files: Mapping[str, ManifestFile]) -> None:
    for name, file in listing.files.items():
        if name not in files:
            kind = "weight file " if is_weight_file(name) else ""
            message = f"The {kind}{names.shown(name)} is not in the manifest."
            if not kind:
                message = f"{names.shown(name)} is not in the manifest."
            check.findings.append(Finding(Code.UNLISTED, name, message))
            check.results.append(FileResult(name, file.size, FileStatus.UNLISTED))


def _is_change(error: Exception) -> bool:
    return isinstance(error, ChangedError)


def merge(spans: Sequence[Range]) -> tuple[Range, ...]:
    """Join ranges, given in order, that touch."""
    merged: list[Range] = []
    for start, end in spans:
        if merged and merged[-1][1] >= start:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)
