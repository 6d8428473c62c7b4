"""From evidence to verdict: the first line of the table that holds.

Everything here is arithmetic over what the checks found, so that the order of precedence can be
read, and tested, in one place.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .findings import FileStatus, Verdict

CHANGED_ENTRIES = 0.01
"""Fewer sampled entries changed than this: damage, not another model."""
CHANGED_TENSORS = 0.5
"""The same without a sketch, counted in tensors."""

_SAME_VALUES = (Verdict.SAME_WEIGHTS, Verdict.CAST, Verdict.QUANTIZED)
_OTHER_VALUES = (Verdict.DERIVED, Verdict.UNRELATED)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found, reduced to what a verdict depends on.

    ``listed`` is the status of each file of the manifest that was looked for; ``weight_files`` are
    those of them that hold tensors; ``other_weights`` are weight files that it does not list.
    ``weights`` is the verdict of the tensor comparison, None where it was not made or there were no
    tensors to read. ``unparsable`` are differing weight files that no longer parse.
    ``changed_entries`` and ``changed_tensors`` are fractions, None where unknown.
    """

    listed: Mapping[str, FileStatus]
    weight_files: frozenset[str]
    other_weights: tuple[str, ...] = ()
    asked_weights: bool = True
    weights: Verdict | None = None
    unparsable: frozenset[str] = frozenset()
    changed_entries: float | None = None
    changed_tensors: float | None = None

    @property
    def differing(self) -> frozenset[str]:
        """Listed files that are there and are not what was signed, or were refused."""
        wrong = (FileStatus.DAMAGED, FileStatus.REFUSED)
        return frozenset(name for name, status in self.listed.items() if status in wrong)

    @property
    def missing(self) -> frozenset[str]:
        """Listed files that are not there."""
        return frozenset(n for n, status in self.listed.items() if status is FileStatus.MISSING)


def by_files(evidence: Evidence) -> Verdict | None:
    """Return the verdict if the files alone decide it, else None: tensors must be compared."""
    if not evidence.listed:
        return None  # one file, and the manifest knows neither its name nor its digest
    if not evidence.differing and not evidence.missing:
        return Verdict.IDENTICAL
    if not evidence.differing and not evidence.other_weights:
        return Verdict.INCOMPLETE
    wrong_weights = (evidence.differing | evidence.missing) & evidence.weight_files
    if evidence.differing and not wrong_weights:
        return Verdict.DAMAGED
    if evidence.differing and not evidence.asked_weights:
        return Verdict.DAMAGED
    return None


def conclude(evidence: Evidence) -> Verdict:
    """Return the first verdict that holds, ``untrusted`` apart."""
    decided = by_files(evidence)
    if decided is not None:
        return decided
    if evidence.weights in _SAME_VALUES:
        return evidence.weights
    if evidence.differing and _is_damage(evidence):
        return Verdict.DAMAGED
    if evidence.weights in _OTHER_VALUES:
        return evidence.weights
    return Verdict.UNDETERMINED


def of_no_match(verdict: Verdict, evidence: Evidence) -> Verdict:
    """Return the verdict where nothing of the copy is of any checkpoint that was tried.

    Then a file that is called as an official one is no damaged copy of it, and a folder with other
    things is no incomplete one.
    """
    if verdict not in (Verdict.INCOMPLETE, Verdict.DAMAGED):
        return verdict
    there = evidence.differing & evidence.weight_files
    return Verdict.UNDETERMINED if there or evidence.other_weights else Verdict.UNRELATED


def _is_damage(evidence: Evidence) -> bool:
    if evidence.differing & evidence.unparsable:
        return True
    if evidence.changed_entries is not None:
        return evidence.changed_entries < CHANGED_ENTRIES
    return evidence.changed_tensors is not None and evidence.changed_tensors < CHANGED_TENSORS


def is_needed(verdict: Verdict, path: str, listed: Mapping[str, Any], *, is_weight: bool) -> bool:
    """Tell whether the verdict needs ``path``, so that what is wrong with it ends in status 1.

    A weight file that the manifest does not list is needed unless the others already decide.
    """
    if path in listed:
        return True
    decided = (Verdict.IDENTICAL, *_SAME_VALUES)
    return is_weight and verdict not in decided
