"""Do official entries recur at other places of their own row or column of the copy?

In a matrix whose rows were permuted, each official entry lies in its own column still. How often
an entry is found in its column is compared with how often the same entry is found in another: in
half precision many values recur by chance, and as often in any column. Imports torch.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

SAMPLES = 128
LOG_P = math.log(1e-9)


@dataclass(slots=True)
class Recurrence:
    """Looks for official ``values`` at flat ``places`` of a matrix [R, C] while it streams by."""

    values: Tensor
    places: Tensor
    shape: Sequence[int]
    seed: bytes
    _found: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        step = max(1, len(self.places) // SAMPLES)
        self.values = self.values.float()[::step][:SAMPLES]
        self.places = self.places[::step][:SAMPLES]
        kinds = ("column", "other column", "row", "other row")
        self._found = {kind: torch.zeros(len(self.places), dtype=torch.bool) for kind in kinds}

    def watch(self, stream: Iterator[Tensor]) -> Iterator[Tensor]:
        """Yield the blocks of ``stream`` as they are."""
        height, columns = self.shape
        drawn = hashlib.shake_256(self.seed + b"elsewhere").digest(2)
        away = int.from_bytes(drawn, "little")
        rows, cols = self.places // columns, self.places % columns
        other_cols = (cols + 1 + away % max(columns - 1, 1)) % columns
        other_rows = (rows + 1 + away % max(height - 1, 1)) % height
        position = 0
        for block in stream:
            self._look_in_columns("column", block, position, cols)
            self._look_in_columns("other column", block, position, other_cols)
            self._look_in_rows("row", block, position, rows)
            self._look_in_rows("other row", block, position, other_rows)
            yield block
            position += len(block)

    def _look_in_columns(self, kind: str, block: Tensor, position: int, cols: Tensor) -> None:
        """Look through the entries of ``block`` that lie in the column of each value."""
        columns = self.shape[1]
        first = (cols - position) % columns
        count = -(-len(block) // columns)
        at = first[:, None] + columns * torch.arange(count)
        inside = at < len(block)
        entries = block[at.clamp(max=len(block) - 1)].float()
        self._found[kind] |= ((entries == self.values[:, None]) & inside).any(1)

    def _look_in_rows(self, kind: str, block: Tensor, position: int, rows: Tensor) -> None:
        columns = self.shape[1]
        starts = rows * columns - position
        near = ((starts < len(block)) & (starts + columns > 0)).nonzero()[:, 0].tolist()
        for sample in near:
            low = max(int(starts[sample]), 0)
            part = block[low : int(starts[sample]) + columns].float()
            self._found[kind][sample] |= bool((part == self.values[sample]).any())

    @property
    def recurring(self) -> bool:
        """Whether entries are found in their own row or column far more often than by chance."""
        return any(
            self._log_p(own, other) < LOG_P
            for own, other in (("column", "other column"), ("row", "other row"))
        )

    def _log_p(self, own: str, other: str) -> float:
        """Return the log of the sign test's p: of those found in one only, how many in its own."""
        from .significance import log_binomial_tail

        only = int((self._found[own] & ~self._found[other]).sum())
        against = int((self._found[other] & ~self._found[own]).sum())
        return log_binomial_tail(against, only + against)
