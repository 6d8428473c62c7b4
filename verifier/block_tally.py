"""What the blocks of one tensor came to, held to the official values."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .recipes import Compared

REDERIVED, WITHIN, DIFFERS = "rederived", "within-error", "differs"
MAX_RUNS = 16
PLAIN_SHARE = 0.9
"""Where so many blocks fit a plain recipe, the others have to as well."""


@dataclass(slots=True)
class Misfits:
    """Blocks that do not fit: how many, and where, in runs [first, last)."""

    count: int = 0
    runs: list[tuple[int, int]] = field(default_factory=list)

    def add(self, first: int, good: NDArray[np.bool_]) -> None:
        """Add the blocks from ``first`` on that are not ``good``."""
        wrong = np.flatnonzero(~good)
        self.count += len(wrong)
        if not len(wrong):
            return
        cuts = np.flatnonzero(np.diff(wrong) > 1)
        starts = wrong[np.concatenate([[0], cuts + 1])][: MAX_RUNS + 1]
        ends = wrong[np.concatenate([cuts, [len(wrong) - 1]])][: MAX_RUNS + 1] + 1
        for start, end in zip((first + starts).tolist(), (first + ends).tolist(), strict=True):
            if self.runs and self.runs[-1][1] == start:
                self.runs[-1] = (self.runs[-1][0], end)
            elif len(self.runs) < MAX_RUNS:
                self.runs.append((start, end))


@dataclass(slots=True)
class BlockTally:
    """What the blocks of one tensor came to."""

    blocks: int = 0
    unequal: Misfits = field(default_factory=Misfits)
    outside: Misfits = field(default_factory=Misfits)
    far_outside: Misfits = field(default_factory=Misfits)
    has_recipe: bool = True

    def add(self, found: Compared) -> None:
        """Add the next blocks."""
        if found.equals is None:
            self.has_recipe = False
        else:
            self.unequal.add(self.blocks, found.equals)
        self.outside.add(self.blocks, found.fits)
        self.far_outside.add(self.blocks, found.fits_loosely)
        self.blocks += len(found.fits)

    @property
    def wrong(self) -> Misfits:
        """Blocks outside the bound: the loose one where most are outside the other."""
        plain = self.outside.count <= (1 - PLAIN_SHARE) * self.blocks
        return self.outside if plain else self.far_outside

    @property
    def status(self) -> str:
        """What can be said of the tensor."""
        if self.has_recipe and not self.unequal.count:
            return REDERIVED
        return DIFFERS if self.wrong.count else WITHIN

    @property
    def shown(self) -> Misfits:
        """The blocks to name: those outside, else, where few are not equal, these."""
        if self.wrong.count:
            return self.wrong
        few = self.has_recipe and self.unequal.count <= (1 - PLAIN_SHARE) * self.blocks
        return self.unequal if few else Misfits()
