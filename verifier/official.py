"""What `--official DIR` adds: a copy is re-derived from official weights, or compared beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import InputError, ReadError
from .files_check import Hasher, check_files
from .findings import Code, FileStatus, Finding, Verdict
from .manifest import Manifest
from .names import shown
from .progress import Progress
from .readers import is_weight_file
from .walk import Listing, walk
from .weights_check import WeightsCheck, check_weights

TELLING = 3
"""Matrices made of official ones that a copy needs to be called derived, whatever the rest is."""
_FITS = ("rederived", "within-error")


def rederive(
    weights: WeightsCheck,
    listing: Listing,
    manifest: Manifest,
    folder: Path,
    hasher: Hasher,
    progress: Progress,
) -> None:
    """Hold the quantized tensors of the copy in ``listing`` to those in ``folder``.

    The result is `weights.rederived` of the report; the verdict on the weights follows it.

    Raises:
        InputError: ``folder`` does not hold the official weights, or they cannot be read.
    """
    tensors = manifest.tensors()
    if not weights.compared or tensors is None:
        weights.report["rederived"] = _not_run("the weights were not compared")
        return
    if weights.verdict in (Verdict.SAME_WEIGHTS, Verdict.CAST):
        weights.report["rederived"] = _not_run("nothing in the copy is quantized")
        return
    official = _checked(folder, manifest, hasher, progress)
    from . import rederive as module

    try:
        found = module.rederive(
            listing.root, listing.files, official.root, official.files, tensors, progress
        )
    except ReadError as error:
        raise InputError(f"The official weights cannot be read: {shown(str(error))}.") from None
    weights.report["rederived"] = found
    _apply(weights, found)
    _look_beside(weights, listing, official, tensors)


def _look_beside(
    weights: WeightsCheck, listing: Listing, official: Listing, tensors: Mapping[str, Any]
) -> None:
    """Add what only the official weights can tell of a copy that is not, or not just, quantized."""
    if weights.verdict in (None, Verdict.QUANTIZED):
        return
    from . import beside

    width = tensors.get("head_width")
    sides = [
        beside.StoredTensors(side.root, sorted(side.files), width if type(width) is int else None)
        for side in (official, listing)
    ]
    try:
        found = beside.compare(sides[0], sides[1], weights.verdict.value)
    except ReadError as error:
        found = {"verdict": weights.verdict.value, "reason": shown(str(error))}
    evidence = weights.report.setdefault("evidence", {})
    evidence["beside"] = found
    answered = [note for note in evidence.get("notes", ()) if "official weights" in note]
    evidence["notes"] = [note for note in evidence.get("notes", ()) if note not in answered]
    _conclude(weights, Verdict(found["verdict"]))


def _not_run(reason: str) -> dict[str, Any]:
    return {"status": "not-run", "scheme": None, "reason": reason, "tensors": []}


def _checked(folder: Path, manifest: Manifest, hasher: Hasher, progress: Progress) -> Listing:
    """Return the official files, which must have the signed bytes or the published values.

    Raises:
        InputError: they have not.
    """
    listing = walk(folder)
    own = Hasher(hasher.kinds, whole=False, progress=progress)  # not in the journal of the copy
    check = check_files(listing, manifest.files, own)
    hasher.bytes_read += own.bytes_read
    wanted = {name for name in manifest.files if is_weight_file(name)}
    good = {result.path for result in check.named(FileStatus.GOOD)}
    if wanted and wanted <= good:
        listing.files = {name: listing.files[name] for name in wanted}
        return listing
    if check_weights(listing, manifest, None, progress, needed=False).verdict is not (
        Verdict.SAME_WEIGHTS
    ):
        raise InputError(
            f"{shown(str(folder))} does not hold the official weights of {shown(manifest.name)}; "
            "give the folder of an identical copy with --official."
        )
    return listing


def _apply(weights: WeightsCheck, found: Mapping[str, Any]) -> None:
    """Let the verdict on the weights follow what was re-derived."""
    status = found["status"]
    if status in _FITS:
        _conclude(weights, Verdict.QUANTIZED)
        weights.report["scheme"] = found["scheme"]
        weights.findings = [f for f in weights.findings if f.code is not Code.WEIGHTS_DIFFER]
    elif status == "differs":
        wrong = [row for row in found["tensors"] if row["status"] in ("differs", "missing")]
        fitting = sum(
            row["status"] in _FITS and row.get("blocks", 0) > 1 for row in found["tensors"]
        )
        if fitting >= TELLING and weights.verdict in (
            Verdict.QUANTIZED,
            Verdict.UNDETERMINED,
            None,
        ):
            _conclude(weights, Verdict.DERIVED)
        message = f"Not made of the official weights: {shown(found['reason'])}."
        weights.findings.append(
            Finding(
                Code.NOT_REDERIVED,
                wrong[0]["file"],
                message,
                ranges=tuple((start, end) for start, end in wrong[0].get("ranges", ())),
                tensors=tuple(row["name"] for row in wrong[:8]),
            )
        )


def _conclude(weights: WeightsCheck, verdict: Verdict) -> None:
    weights.verdict = verdict
    weights.report["verdict"] = verdict.value
    weights.report.setdefault("evidence", {})["rung"] = verdict.value
