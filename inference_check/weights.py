"""The weights of a copy, read from its files while they are multiplied: never a layer in memory.

Meta's model-parallel parts are run as they are: output slices side by side, partial sums added.
Rows of q and k in Meta's order are not moved either; what they answer is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from verifier.blocks import Files, from_pairs
from verifier.layouts import LogicalTensor, Part
from verifier.readers import TensorEntry

from .errors import WrongModel

BLOCK_ENTRIES = 1 << 20
"""Entries of a matrix that are widened at once: 4 MiB in fp32."""

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})

Tick = Callable[[int], None]


class Weights:
    """Products with the tensors of one copy, in ``dtype`` on ``device``.

    ``tick`` is told of bytes as they are read.
    """

    def __init__(
        self,
        tensors: Mapping[str, LogicalTensor],
        files: Files,
        *,
        device: torch.device,
        dtype: torch.dtype,
        tick: Tick,
    ) -> None:
        self.tensors = tensors
        self.device, self.dtype = device, dtype
        self._files, self._tick = files, tick

    def vector(self, name: str) -> Tensor:
        """Return a vector.

        Raises:
            WrongModel: model-parallel parts hold copies that differ.
        """
        tensor = self.tensors[name]
        entry = tensor.parts[0].entry
        values = self._read(entry, 0, entry.count)
        for copy in tensor.copies:
            if not torch.equal(values, self._read(copy, 0, copy.count)):
                raise WrongModel(f"{copy.path}: its copy of {name} is not that of the other parts")
        return values

    def rows(self, name: str, ids: Sequence[int]) -> Tensor:
        """Return rows ``ids`` of a matrix, [len(ids), columns]."""
        tensor = self.tensors[name]
        found = torch.empty(len(ids), tensor.shape[1], dtype=self.dtype, device=self.device)
        for part in tensor.parts:
            rows, width = part.entry.shape
            for position, row in enumerate(ids):
                if part.row <= row < part.row + rows:
                    start = (row - part.row) * width
                    values = self._read(part.entry, start, start + width)
                    found[position, part.column : part.column + width] = values
        return found

    def linear(self, x: Tensor, name: str) -> Tensor:
        """Return x Wᵀ, [T, rows], for the matrix W = ``name`` [rows, columns]."""
        tensor = self.tensors[name]
        out = torch.zeros(len(x), tensor.shape[0], dtype=self.dtype, device=self.device)
        for part, row, block in self._blocks(tensor.parts):
            columns = x[:, part.column : part.column + block.shape[1]]
            out[:, row : row + len(block)] += columns @ block.T
        return out if tensor.pair_width is None else from_pairs(out.T, tensor.pair_width).T

    def row_products(self, x: Tensor, name: str) -> Iterator[tuple[int, Tensor]]:
        """Yield x Wᵀ in slices [T, r] with their first row, so that [T, V] is never held."""
        tensor = self.tensors[name]
        if any(part.column or part.entry.shape[1] != x.shape[1] for part in tensor.parts):
            yield 0, self.linear(x, name)  # a tied embedding, cut by columns
            return
        for _, row, block in self._blocks(tensor.parts):
            yield row, x @ block.T

    def _blocks(self, parts: Iterable[Part]) -> Iterator[tuple[Part, int, Tensor]]:
        for part in parts:
            rows, width = part.entry.shape
            step = max(BLOCK_ENTRIES // width, 1)
            for start in range(0, rows, step):
                stop = min(start + step, rows)
                flat = self._read(part.entry, start * width, stop * width)
                yield part, part.row + start, flat.view(stop - start, width)

    def _read(self, entry: TensorEntry, start: int, stop: int) -> Tensor:
        stored = self._files.read(entry, start, stop)
        self._tick(stored.numel() * stored.element_size())
        return stored.to(self.device).to(self.dtype)
