"""Why a file differs, where its bytes say so plainly; a guess without evidence is not made."""

import os
from collections.abc import Sequence

from .digests import LEAF_BYTES, leaf_count
from .errors import ReadError
from .findings import Cause
from .walk import FoundFile, open_found

SENTENCES = {
    Cause.TRUNCATED: "it ends too early; all before that is right",
    Cause.EXTENDED: "something was added at its end; all before that is right",
    Cause.EMPTY: "it is empty",
    Cause.HTML_PAGE: "it is a web page that was saved in its place",
    Cause.LFS_POINTER: "it is a Git LFS pointer; run `git lfs pull`",
    Cause.ZEROS: "there are only zeros, as in a download that was never finished",
}
"""How a message ends that names the cause."""

_HEAD_BYTES = 512


def from_start(file: FoundFile) -> Cause | None:
    """Guess from the first bytes of ``file``."""
    if file.size == 0:
        return Cause.EMPTY
    try:
        descriptor = open_found(file)
    except ReadError:
        return None
    try:
        head = os.pread(descriptor, _HEAD_BYTES, 0).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    except OSError:
        return None
    finally:
        os.close(descriptor)
    if head.startswith((b"<!doctype html", b"<html")):
        return Cause.HTML_PAGE
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return Cause.LFS_POINTER
    return None


def from_length(size: int, expected: int, bad_leaves: Sequence[int]) -> Cause | None:
    """Guess from a length that is wrong while every whole leaf of what is there is right."""
    if 0 < size < expected and bad_leaves:
        whole = size // LEAF_BYTES
        if whole and list(bad_leaves) == list(range(whole, leaf_count(expected))):
            return Cause.TRUNCATED
    if size > expected and not bad_leaves and expected:
        return Cause.EXTENDED
    return None
