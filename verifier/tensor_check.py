"""One tensor of a copy against what is published of it: its digests, then its sketch."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import blocks, packed, quantized, significance, value_digests
from . import sketch as sketches
from .errors import ManifestError
from .layouts import EMBEDDING, HEAD, LogicalTensor
from .lineage import RUNGS
from .quantized import Grid, RowWatch
from .readers import QUANTIZED
from .recurrence import Recurrence
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
        if name not in self.official and not name.endswith(HEAD):
            return _row(name, tensor)  # there is nothing to compare, so nothing is read
        with blocks.Files(self.root, tensor.paths) as files:
            return self._look_at(name, tensor, files)

    def _look_at(self, name: str, tensor: LogicalTensor, files: blocks.Files) -> dict[str, Any]:
        row = _row(name, tensor)
        published = self.official.get(name)
        if published is None:
            return self._as_embedding(row, tensor, files)
        if published.get("tied_to"):
            row["tied"] = True
        if published["shape"] != row["shape"]:
            row |= {"status": "changed", "statistics": {"official_shape": published["shape"]}}
            self._add_likeness(row, tensor, published["shape"], files)
            return row
        found = _digest(name, tensor, (EXACT,), files)
        scheme = None
        if found.digests[EXACT] == published["values"][EXACT]:
            row["status"] = "exact"
        elif _is_block_type(tensor.dtype):
            row["status"] = "changed"
        else:
            scheme = _rounding(_digest(name, tensor, ROUNDINGS, files), published["values"])
            row["status"] = "cast" if scheme else "changed"
        if scheme:
            row["scheme"] = scheme
        self._add_likeness(row, tensor, published["shape"], files)
        if row["status"] != "changed" and is_telling_matrix(tensor.shape) and found.telling:
            row["telling"] = not published.get("tied_to")
        return row

    def _as_embedding(
        self, row: dict[str, Any], tensor: LogicalTensor, files: blocks.Files
    ) -> dict[str, Any]:
        """Return the row of a tensor that is not official: a tied embedding written out, or added."""
        embedding = row["name"].removesuffix(HEAD) + EMBEDDING
        if not row["name"].endswith(HEAD) or embedding not in self.official:
            return row
        found = self._look_at(embedding, tensor, files)
        if found["status"] not in RUNGS:
            return row
        found.pop("telling", None)
        return found | {"name": row["name"], "tied": True}

    def _add_likeness(
        self,
        row: dict[str, Any],
        tensor: LogicalTensor,
        official_shape: Sequence[int],
        files: blocks.Files,
    ) -> None:
        """Add the statistics of the sketch to a row, and count sampled entries.

        A changed matrix on the grid of a quantization, within its error, becomes *quantized*. Of a
        matrix with more rows than the official one, as more tokens need, the first are compared.
        """
        published = sketches.load(self.sketch, row["name"]) if self.sketch else None
        count = math.prod(official_shape)
        if published is None or len(published.samples) != 4 * min(count, sketches.SAMPLES):
            return
        if row["status"] != "changed":
            self.sampled += len(published.samples) // 4
            return
        shape = tuple(official_shape)
        compared = shape == tensor.shape or _has_more_rows(tensor.shape, shape)
        if not compared or (
            tensor.dtype in sketches.INTEGERS and not isinstance(tensor, packed.Packed)
        ):
            return
        stream = _first(packed.stream(files, tensor), count)
        is_matrix = is_telling_matrix(shape)
        watches: list[RowWatch | Recurrence] = []
        if is_matrix:
            watches = self._watches(row["name"], shape, published)
            for watch in watches:
                stream = watch.watch(stream)
        floats = LogicalTensor(row["name"], "", "F32", shape, ())
        own = sketches.sketch_of(row["name"], floats, stream, self._seed)
        if own is None:
            return
        likeness = sketches.compare(published, own)
        self.sampled += likeness.samples
        self.differing += likeness.differing
        row["statistics"] = self._statistics(row, published, own, likeness, shape)
        for watch in watches:
            if isinstance(watch, Recurrence):
                row["statistics"]["recurring"] = watch.recurring
            elif shape == tensor.shape:
                _judge_grid(
                    row,
                    likeness,
                    quantized.look(watch.rows, stored=_is_block_type(tensor.dtype)),
                    tensor.dtype,
                )

    def _watches(
        self, name: str, shape: tuple[int, ...], published: sketches.TensorSketch
    ) -> list[RowWatch | Recurrence]:
        places = torch.tensor(sketches.places_of(name, math.prod(shape), self._seed))
        values = sketches.entries_of(published)
        return [
            RowWatch(name, shape, self._seed),
            Recurrence(values, places, shape, self._seed),
        ]

    def _statistics(
        self,
        row: Mapping[str, Any],
        published: sketches.TensorSketch,
        own: sketches.TensorSketch,
        likeness: sketches.Likeness,
        shape: tuple[int, ...],
    ) -> dict[str, Any]:
        """Return what the sketch says of one tensor; vectors are centred and carry no p-value."""
        is_matrix = is_telling_matrix(shape)
        found: dict[str, Any] = {
            "matrix": is_matrix,
            "cosine": likeness.cosine,
            "hamming": likeness.hamming,
            "simhash_cosine": cos(pi * likeness.hamming),
            "centred_cosine": likeness.centred_cosine,
            "differing": likeness.differing,
            "samples": likeness.samples,
            "zeroed": likeness.zeroed,
            "kept": likeness.kept,
            "equal_bits": likeness.equal_bits,
        }
        if likeness.cosine is None or likeness.centred_cosine is None:
            found["cosine"] = found["centred_cosine"] = None
        elif is_matrix:
            places = torch.tensor(sketches.places_of(row["name"], math.prod(shape), self._seed))
            found["log_p"] = significance.log_p_of_matrix(
                sketches.entries_of(published),
                sketches.entries_of(own),
                places,
                shape[1],
                likeness.hamming,
                sketches.BITS,
            )
            found["p_value"] = significance.claimed(found["log_p"])
        return found


def is_telling_matrix(shape: Sequence[int]) -> bool:
    """Tell whether a tensor of this shape is a matrix large enough to be evidence."""
    return len(shape) == 2 and shape[0] * shape[1] >= TELLING_ENTRIES


def _judge_grid(row: dict[str, Any], likeness: sketches.Likeness, grid: Grid, dtype: str) -> None:
    """Call a changed matrix quantized where its grid says so and explains the difference."""
    row["statistics"] |= {"levels": grid.levels, "off_grid": grid.off_grid}
    stored = dtype if _is_block_type(dtype) else None
    if not (stored or grid.is_quantized) or (likeness.cosine or 0) < quantized.COSINE:
        return
    row["statistics"]["grid"] = stored or grid.scheme or "unnamed"
    explained = grid.explains(likeness.error)
    row["statistics"]["error"], row["statistics"]["step_noise"] = likeness.error, grid.noise
    if explained:
        row["status"], row["scheme"] = "quantized", row["statistics"]["grid"]


def _is_block_type(dtype: str) -> bool:
    """Tell whether a tensor says itself that it is stored quantized, as GGUF's types do."""
    return dtype in QUANTIZED


def _has_more_rows(shape: Sequence[int], official: Sequence[int]) -> bool:
    matrices = len(shape) == 2 == len(official)
    return matrices and shape[1] == official[1] and shape[0] > official[0]


def _first(stream: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    """Yield the first ``count`` entries of a stream."""
    for block in stream:
        yield block[:count]
        count -= len(block)
        if count <= 0:
            return


def _row(name: str, tensor: LogicalTensor) -> dict[str, Any]:
    """Return the row of a tensor that nothing is known of."""
    return {
        "name": name,
        "status": "added",
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "statistics": {},
    }


def _digest(
    name: str, tensor: LogicalTensor, kinds: tuple[str, ...], files: blocks.Files
) -> ValueDigests:
    return value_digests.digest_values(name, tensor.shape, kinds, packed.stream(files, tensor))


def _rounding(found: ValueDigests, published: Mapping[str, str]) -> str | None:
    """Return the rounding of the official values that the copy holds, if it holds one.

    The copy's own values must survive the rounding unchanged: otherwise it only rounds alike.
    """
    for kind in ROUNDINGS:
        if kind in found.fits and found.digests.get(kind) == published.get(kind):
            return kind
    return None
