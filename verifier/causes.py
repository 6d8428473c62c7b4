"""Why a file differs, where its bytes say so plainly; a guess without evidence is not made.

Each guess rests on a digest that holds or on bytes that name themselves: a leaf that is right once
it is moved or its line ends are put back, all leaves of another file, a web page, a pointer.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from . import names
from .digests import DIGEST_BYTES, LEAF_BYTES, LeafList, leaf_count, leaf_digest
from .errors import ReadError
from .findings import Cause
from .manifest import ManifestFile
from .walk import FoundFile, Listing, open_found

_HEAD_BYTES = 512
_MAX_SHIFT = 1 << 30
_CONTROL_ENDINGS = (".aria2", ".part", ".crdownload", ".download", ".incomplete", ".!qB", ".tmp")
"""What download programs add to the name of a file that they are not done with."""


@dataclass(frozen=True, slots=True)
class Guess:
    """A cause, and how the message ends that names it."""

    cause: Cause
    sentence: str


@dataclass(slots=True)
class Evidence:
    """What the whole copy and the whole manifest say about one bad file."""

    listing: Listing
    files: Mapping[str, ManifestFile]
    _owners: dict[str, dict[bytes, str]] = field(default_factory=dict)

    def of_absence(self, name: str) -> Guess | None:
        """Guess why ``name`` is missing."""
        return self._downloading(name)

    def of_damage(
        self, file: FoundFile, entry: ManifestFile, kind: str | None, found: bytes
    ) -> Guess | None:
        """Guess why ``file`` differs from ``entry``; ``found`` are its leaf digests of ``kind``.

        The leaves end where the shorter of the two ends; without a ``kind`` there are none.
        """
        leaves = entry.leaf_list((kind,)) if kind else None
        guess = _from_start(file)
        if guess is None and leaves is not None:
            guess = self._from_leaves(file, entry, leaves, found)
        control = self._downloading(file.name)
        if control and (guess is None or guess.cause in (Cause.TRUNCATED, Cause.ZEROS)):
            return control
        return guess

    def _from_leaves(
        self, file: FoundFile, entry: ManifestFile, leaves: LeafList, found: bytes
    ) -> Guess | None:
        bad = leaves.bad_leaves(found)
        expected = entry.size or 0
        rest = list(range(file.size // LEAF_BYTES, leaf_count(expected)))
        if LEAF_BYTES <= file.size < expected and bad == rest:
            return Guess(Cause.TRUNCATED, "it ends too early; all before that is right")
        if file.size > expected and not bad and expected:
            return Guess(Cause.EXTENDED, "something was added at its end; all before that is right")
        if bad and all(_is_zero(leaves.kind, found, leaf, file.size) for leaf in bad):
            return Guess(
                Cause.ZEROS, "there are only zeros, as in a download that was never finished"
            )
        owner = self._owner(leaves.kind, found, file)
        if owner is not None and owner != entry.name:
            return Guess(Cause.SWAPPED, f"it holds the bytes of {names.shown(owner)}")
        try:
            return _newlines(file, leaves, expected) or _shifted(file, leaves, bad, expected)
        except (ReadError, OSError):
            return None

    def _owner(self, kind: str, found: bytes, file: FoundFile) -> str | None:
        """Return the name of the entry whose bytes ``file`` holds, if that is one."""
        if kind not in self._owners:
            lists = ((name, entry.leaf_list((kind,))) for name, entry in self.files.items())
            self._owners[kind] = {
                leaves.digests: name for name, leaves in lists if leaves and leaves.digests
            }
        name = self._owners[kind].get(found)
        return name if name is not None and self.files[name].size == file.size else None

    def _downloading(self, name: str) -> Guess | None:
        beside = next((name + e for e in _CONTROL_ENDINGS if name + e in self.listing.files), None)
        if beside is None:
            return None
        return Guess(
            Cause.DOWNLOADING, f"it is still being downloaded, as {names.shown(beside)} says"
        )


def _from_start(file: FoundFile) -> Guess | None:
    """Guess from the first bytes of ``file``."""
    if file.size == 0:
        return Guess(Cause.EMPTY, "it is empty")
    try:
        head = _read(file, 0, _HEAD_BYTES)
    except (ReadError, OSError):
        return None
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return Guess(Cause.HTML_PAGE, "it is a web page that was saved in its place")
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return Guess(Cause.LFS_POINTER, "it is a Git LFS pointer; run `git lfs pull`")
    return None


def _shifted(file: FoundFile, leaves: LeafList, bad: list[int], expected: int) -> Guess | None:
    """Look for the last leaf where it lies if bytes were put in or left out before it."""
    shift = file.size - expected
    last = leaf_count(expected) - 1
    start, size = last * LEAF_BYTES + shift, expected - last * LEAF_BYTES
    if not shift or abs(shift) > _MAX_SHIFT or start < 0 or not bad:
        return None
    if _digest(leaves.kind, _read(file, start, size)) != _nth(leaves, last):
        return None
    what = f"{shift:,} bytes were put in" if shift > 0 else f"{-shift:,} bytes were left out"
    place = (
        f"between bytes {bad[0] * LEAF_BYTES:,} and {min((bad[0] + 1) * LEAF_BYTES, expected):,}"
    )
    return Guess(Cause.SHIFTED, f"{what} {place}; what follows is right, but moved")


def _newlines(file: FoundFile, leaves: LeafList, expected: int) -> Guess | None:
    """Put the line ends of the first leaf back, and look whether it is right then."""
    wanted = min(LEAF_BYTES, expected)
    data = _read(file, 0, 2 * LEAF_BYTES)
    for old, new, system in ((b"\r\n", b"\n", "Windows"), (b"\n", b"\r\n", "Unix")):
        changed = data.replace(old, new)[:wanted]
        if changed != data[:wanted] and _digest(leaves.kind, changed) == _nth(leaves, 0):
            return Guess(
                Cause.NEWLINES,
                f"its line ends were turned into {system}'s; transfer it as binary",
            )
    return None


def _read(file: FoundFile, start: int, size: int) -> bytes:
    """Return ``size`` bytes of ``file``, fewer at its end.

    Raises:
        ReadError: it is no longer the file that was listed.
        OSError: it cannot be read.
    """
    descriptor = open_found(file)
    try:
        return os.pread(descriptor, size, start)
    finally:
        os.close(descriptor)


def _digest(kind: str, data: bytes) -> bytes:
    return leaf_digest(kind, memoryview(data), single=False)


def _nth(leaves: LeafList, number: int) -> bytes:
    return leaves.digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]


def _is_zero(kind: str, found: bytes, leaf: int, size: int) -> bool:
    digest = found[leaf * DIGEST_BYTES : (leaf + 1) * DIGEST_BYTES]
    return digest == _zero_digest(kind, max(0, min(LEAF_BYTES, size - leaf * LEAF_BYTES)))


@cache
def _zero_digest(kind: str, size: int) -> bytes:
    return _digest(kind, bytes(size))
