"""Mend a copy: find what differs from the signed manifest, fetch just that, replace each file whole.

Every file is put together in a draft beside it (drafts.py) from the leaves that are right and those
that are fetched, each checked against its signed digest before it is written, and takes the old
one's place in one rename. So at every moment, whatever is killed, a name holds either the old file
or the right one; and a rerun takes from the draft what was fetched before.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from verifier import engine, manifest
from verifier.digests import LEAF_BYTES, blake3_available, leaf_count
from verifier.errors import InputError, ManifestError, SignatureError
from verifier.files_check import FilesCheck, Hasher, check_files
from verifier.findings import Code, FileResult, FileStatus
from verifier.freshness import Freshness
from verifier.manifest import BUNDLE_NAME, SIDE_FOLDER, Manifest, ManifestFile
from verifier.names import shown
from verifier.progress import Progress, counter
from verifier.trust import Trust
from verifier.walk import FoundFile, Listing, look_up, resolve_root, walk

from . import catalogue, drafts
from .broken import Broken, lacking_space
from .errors import ClientError
from .leaves import Fetcher, Urls, Wanted
from .site import Site

KINDS = ("blake3", "sha256")


@dataclass(frozen=True, slots=True)
class Request:
    """What the person asked for; without ``site`` a copy can only be found to need nothing."""

    path: Path
    trust: Trust
    site: Site | None = None
    checkpoint: str | None = None
    manifest: Path | None = None
    data: Path | None = None


@dataclass(slots=True)
class Outcome:
    """What was done; ``reasons`` say why not all could be mended, a sentence each."""

    checkpoint: str
    fetched_bytes: int = 0
    fetched_leaves: int = 0
    mended: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        """The last line on stderr."""
        name = shown(self.checkpoint)
        if self.reasons:
            more = f" (and {len(self.reasons) - 1:,} more)" if len(self.reasons) > 1 else ""
            return f"{name} is not whole: {self.reasons[0].rstrip('.')}{more}."
        if not self.mended:
            return f"{name} is identical: nothing needed mending."
        fetched = f"{_count(self.fetched_leaves, 'leaf', 'leaves')} fetched"
        return (
            f"{name} is identical: {_count(len(self.mended), 'file')} mended, {fetched} "
            f"({self.fetched_bytes / 1e6:,.1f} MB)."
        )


def repair(request: Request, progress: Progress) -> Outcome:
    """Make the copy at ``request.path`` what was signed, as far as it can be.

    Raises:
        VerifierError: there is nothing to look at or nothing to trust.
        ClientError: the manifest is needed and cannot be fetched, or nobody said from where.
    """
    if not request.trust:
        asked = request.site.url if request.site else "the publisher"
        raise InputError(
            f"No key is trusted here; ask {asked} for the release key by a way that you trust "
            "and give it with --trusted-key FILE."
        )
    root = resolve_root(request.path)
    single = root.is_file()
    folder = root.parent if single else root
    found = _manifest(request, folder)
    mending = _Mending(request, folder, found, single, root.name, progress)
    return mending.run()


def _manifest(request: Request, folder: Path) -> Manifest:
    """Return the manifest to mend by: the one at hand if it is whole, else the portal's."""
    own, reason = None, ""
    place = request.manifest or folder / BUNDLE_NAME
    try:
        own = manifest.load(place, request.trust)
    except (ManifestError, SignatureError) as error:
        if request.manifest:
            raise
        reason = str(error)
    name = request.checkpoint or (own.name if own else None)
    if own and name == own.name and (request.site is None or not own.findings):
        return _fresh(request, own)
    if name is None:
        raise InputError(
            f"{reason.rstrip('.')}; say which checkpoint this is with --checkpoint NAME "
            "(verify PATH --portal URL finds it out)."
        )
    if request.site is None:
        raise InputError(f"Say where {shown(name)} is published with --portal URL.")
    published = catalogue.one(request.site, name)
    bundle = catalogue.fetch_manifest(request.site, published, catalogue.cache_folder(request.site))
    theirs = manifest.load(bundle, request.trust)
    if theirs.name != name:
        raise SignatureError(
            f"{request.site.origin.host} sent the manifest of {shown(theirs.name)} as {name}."
        )
    if own and own.name == name and (own.revision or 0) > (theirs.revision or 0):
        raise SignatureError(
            f"{request.site.origin.host} has an older revision of {name} than this copy; "
            "write to its operators."
        )
    return _fresh(request, theirs)


def _fresh(request: Request, found: Manifest) -> Manifest:
    """Return ``found`` unless it was revoked, or a newer revision of it is known here."""
    freshness = Freshness(request.trust.roots, request.data, datetime.now(UTC))
    refusal = freshness.judge(found).refusal
    if refusal:
        raise SignatureError(refusal.message)
    freshness.remember(found)
    return found


class _Mending:
    """One run over one folder, or over one file of it."""

    def __init__(
        self,
        request: Request,
        root: Path,
        found: Manifest,
        single: bool,
        name: str,
        progress: Progress,
    ) -> None:
        self.request, self.root, self.manifest = request, root, found
        self.single, self.progress = single, progress
        self.kinds = KINDS if blake3_available() else KINDS[1:]
        self.files, self.sources = self._entries(name)
        self.outcome = Outcome(found.name)

    def run(self) -> Outcome:
        """Verify, mend what differs, and put the manifest right."""
        broken = self._verify()
        if broken:
            self._mend_all(broken)
        if not self.single:
            self._mend_manifest()
        return self.outcome

    def _entries(self, name: str) -> tuple[dict[str, ManifestFile], dict[str, str]]:
        """Return the entries to look at, and their paths at the portal, by name in the folder."""
        files = self.manifest.files
        if not self.single:
            return dict(files), {path: path for path in files}
        paths = [p for p in files if p == name] or [
            p for p in files if p.rpartition("/")[2] == name
        ]
        if len(paths) != 1:
            raise InputError(
                f"{shown(name)} is not one file of {shown(self.manifest.name)}; "
                "give the folder, or rename it."
            )
        return {name: replace(files[paths[0]], name=name)}, {name: paths[0]}

    def _verify(self) -> list[Broken]:
        """Compare all files; return those that can be mended, note why others cannot."""
        if self.single:
            listing = walk(self.root / next(iter(self.files)))
        else:
            listing = walk(self.root, skip=(BUNDLE_NAME, SIDE_FOLDER))
            look_up(listing, self.files if listing.truncated else ())
        check = check_files(
            listing, self.files, Hasher(self.kinds, False, self.progress), only=self.single
        )
        broken = []
        for result in check.results:
            if result.path not in self.files or result.status is FileStatus.GOOD:
                continue
            reason = self._unmendable(listing, check, result)
            if reason:
                self.outcome.reasons.append(reason)
            else:
                broken.append(self._broken(listing.files.get(result.path), result))
        return broken

    def _unmendable(self, listing: Listing, check: FilesCheck, result: FileResult) -> str | None:
        """Say why a file cannot be mended, if so: links, devices and folders are left alone."""
        name, entry = result.path, self.files[result.path]
        if result.status is FileStatus.REFUSED:
            told = [f for f in check.findings if f.path == name and f.code is not Code.DAMAGED]
            return told[0].message if told else f"{shown(name)} could not be read."
        if entry.size is None or entry.leaf_list(self.kinds) is None:
            return (
                f"the manifest has no leaf digests of {shown(name)}, so it cannot be mended; "
                "download it again"
            )
        try:
            kind = drafts.kind_in_place(self.root, name)
        except ClientError as error:
            return str(error)
        if kind:
            return f"{shown(name)} is {kind} in the place of a file; remove it and run this again."
        return None

    def _broken(self, original: FoundFile | None, result: FileResult) -> Broken:
        entry = self.files[result.path]
        leaves = entry.leaf_list(self.kinds)
        assert entry.size is not None and leaves is not None
        there = min(original.size, entry.size) if original else 0
        whole = there // LEAF_BYTES if there < entry.size else leaf_count(there)
        bad = {
            leaf
            for start, end in result.ranges
            if start < entry.size
            for leaf in range(start // LEAF_BYTES, leaf_count(min(end, entry.size)))
        }
        good = frozenset(range(whole)) - bad
        return Broken(entry, self.sources[result.path], entry.size, leaves, original, good)

    def _mend_all(self, broken: Sequence[Broken]) -> None:
        """Mend the files one after the other; what the portal refuses ends it."""
        site = self.request.site
        if site is None:
            raise InputError(
                f"{shown(self.manifest.name)} has {_count(len(broken), 'file')} to be mended; "
                "say from where with --portal URL."
            )
        lack = lacking_space(self.root, broken)
        if lack:
            self.outcome.reasons.append(lack)
            return
        urls = Urls(site, self.manifest.name, [file.source for file in broken])
        advance = counter(self.progress, "repair", sum(file.to_fetch(file.good) for file in broken))
        fetcher = Fetcher(site, urls)
        for file in broken:
            try:
                wrong = self._mend(file, fetcher, advance)
            except ClientError as error:
                self.outcome.reasons.append(str(error))
                break
            except OSError as error:
                self.outcome.reasons.append(
                    f"{shown(file.name)} cannot be written: {error.strerror}; "
                    "what was fetched is kept for the next run."
                )
                break
            if wrong:
                start, end = wrong[0] * LEAF_BYTES, min((wrong[0] + 1) * LEAF_BYTES, file.size)
                self.outcome.reasons.append(
                    f"the portal has other bytes of {shown(file.name)} in [{start:,}, {end:,}) "
                    "than were signed; write to its operators."
                )
            else:
                self.outcome.mended.append(file.name)

    def _mend(self, file: Broken, fetcher: Fetcher, advance: Callable[[int], None]) -> list[int]:
        """Mend one file; return the leaves that could not be had, with which it stays as it is."""
        wanted = Wanted(file.source, file.size, file.leaves)
        with (
            drafts.entered(self.root, file.name) as folder,
            drafts.Draft.opened(folder, self.root / file.draft) as draft,
        ):
            good = self._begin(draft, folder, file, wanted)
            advance(max(file.to_fetch(file.good) - file.to_fetch(good), 0))  # by an earlier run

            def keep(leaf: int, data: memoryview) -> None:
                draft.write(data, leaf * LEAF_BYTES)
                self.outcome.fetched_leaves += 1
                self.outcome.fetched_bytes += len(data)
                advance(len(data))

            missing = [leaf for leaf in range(leaf_count(file.size)) if leaf not in good]
            wrong = fetcher.fetch(wanted, missing, keep) if missing else []
            if not wrong:
                draft.replace(file.name, file.original)
        return wrong

    def _begin(self, draft: drafts.Draft, folder: int, file: Broken, wanted: Wanted) -> set[int]:
        """Fill the draft with what is right already; return these leaves.

        Leaves that an earlier run fetched are found by hashing the draft; leaves of the old file
        are checked once more while they are copied.
        """
        source = drafts.open_original(folder, file.original) if file.original else None
        try:
            cloned = bool(not draft.existed and source is not None and draft.clone(source))
            draft.resize(file.size)
            good = self._held(draft, file) if draft.existed or cloned else set()
            if source is not None:
                for leaf in sorted(file.good - good):
                    data = _pread(source, *wanted.span(leaf))
                    if wanted.holds(leaf, data):
                        draft.write(data, leaf * LEAF_BYTES)
                        good.add(leaf)
        finally:
            if source is not None:
                os.close(source)
        return good

    def _held(self, draft: drafts.Draft, file: Broken) -> set[int]:
        """Return the leaves of the draft that have their signed digests."""
        kind = file.leaves.kind
        job = engine.Job(draft.found(file.name), leaf_kinds=(kind,))
        (digests,) = engine.run([job], counter(self.progress, "files", job.work))
        if digests.error is not None:
            return set()
        bad = file.leaves.bad_leaves(bytes(digests.leaves[kind]))
        return set(range(leaf_count(file.size))) - set(bad)

    def _mend_manifest(self) -> None:
        """Put the manifest in use, and its side files, into the copy where they differ there."""
        if self.manifest.location.parent.resolve() == self.root or self.request.site is None:
            return
        bundle = manifest.read_bounded(self.manifest.location, manifest.MAX_SIDE_BYTES)
        # the bundle last: until then the old one and what lies beside it say the same as before
        for name, data in {**(self.manifest.side or {}), BUNDLE_NAME: bundle}.items():
            try:
                if put(self.root, name, data):
                    self.outcome.mended.append(name)
            except ClientError as error:
                self.outcome.reasons.append(str(error))
            except OSError as error:
                self.outcome.reasons.append(f"{name} cannot be written: {error.strerror}.")


def put(root: Path, name: str, data: bytes) -> bool:
    """Make ``data`` the content of the file ``name`` unless it is; tell whether it was not.

    Raises:
        ClientError: something other than a file is in its place.
    """
    kind = drafts.kind_in_place(root, name)
    if kind:
        raise ClientError(f"{name} is {kind} in the place of a file; remove it and run this again.")
    last = name.rpartition("/")[2]
    with drafts.entered(root, name) as folder:
        listing = Listing(root)
        look_up(listing, [name])
        original = listing.files.get(name)
        if original and original.size == len(data):
            descriptor = drafts.open_original(folder, original)
            with contextlib.closing(os.fdopen(descriptor, "rb")) as file:
                if file.read() == data:
                    return False
        draft = drafts.draft_name(last, hashlib.sha256(data).hexdigest())
        with drafts.Draft.opened(folder, (root / name).with_name(draft)) as opened:
            opened.resize(0)
            opened.write(data, 0)
            opened.replace(name, original)
    return True


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _pread(source: int, start: int, end: int) -> memoryview:
    """Read bytes [start, end), fewer where the file ends before."""
    buffer = memoryview(bytearray(end - start))
    filled = 0
    while filled < len(buffer):
        read = os.preadv(source, [buffer[filled:]], start + filled)
        if read == 0:
            break
        filled += read
    return buffer[:filled]
