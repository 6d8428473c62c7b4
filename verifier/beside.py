"""A copy beside the official weights themselves: what a sketch cannot tell.

Whether the change of a derived copy is of low rank, as a merged LoRA adapter's is; and whether a
copy that looks unrelated descends from the official weights behind permuted, rotated or rescaled
channels. Both folders are read, a tensor at a time. Imports torch.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import blocks, invariants, layouts, packed
from .errors import ReadError
from .layouts import LogicalTensor
from .readers import TensorEntry, is_weight_file, read_tensors

LOW_RANK_SHARE = 0.9
"""Of the changed matrices, for the change of a model to be called one of low rank."""


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of a folder under canonical names; each is read when it is asked for.

    Values that were packed come as fp32, all others in their stored type. What cannot be read or
    arranged is not there.
    """

    def __init__(self, root: Path, files: Sequence[str], head_width: int | None = None) -> None:
        entries: list[TensorEntry] = []
        for path in filter(is_weight_file, files):
            with suppress(ReadError):
                entries += read_tensors(root, path)
        sets, _ = layouts.arrange(root, entries, head_width)
        self._root = root
        self._tensors: dict[str, LogicalTensor] = {
            tensor.name: tensor for found in sets for tensor in packed.join(root, found.tensors)
        }
        widths = {layouts.head_width_of(root, found.folder, entries) for found in sets}
        self.head_width = widths.pop() if len(widths) == 1 else head_width

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        with blocks.Files(self._root, tensor.paths) as files:
            found = list(packed.stream(files, tensor))
        if not found:
            return torch.empty(tensor.shape)
        return torch.cat(found).view(tensor.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors


def compare(official: StoredTensors, copy: StoredTensors, verdict: str) -> dict[str, Any]:
    """Return what the official weights add to the evidence for ``verdict``, the sketch's or none.

    ``verdict`` in the result is *derived* where a disguise was found, else the one given. Takes
    minutes for billions of parameters: each output head is rotated onto the other.

    Raises:
        ReadError: a file cannot be read.
    """
    if verdict == "derived":
        share = invariants.share_of_low_rank(official, copy)
        low = share is not None and share >= LOW_RANK_SHARE
        return {"verdict": verdict, "low_rank": low, "low_rank_share": share}
    if verdict not in ("unrelated", "undetermined"):
        return {"verdict": verdict}
    width = copy.head_width or official.head_width
    found = invariants.disguised(official, copy, width)
    return {
        "verdict": "derived" if found.disguised else verdict,
        "disguise": found.as_json(),
    }
