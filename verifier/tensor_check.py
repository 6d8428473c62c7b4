"""One tensor of a copy against what is published of it: its digests, then its sketch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import cos, pi
from pathlib import Path
from typing import Any

from . import blocks, value_digests
from . import sketch as sketches
from .errors import ManifestError
from .layouts import EMBEDDING, HEAD, LogicalTensor
from .value_digests import EXACT, ROUNDINGS, ValueDigests

TELLING_ENTRIES = 1024
"""A matrix with fewer entries is no evidence of descent."""


@dataclass(slots=True)
class TensorCheck:
    """Compares tensors with the published rows and, where there is one, the sketch.

    ``sampled`` entries were compared with the sketch, of which ``differing`` are not the official.
    """

    root: Path
    official: Mapping[str, Mapping[str, Any]]
    sketch: Mapping[str, Any] | None = None
    sampled: int = 0
    differing: int = 0
    _seed: bytes = field(init=False, default=b"")

    def __post_init__(self) -> None:
        if self.sketch is None:
            return
        try:
            self._seed = bytes.fromhex(self.sketch["seed"])
        except (KeyError, TypeError, ValueError):
            raise ManifestError(
                "The sketch is not well-formed; ask the portal for a new one."
            ) from None

    @property
    def changed_fraction(self) -> float | None:
        """Share of the sampled entries that are not the official ones; None if none was sampled."""
        return self.differing / self.sampled if self.sampled else None

    def look_at(self, name: str, tensor: LogicalTensor) -> dict[str, Any]:
        """Return the row of the report for one tensor of the copy.

        Raises:
            ReadError: its file cannot be read, or copies in several parts do not agree.
        """
        with blocks.Files(self.root, tensor.paths) as files:
            return self._look_at(name, tensor, files)

    def _look_at(self, name: str, tensor: LogicalTensor, files: blocks.Files) -> dict[str, Any]:
        row: dict[str, Any] = {
            "name": name,
            "status": "added",
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "statistics": {},
        }
        published = self.official.get(name)
        if published is None:
            if self._repeats_embedding(name, tensor, files):
                row["status"] = "exact"
            return row
        if published["shape"] != row["shape"]:
            return row | {"status": "changed", "statistics": {"official_shape": published["shape"]}}
        found = _digest(name, tensor, (EXACT,), files)
        scheme = None
        if found.digests[EXACT] == published["values"][EXACT]:
            row["status"] = "exact"
        else:
            scheme = _rounding(_digest(name, tensor, ROUNDINGS, files), published["values"])
            row["status"] = "cast" if scheme else "changed"
        if scheme:
            row["scheme"] = scheme
        is_matrix = len(tensor.shape) == 2 and tensor.shape[0] * tensor.shape[1] >= TELLING_ENTRIES
        if row["status"] != "changed" and is_matrix and found.telling:
            row["telling"] = not published.get("tied_to")
        self._add_likeness(row, tensor, files, is_matrix=is_matrix)
        return row

    def _repeats_embedding(self, name: str, tensor: LogicalTensor, files: blocks.Files) -> bool:
        """Tell whether an output head that is not published is the tied embedding written out."""
        published = self.official.get(name.removesuffix(HEAD) + EMBEDDING)
        if not name.endswith(HEAD) or published is None:
            return False
        found = _digest(published["name"], tensor, (EXACT,), files)
        return bool(found.digests[EXACT] == published["values"][EXACT])

    def _add_likeness(
        self, row: dict[str, Any], tensor: LogicalTensor, files: blocks.Files, *, is_matrix: bool
    ) -> None:
        """Add the statistics of the sketch to a row, and count sampled entries."""
        published = sketches.load(self.sketch, row["name"]) if self.sketch else None
        if published is None:
            return
        if row["status"] != "changed":
            self.sampled += len(published.samples) // 4
            return
        stream = blocks.stream(files, tensor)
        own = sketches.sketch_of(row["name"], tensor, stream, self._seed)
        if own is None or len(own.samples) != len(published.samples):
            return
        likeness = sketches.compare(published, own)
        self.sampled += likeness.samples
        self.differing += likeness.differing
        row["statistics"] = {
            "matrix": is_matrix,
            "cosine": likeness.cosine,
            "hamming": likeness.hamming,
            "simhash_cosine": cos(pi * likeness.hamming),
            "differing": likeness.differing,
            "samples": likeness.samples,
        }


def _digest(
    name: str, tensor: LogicalTensor, kinds: tuple[str, ...], files: blocks.Files
) -> ValueDigests:
    return value_digests.digest_values(name, tensor.shape, kinds, blocks.stream(files, tensor))


def _rounding(found: ValueDigests, published: Mapping[str, str]) -> str | None:
    """Return the rounding of the official values that the copy holds, if it holds one.

    The copy's own values must survive the rounding unchanged: otherwise it only rounds alike.
    """
    for kind in ROUNDINGS:
        if kind in found.fits and found.digests.get(kind) == published.get(kind):
            return kind
    return None
