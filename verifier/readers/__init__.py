"""Read where the tensors of a checkpoint lie, from headers alone, without trusting a byte of them.

Every reader ends in a list of ``TensorEntry`` or in a ``ReadError`` of one sentence: sizes are
checked against the file before they are used, counts before anything is allocated, links are not
followed, pipes are not waited for, and nothing is unpickled.
"""

import posixpath
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import ReadError
from .entries import ITEM_BYTES, QUANTIZED, TensorEntry
from .source import Source, open_source

__all__ = [
    "ITEM_BYTES",
    "QUANTIZED",
    "WEIGHT_SUFFIXES",
    "ReadError",
    "Source",
    "TensorEntry",
    "is_weight_file",
    "open_source",
    "read_gguf_metadata",
    "read_tensors",
]

WEIGHT_SUFFIXES = frozenset({".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".gguf"})


def is_weight_file(path: str) -> bool:
    """Tell from its name whether a file is meant to hold tensors."""
    return posixpath.splitext(path)[1].lower() in WEIGHT_SUFFIXES


def read_tensors(root: Path, path: str) -> list[TensorEntry]:
    """Return the tensors of one file, in the order of their places; only headers are read.

    ``path`` is relative to ``root``, POSIX. The content decides the format; the suffix only helps
    to say what was expected.

    Raises:
        ReadError: the file cannot be opened, or is not what it claims to be.
    """
    from . import gguf, pth, safetensors  # most copies are judged by their bytes alone

    with open_source(root, path) as source:
        start = source.read(0, min(source.size, 64))
        if not start:
            raise ReadError(path, "it is empty; download it again")
        complaint = _not_tensors(start)
        if complaint:
            raise ReadError(path, complaint)
        named_so = PurePosixPath(path).suffix.lower() == ".safetensors"
        if start.startswith(gguf.MAGIC):
            return gguf.read(source)
        # A header's length may begin with any byte, that of a pickle too; its JSON cannot.
        if start[8:9] == b"{" or (named_so and not pth.is_zip(start)):
            return safetensors.read(source)
        if pth.is_zip(start):
            return pth.read_zip(source)
        if pth.is_legacy(start):
            return pth.read_legacy(source)
        raise ReadError(path, "it is neither a PyTorch nor a safetensors nor a GGUF file")


def read_gguf_metadata(root: Path, path: str) -> Mapping[str, Any]:
    """Return the numbers and short texts that a GGUF file says about its model.

    Raises:
        ReadError: the file cannot be opened, or is not what it claims to be.
    """
    from . import gguf

    with open_source(root, path) as source:
        return gguf.read_header(source).metadata


def _not_tensors(start: bytes) -> str | None:
    """Say what a file is that often lies where a shard should be, or return None."""
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page saved under a shard's name; download it again"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself; run `git lfs pull`"
    if not start.strip(b"\0"):
        return "it begins with zeros, as a download that has only been given its space"
    return None
