"""A file that needs mending, and the room that mending takes."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from verifier.digests import LEAF_BYTES, LeafList, leaf_count
from verifier.manifest import ManifestFile
from verifier.names import shown
from verifier.walk import FoundFile

from . import drafts


@dataclass(frozen=True, slots=True)
class Broken:
    """A file to be mended: its entry, what is there of it, and which leaves of that are right."""

    entry: ManifestFile
    source: str
    size: int
    leaves: LeafList
    original: FoundFile | None
    good: frozenset[int]

    @property
    def name(self) -> str:
        return self.entry.name

    def to_fetch(self, good: Collection[int]) -> int:
        """Return the bytes of all leaves but the ``good`` ones."""
        return sum(
            min(LEAF_BYTES, self.size - leaf * LEAF_BYTES)
            for leaf in range(leaf_count(self.size))
            if leaf not in good
        )

    @property
    def draft(self) -> str:
        """The draft's name, from the root on."""
        folder, slash, last = self.name.rpartition("/")
        return f"{folder}{slash}{drafts.draft_name(last, self.entry.sha256)}"


def lacking_space(root: Path, broken: Sequence[Broken]) -> str | None:
    """Say how much room is missing for the drafts, one after the other; None if there is enough.

    A draft takes the place of the whole file until it replaces it; where blocks are shared, only
    that of the leaves that are fetched.
    """
    status = os.statvfs(root)
    free = status.f_bavail * status.f_frsize
    shared = drafts.shares_blocks(root)
    used = peak = 0
    for file in broken:
        old = file.original.size if file.original else 0
        cost = file.to_fetch(file.good) if shared else file.size
        used += max(cost - drafts.allocated(root, file.draft), 0)
        peak = max(peak, used)
        used -= 0 if shared else old
    if peak <= free:
        return None
    return (
        f"{shown(str(root))} has {free:,} bytes free and {peak:,} are needed, "
        "so nothing was fetched; make room and run this again."
    )
