"""Compare the files of a copy with the manifest: which are there, byte for byte, and where not.

Leaves are compared where the manifest has them: they prove the file, since whole digest and leaves
were signed together, and they say which 4 MiB differ. Otherwise the whole SHA-256 decides.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from . import causes, engine, names
from .digests import DIGEST_BYTES, LEAF_BYTES, LeafList
from .findings import Cause, Code, FileResult, FileStatus, Finding, Range
from .manifest import ManifestFile
from .progress import Progress, counter
from .readers import is_weight_file
from .resume import Journal
from .walk import FoundFile, Listing


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

    def job(self, file: FoundFile, entry: ManifestFile) -> engine.Job:
        """Return what must be hashed of ``file`` to compare it with ``entry``."""
        leaves = entry.leaf_list(self.kinds)
        return engine.Job(
            file,
            leaf_kinds=(leaves.kind,) if leaves else (),
            whole_kinds=(entry.algorithm,) if leaves is None or self.whole else (),
            limit=entry.size,
        )

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
    jobs = {
        name: hasher.job(listing.files[name], entry)
        for name, entry in files.items()
        if name in listing.files and not _length_decides(listing.files[name], entry, hasher)
    }
    known = hasher.run(jobs.values())
    for name, entry in files.items():
        if name in jobs:
            _compare(check, entry, known[jobs[name]])
        elif name in listing.files:
            _length_differs(check, entry, listing.files[name])
        elif name in refused:
            check.results.append(FileResult(name, None, FileStatus.REFUSED, entry.size))
        elif not only:
            _missing(check, entry)
    check.findings += listing.findings
    _add_unlisted(check, listing, files)
    return check


def _length_decides(file: FoundFile, entry: ManifestFile, hasher: Hasher) -> bool:
    """Tell whether a wrong length is all that could be learned: there are no leaves to compare."""
    no_leaves = entry.leaf_list(hasher.kinds) is None
    return no_leaves and entry.size is not None and entry.size != file.size


def _compare(check: FilesCheck, entry: ManifestFile, found: engine.Digests) -> None:
    file = found.job.file
    if found.error is not None:
        code = Code.CHANGED if _is_change(found.error) else Code.UNREADABLE
        message = f"{names.shown(file.name)} was refused: {found.error.message}."
        check.findings.append(Finding(code, file.name, message))
        check.results.append(FileResult(file.name, file.size, FileStatus.REFUSED, entry.size))
        return
    kind = found.job.leaf_kinds[0] if found.job.leaf_kinds else None
    if kind is None:
        same = found.whole[entry.algorithm] == entry.whole
        ranges: tuple[Range, ...] = () if same else ((0, max(file.size, entry.size or 0)),)
        cause = None if same else causes.from_start(file)
    else:
        leaves = entry.leaf_list((kind,))
        assert leaves is not None
        ranges, cause = _compare_leaves(file, entry, leaves, bytes(found.leaves[kind]))
        if not ranges and found.whole and found.whole["sha256"] != entry.sha256:
            ranges = _whole_differs(check, entry, file)
    if ranges:
        _damaged(check, entry, file, ranges, cause)
    else:
        check.results.append(FileResult(file.name, file.size, FileStatus.GOOD, entry.size))


def _compare_leaves(
    file: FoundFile, entry: ManifestFile, leaves: LeafList, found: bytes
) -> tuple[tuple[Range, ...], Cause | None]:
    expected = entry.size or 0
    bad = leaves.bad_leaves(found)
    spans = [(i * LEAF_BYTES, min((i + 1) * LEAF_BYTES, expected)) for i in bad]
    if file.size > expected:
        spans.append((expected, file.size))
    if not spans:
        return (), None
    cause = causes.from_length(file.size, expected, bad) or causes.from_start(file)
    if cause is None and bad and all(_is_zero(leaves.kind, found, i, file.size) for i in bad):
        cause = Cause.ZEROS
    return merge(spans), cause


def _is_zero(kind: str, found: bytes, leaf: int, size: int) -> bool:
    digest = found[leaf * DIGEST_BYTES : (leaf + 1) * DIGEST_BYTES]
    return digest == _zero_digest(kind, max(0, min(LEAF_BYTES, size - leaf * LEAF_BYTES)))


@cache
def _zero_digest(kind: str, size: int) -> bytes:
    from .digests import leaf_digest

    return leaf_digest(kind, memoryview(bytes(size)), single=True)


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
    cause: Cause | None,
) -> None:
    shown = ", ".join(f"[{start:,}, {end:,})" for start, end in ranges[:3])
    more = f" and {len(ranges) - 3} more ranges" if len(ranges) > 3 else ""
    why = f": {causes.SENTENCES[cause]}" if cause else ""
    if not why and entry.size is not None and entry.size != file.size:
        why = f": it has {file.size:,} bytes instead of {entry.size:,}"
    message = f"{names.shown(file.name)} differs in bytes {shown}{more}{why}."
    check.findings.append(Finding(Code.DAMAGED, file.name, message, ranges, cause))
    check.results.append(FileResult(file.name, file.size, FileStatus.DAMAGED, entry.size, ranges))


def _length_differs(check: FilesCheck, entry: ManifestFile, file: FoundFile) -> None:
    expected = entry.size or 0
    cause = causes.from_start(file) or causes.from_length(file.size, expected, ())
    _damaged(check, entry, file, ((0, max(file.size, expected)),), cause)


def _missing(check: FilesCheck, entry: ManifestFile) -> None:
    message = f"{names.shown(entry.name)} is missing."
    check.findings.append(Finding(Code.MISSING, entry.name, message))
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
    from .walk import ChangedError

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
