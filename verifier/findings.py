"""What a verification can say: verdicts, codes of findings, states of files.

A finding is data: one difference between the copy and the manifest, or one thing in the copy that
was refused. Which of them end in exit status 1 whatever verdict is accepted: ``Code.is_refusal``.
"""

import enum
from dataclasses import dataclass, field
from typing import Any


class Verdict(enum.StrEnum):
    """The conclusion; the first that holds, in this order."""

    UNTRUSTED = "untrusted"
    IDENTICAL = "identical"
    INCOMPLETE = "incomplete"
    SAME_WEIGHTS = "same-weights"
    CAST = "cast"
    QUANTIZED = "quantized"
    DAMAGED = "damaged"
    DERIVED = "derived"
    UNRELATED = "unrelated"
    UNDETERMINED = "undetermined"


class Code(enum.StrEnum):
    """The kinds of finding."""

    BAD_SIGNATURE = "bad-signature"
    REVOKED = "revoked"
    ROLLBACK = "rollback"
    STALE = "stale"
    RECALLED = "recalled"
    NEWER_VERSION = "newer-version"
    UNSIGNED = "unsigned"
    SIDE_FILE_MISSING = "side-file-missing"
    SIDE_FILE_DIFFERS = "side-file-differs"
    MISSING = "missing"
    DAMAGED = "damaged"
    WHOLE_DIFFERS = "whole-differs"
    UNLISTED = "unlisted"
    BAD_NAME = "bad-name"
    LINK = "link"
    NOT_A_FILE = "not-a-file"
    UNREADABLE = "unreadable"
    CHANGED = "changed"
    TOO_MANY = "too-many"
    TOO_DEEP = "too-deep"
    WEIGHTS_REFUSED = "weights-refused"
    WEIGHTS_DIFFER = "weights-differ"
    WEIGHTS_NOT_COMPARED = "weights-not-compared"
    NOT_REDERIVED = "not-rederived"
    INFERENCE_DISAGREES = "inference-disagrees"
    TORRENT_DIFFERS = "torrent-differs"
    TORRENT_NOT_TOLD = "torrent-not-told"
    TORRENT_HALF_NOT_TOLD = "torrent-half-not-told"
    TORRENT_MOVED = "torrent-moved"
    TORRENT_IRREGULAR = "torrent-irregular"
    TORRENT_CONTRADICTS = "torrent-contradicts"
    OFFICIAL_NOT_USED = "official-not-used"

    @property
    def is_refusal(self) -> bool:
        """Whether it means that a file could not be looked at as it should be."""
        return self in _REFUSALS


_REFUSALS = frozenset(
    {Code.LINK, Code.NOT_A_FILE, Code.UNREADABLE, Code.CHANGED, Code.WEIGHTS_REFUSED}
)


class FileStatus(enum.StrEnum):
    """What became of one file of the manifest or of the copy; the last three are of torrents."""

    GOOD = "good"
    DAMAGED = "damaged"
    MISSING = "missing"
    REFUSED = "refused"
    UNLISTED = "unlisted"
    OFFICIAL = "official"
    DIFFERS = "differs"
    CANNOT_BE_TOLD = "cannot-be-told"


class Cause(enum.StrEnum):
    """Why a file differs, where its bytes say so plainly."""

    TRUNCATED = "truncated"
    EXTENDED = "extended"
    EMPTY = "empty"
    HTML_PAGE = "html-page"
    LFS_POINTER = "lfs-pointer"
    ZEROS = "zeros"
    SHIFTED = "shifted"
    SWAPPED = "swapped"
    NEWLINES = "newlines"
    DOWNLOADING = "downloading"


Range = tuple[int, int]
"""Bytes [start, end) of a file."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference; ``path`` is relative to the copy (empty: the copy as a whole)."""

    code: Code
    path: str
    message: str
    ranges: tuple[Range, ...] = ()
    cause: Cause | None = None
    tensors: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the finding as the report spells it."""
        return {
            "code": self.code.value,
            "path": self.path,
            "ranges": [list(span) for span in self.ranges],
            "message": self.message,
            "cause": self.cause.value if self.cause else None,
            "tensors": list(self.tensors),
        }


@dataclass(frozen=True, slots=True)
class FileResult:
    """One file: its size (in the manifest, where it is missing), and what became of it."""

    path: str
    size: int | None
    status: FileStatus
    expected_size: int | None = None
    ranges: tuple[Range, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """Return the file as the report spells it."""
        return {
            "path": self.path,
            "size": self.size,
            "status": self.status.value,
            "expected_size": self.expected_size,
            "ranges": [list(span) for span in self.ranges],
        }
