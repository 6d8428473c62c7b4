"""How likely are such likenesses between models that were trained apart? P-values, and their null.

**The null.** Two networks are *trained apart* when the start of one is drawn without knowledge of
the other. Turning the sign of one channel of the residual stream everywhere (a column of every
matrix that reads it, a row of every one that writes it) leaves what a network with RMSNorm
computes as it is, and optimizers that work entry by entry (SGD, Adam) commute with it. If the
start is drawn symmetrically around zero, as all common initializations are, the trained matrix is
therefore as likely as the one with the signs of any of its channels turned: the argument of Zhu et
al. 2025, "Independence Tests for Language Models", for signs instead of permutations.

**One matrix.** Let x be the products of the official entry and the copy's at the secret places,
summed per channel, and T their sum. Under the null the signs of the sums are fair coins, so that
(Hoeffding 1963, theorem 2)

    P( T / sqrt(Σ x²) ≥ s ) ≤ exp(−s² / 2)         for every s ≥ 0, whatever the sizes of x are.

This holds for heavy tails, outlier channels and any number of samples. Which of the two sides is
the residual stream need not be known: the p-value of a matrix is the larger of that with rows and
that with columns as channels, and the larger of both with and without the means of the samples
taken away. It is also never smaller than the chance that as few of the SimHash's bits differ if
each were a fair coin; the largest of several p-values is one if any of them is.

**All matrices.** The matrices of a model were trained together, so nothing may be multiplied. For
the statement that at least u of m matrices descend from the official ones,

    p = (m − u + 1) · p₍ᵤ₎,      p₍ᵤ₎ the u-th smallest,

is valid under any dependence (Benjamini & Heller 2008, "Screening for Partial Conjunction
Hypotheses", the pooled p-value after Bonferroni). One or two matrices taken over, an embedding
say, do not make it small.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 1e-300
"""No p-value below this is ever claimed."""

LOG_COLLISION = -256 * math.log(2)
"""Log of the chance that a value digest agrees with that of other values."""

HOW = (
    "Each matrix: Hoeffding's bound on the correlation of the official entries at secret places "
    "with the copy's, summed per channel, the larger of rows and columns as channels, and never "
    "below the binomial chance of the SimHash's differing bits. Together: (m - u + 1) times the "
    "u-th smallest, for at least u of m matrices."
)
ASSUMPTION = (
    "models trained apart from symmetric initializations: the sign of a residual channel is a "
    "fair coin"
)
SOURCES = (
    "Hoeffding 1963, theorem 2",
    "Benjamini and Heller 2008, Screening for Partial Conjunction Hypotheses",
    "Zhu et al. 2025, Independence Tests for Language Models",
)


def log_p_of_matrix(
    official: Tensor, copy: Tensor, places: Tensor, columns: int, hamming: float, bits: int
) -> float:
    """Return the natural log of the p-value of one matrix.

    ``official`` and ``copy`` are the entries at the flat ``places`` of a matrix with ``columns``.
    """
    rows, cols = places // columns, places % columns
    worst = log_binomial_tail(round(hamming * bits), bits)
    for one, two in ((official, copy), (official - official.mean(), copy - copy.mean())):
        products = one.double() * two.double()
        for groups in (rows, cols):
            worst = max(worst, log_p_of_signs(products, groups))
    return worst


def log_p_of_signs(products: Tensor, groups: Tensor) -> float:
    """Return Hoeffding's bound, as a natural log, on the sum of ``products`` whose signs are coins.

    Products of one group share a coin. 0 where the sum is not positive, or not finite.
    """
    import torch

    _, index = torch.unique(groups, return_inverse=True)
    sums = torch.zeros(int(index.max()) + 1, dtype=torch.float64)
    sums.index_add_(0, index, products)
    scale = float(sums.abs().max())  # squares of tiny products would vanish
    if not 0 < scale < math.inf:
        return 0.0
    sums = sums / scale
    total = float(sums.sum())
    return -(total**2) / (2 * float(sums.square().sum())) if total > 0 else 0.0


def log_binomial_tail(count: int, trials: int) -> float:
    """Return the natural log of P(at most ``count`` heads of ``trials`` fair coins)."""
    ways, total = 1, 0
    for k in range(min(count, trials) + 1):
        total += ways
        ways = ways * (trials - k) // (k + 1)
    return math.log(total) - trials * math.log(2) if total else -math.inf


def log_p_of_conjunction(logs: Iterable[float], least: int) -> float:
    """Return the log p-value of: at least ``least`` of the matrices with these descend."""
    ordered: Sequence[float] = sorted(logs)
    if not 1 <= least <= len(ordered):
        return 0.0
    return min(0.0, ordered[least - 1] + math.log(len(ordered) - least + 1))


def claimed(log_p: float) -> float:
    """Return a p-value as it is printed: never below ``SMALLEST``."""
    return max(math.exp(max(log_p, -700.0)), SMALLEST)
