"""From the rows of a comparison to a rung of the ladder, with the evidence for it.

The first rung that holds for every tensor is the verdict: same-weights, cast, quantized; then
derived and unrelated by thresholds over the matrices; and *undetermined* rather than an accusation
where the evidence does not suffice. Vectors are shown and never decide: norm vectors of models
that have nothing to do with each other look alike.

This module is arithmetic over rows; it reads no tensor and imports no torch.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from . import significance

DERIVED_COSINE, DERIVED_HAMMING, DERIVED_SHARE = 0.30, 0.40, 0.40
UNRELATED_STATISTIC, UNRELATED_COSINE = 0.2, 0.1
DERIVED_P = 1e-6
"""Nothing is called derived on weaker evidence, however alike few entries are."""
TELLING_MATRICES = 3
"""Official matrices that a copy must hold whole to be called derived, whatever the rest is."""
PRUNED_ZEROS, PRUNED_KEPT = 0.05, 0.95
"""Entries that became zero, and others that stayed the official ones, in what was only pruned."""

RUNGS = ("exact", "cast", "quantized")
THRESHOLDS = {
    "derived_cosine": DERIVED_COSINE,
    "derived_hamming": DERIVED_HAMMING,
    "derived_share": DERIVED_SHARE,
    "derived_p_value": DERIVED_P,
    "derived_whole_matrices": TELLING_MATRICES,
    "unrelated_statistic": UNRELATED_STATISTIC,
    "unrelated_mean_cosine": UNRELATED_COSINE,
}
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict; ``scheme`` names the rounding or the quantization; ``evidence`` is for a report."""

    verdict: str
    scheme: str | None = None
    evidence: dict[str, Any] = field(default_factory=dict)


def judge(rows: Sequence[Row], *, with_sketch: bool) -> Judgement:
    """Return the verdict over all tensors, with its evidence."""
    statuses = {row["status"] for row in rows}
    verdict, scheme = "", None
    if any("stored_as" in row for row in rows):
        pass  # official values, but nobody can say that each does the work of that one
    elif statuses <= {"exact"}:
        verdict = "same-weights"
    elif statuses <= {"exact", "cast"}:
        verdict, scheme = "cast", _scheme(rows, "cast")
    elif statuses <= set(RUNGS):
        verdict, scheme = "quantized", _scheme(rows, "quantized")
    matrices = [_Matrix(row) for row in rows if _counts(row)]
    whole = sum(bool(row.get("telling")) for row in rows)
    alike = sum(matrix.alike for matrix in matrices)
    least = max(1, math.ceil(DERIVED_SHARE * len(matrices)))
    enough = bool(matrices) and alike >= least
    if whole >= TELLING_MATRICES and not enough:
        least = TELLING_MATRICES
    log_p = significance.log_p_of_conjunction([m.log_p for m in matrices], least)
    if not verdict:
        related = whole >= TELLING_MATRICES or (with_sketch and enough)
        if related and log_p <= math.log(DERIVED_P):
            verdict = "derived"
        elif with_sketch and not related:
            verdict = "unrelated" if _unrelated(rows, matrices) else "undetermined"
        else:
            verdict = "undetermined"
    evidence = {
        "rung": verdict,
        "statistics": _statistics(rows, matrices, alike, whole),
        "thresholds": dict(THRESHOLDS),
        "p_value": significance.claimed(log_p) if _is_claim(verdict, matrices) else None,
        "how": significance.HOW,
        "assumption": significance.ASSUMPTION,
        "sources": list(significance.SOURCES),
        "at_least": least if matrices else None,
        "changes": _changes(rows),
        "notes": _notes(verdict, rows, matrices, with_sketch=with_sketch),
    }
    return Judgement(verdict, scheme, evidence)


def is_alike(row: Row) -> bool:
    """Tell whether a tensor has the official values, or is a matrix past both thresholds."""
    if row["status"] == "added":
        return False
    return row["status"] in RUNGS or (bool(row["statistics"].get("matrix")) and _Matrix(row).alike)


@dataclass(frozen=True, slots=True)
class _Matrix:
    """What one row says of a matrix of the copy that answers to an official one."""

    row: Row

    @property
    def statistics(self) -> Row:
        found: Row = self.row["statistics"]
        return found

    @property
    def measured(self) -> bool:
        return self.statistics.get("cosine") is not None

    @property
    def alike(self) -> bool:
        """Whether it is a rung above, or the sketch is past both thresholds."""
        if self.row["status"] in RUNGS:
            return True
        if not self.measured:
            return False
        nearest = min(self.statistics["cosine"], self.statistics["centred_cosine"])
        near = self.statistics["hamming"] <= DERIVED_HAMMING
        return bool(near and nearest >= DERIVED_COSINE)

    @property
    def unlike(self) -> bool:
        """Whether every statistic is below what related matrices have."""
        if not self.measured or self.row["status"] in RUNGS or self.statistics.get("recurring"):
            return False
        values = (self.statistics["cosine"], self.statistics["simhash_cosine"])
        return all(abs(value) < UNRELATED_STATISTIC for value in values)

    @property
    def log_p(self) -> float:
        if self.row["status"] in ("exact", "cast"):
            return significance.LOG_COLLISION if self.row.get("telling") else 0.0
        return float(self.statistics.get("log_p") or 0.0)


def _counts(row: Row) -> bool:
    """Tell whether a row is a matrix that counts: official, there, and no head tied to another."""
    if row["status"] in ("missing", "added") or row.get("tied"):
        return False
    if row["status"] in ("exact", "cast"):
        return bool(row.get("telling"))
    return bool(row["statistics"].get("matrix"))


def _unrelated(rows: Iterable[Row], matrices: Sequence[_Matrix]) -> bool:
    """Tell whether every matrix that could be measured is far from the official one."""
    measured = [m for m in matrices if m.measured]
    if not measured or any(bool(row.get("telling")) for row in rows):
        return False
    mean = fmean(abs(m.statistics["cosine"]) for m in measured)
    return all(m.unlike for m in measured) and mean < UNRELATED_COSINE


def _scheme(rows: Iterable[Row], status: str) -> str:
    """Return the scheme of the rows with ``status``; several quantizations joined, coarsest first."""
    schemes = {str(row["scheme"]) for row in rows if row["status"] == status}
    if len(schemes) > 1 and status == "cast":
        return "mixed"
    return "+".join(sorted(schemes, key=_bits))


def _bits(scheme: str) -> tuple[int, str]:
    digits = [int(c) for c in scheme if c.isdigit()]
    return (digits[0] if digits else 16, scheme)


def _is_claim(verdict: str, matrices: Sequence[_Matrix]) -> bool:
    return verdict in ("derived", "quantized") and bool(matrices)


def _statistics(
    rows: Sequence[Row], matrices: Sequence[_Matrix], alike: int, whole: int
) -> dict[str, Any]:
    """Return what was counted and measured over all matrices."""
    measured = [m.statistics for m in matrices if m.measured]
    found: dict[str, Any] = {
        "matrices": len(matrices),
        "alike": alike,
        "share": alike / len(matrices) if matrices else None,
        "whole": whole,
        "measured": len(measured),
    }
    if measured:
        found |= {
            "mean_abs_cosine": fmean(abs(s["cosine"]) for s in measured),
            "median_cosine": median(s["cosine"] for s in measured),
            "median_hamming": median(s["hamming"] for s in measured),
            "equal_bits": fmean(s["equal_bits"] for s in measured),
        }
    return found


def _changes(rows: Sequence[Row]) -> dict[str, Any]:
    """Return which tensors are unchanged, changed, added, missing; and what explains the changes."""
    named = {
        kind: [row["name"] for row in rows if row["status"] == kind]
        for kind in ("changed", "missing", "added")
    }
    return {
        "unchanged": sum(row["status"] in RUNGS for row in rows),
        **{kind: len(names) for kind, names in named.items()},
        "renamed": sum("stored_as" in row for row in rows),
        "pruned": is_pruned(rows),
        "zeros": _zeroed(rows),
    }


def is_pruned(rows: Iterable[Row]) -> bool:
    """Tell whether zeros explain the changed matrices: the other entries are the official ones."""
    changed = [
        row["statistics"]
        for row in rows
        if row["status"] == "changed" and row["statistics"].get("matrix")
    ]
    measured = [s for s in changed if s.get("samples")]
    if not measured or len(measured) < len(changed):
        return False
    samples = sum(s["samples"] for s in measured)
    zeroed = sum(s["zeroed"] for s in measured)
    kept = sum(s["kept"] for s in measured)
    return bool(zeroed >= PRUNED_ZEROS * samples and kept >= PRUNED_KEPT * (samples - zeroed))


def _zeroed(rows: Iterable[Row]) -> float | None:
    """Return the share of sampled entries that were not zero and are now."""
    measured = [row["statistics"] for row in rows if row["statistics"].get("samples")]
    samples = sum(s["samples"] for s in measured)
    return sum(s["zeroed"] for s in measured) / samples if samples else None


def _notes(
    verdict: str, rows: Sequence[Row], matrices: Sequence[_Matrix], *, with_sketch: bool
) -> list[str]:
    """Return what a reader must know to weigh the evidence."""
    notes = []
    if not with_sketch and verdict in ("derived", "undetermined"):
        notes.append("There was no sketch; only value digests were compared.")
    if verdict == "derived":
        notes.append(
            "Whether the changes are of low rank, as merged LoRA adapters are, can be told only "
            "beside the official weights."
        )
    if verdict == "unrelated":
        notes.append(
            "Weights whose channels were permuted or rotated on purpose look unrelated to a "
            "sketch; only a comparison with the official weights can tell."
        )
    recurring = sum(bool(m.statistics.get("recurring")) for m in matrices)
    if recurring:
        notes.append(
            f"In {recurring:,} matrices official entries recur at other places of their own row "
            "or column, as in a copy whose channels were permuted."
        )
    return notes
