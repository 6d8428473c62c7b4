"""Compare the tensors of a copy with the manifest's value digests; name those in damaged bytes."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import names, strict_json
from .errors import InputError, ReadError
from .findings import Code, FileResult, FileStatus, Finding, Range, Verdict
from .manifest import Manifest, read_bounded
from .progress import Progress
from .readers import TensorEntry, is_weight_file, read_tensors
from .walk import Listing

MAX_SHOWN_TENSORS = 8
MAX_SKETCH_BYTES = 48 << 20
"""Six kilobytes a tensor: that of eight thousand."""
_DIFFERENCES = {
    "cast": "cast",
    "quantized": "quantized",
    "changed": "changed",
    "missing": "missing",
    "added": "added that are not official",
}
"""What is said of tensors that do not have the official values, by their status."""


@dataclass(slots=True)
class WeightsCheck:
    """The outcome; ``verdict`` is None where nothing was compared, and ``report`` says why."""

    report: dict[str, Any]
    verdict: Verdict | None = None
    changed_entries: float | None = None
    changed_tensors: float | None = None
    findings: list[Finding] = field(default_factory=list)
    bytes_read: int = 0

    @property
    def exact(self) -> frozenset[str]:
        """Names of the tensors that have the official values."""
        rows = self.report.get("tensors") or ()
        return frozenset(row["name"] for row in rows if row["status"] == "exact")

    @property
    def rung(self) -> str | None:
        """What the weights are, in the words of the inference check; None where they have no bound."""
        scheme = self.report.get("scheme")
        if self.verdict not in (Verdict.CAST, Verdict.QUANTIZED) or scheme in (None, "mixed"):
            return None
        return f"{self.verdict.value}:{scheme}"

    @property
    def compared(self) -> bool:
        """Whether tensors were looked at."""
        return bool(self.report["status"] == "compared")


def not_compared(reason: str, *, asked: bool) -> WeightsCheck:
    """Return the outcome of a comparison that was not made; a finding says so if one was needed."""
    check = WeightsCheck({"status": "not-run", "reason": reason})
    if asked:
        message = f"The weights were not compared: {reason}."
        check.findings.append(Finding(Code.WEIGHTS_NOT_COMPARED, "", message))
    return check


def load_sketch(path: Path) -> Mapping[str, Any]:
    """Read a portal's sketch.

    Raises:
        InputError: it is not a sketch.
        ManifestError: it cannot be read, or is not JSON.
    """
    data = read_bounded(path, MAX_SKETCH_BYTES, "The sketch")
    sketch = strict_json.loads(data, f"The sketch {path}", max_bytes=MAX_SKETCH_BYTES)
    if not isinstance(sketch, dict):
        raise InputError(f"{path} is not a sketch.")
    return sketch


def check_weights(
    listing: Listing,
    manifest: Manifest,
    sketch: Mapping[str, Any] | None,
    progress: Progress,
    *,
    needed: bool,
) -> WeightsCheck:
    """Compare every tensor of the weight files in ``listing`` with the manifest's digests.

    Where that cannot be done and is ``needed`` for the verdict, a finding says so.
    """
    files = sorted(name for name in listing.files if is_weight_file(name))
    tensors = manifest.tensors()
    if not files:
        return not_compared("the copy holds no weight file", asked=False)
    if tensors is None:
        return not_compared("the manifest has no value digests", asked=needed)
    from . import values

    if not values.available():
        return not_compared(
            "torch or numpy is not installed here; pip install torch numpy", asked=needed
        )
    read = 0

    def listen(stage: str, done: int, total: int) -> None:
        nonlocal read
        read = done
        progress(stage, done, total)

    result = values.compare(listing.root, files, tensors, sketch, listen)
    counts = dict(result.counts)
    total = sum(counts.get(kind, 0) for kind in values.STATUSES if kind != "added")
    check = WeightsCheck(
        {
            "status": "compared",
            "reason": "",
            "verdict": result.verdict,
            "scheme": result.scheme,
            "counts": counts,
            "changed_fraction": result.changed_fraction,
            "evidence": result.evidence,
            "tensors": result.tensors,
            "missing": result.missing,
            "added": result.added,
        },
        verdict=Verdict(result.verdict) if result.verdict else None,
        changed_entries=result.changed_fraction,
        changed_tensors=counts.get("changed", 0) / total if total else None,
        bytes_read=read,
    )
    for problem in result.problems:
        message = f"{names.shown(str(problem)).rstrip('.')}."
        check.findings.append(Finding(Code.WEIGHTS_REFUSED, problem.path, message))
    if check.verdict is None and not result.problems:
        message = "The weights were not compared: the copy's weight files hold no tensor."
        check.findings.append(Finding(Code.WEIGHTS_NOT_COMPARED, "", message))
    if check.verdict not in (Verdict.SAME_WEIGHTS, Verdict.CAST, Verdict.QUANTIZED, None):
        check.findings.append(_difference(result.tensors, counts, total))
    return check


def _difference(
    tensors: Iterable[Mapping[str, Any]], counts: Mapping[str, int], total: int
) -> Finding:
    changed = tuple(str(t["name"]) for t in tensors if t.get("status") in ("changed", "missing"))
    exact = counts.get("exact", 0)
    rest = [f"{counts[kind]:,} {words}" for kind, words in _DIFFERENCES.items() if counts.get(kind)]
    message = f"{exact or 'None'} of {total:,} official tensors {'have' if exact > 1 else 'has'} "
    message += f"the official values: {', '.join(rest)}." if rest else "the official values."
    return Finding(Code.WEIGHTS_DIFFER, "", message, tensors=changed[:MAX_SHOWN_TENSORS])


@dataclass(slots=True)
class Damage:
    """What the headers of the copy say about its damaged files, without torch.

    ``changed_share`` bounds from above how much differs, in tensors or in bytes.
    """

    unparsable: frozenset[str] = frozenset()
    touched: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    changed_share: float | None = None
    findings: list[Finding] = field(default_factory=list)


def look_at_damage(listing: Listing, results: Iterable[FileResult], manifest: Manifest) -> Damage:
    """Read the headers of the listed weight files: which still parse, whose bytes differ.

    Where a header is destroyed, the manifest's tensors.json says what lay in the damaged bytes.
    """
    unparsable: set[str] = set()
    touched: dict[str, tuple[str, ...]] = {}
    findings: list[Finding] = []
    changed = total = changed_bytes = total_bytes = 0
    for result in results:
        if not is_weight_file(result.path) or result.status is FileStatus.MISSING:
            continue
        if result.status is FileStatus.REFUSED:
            unparsable.add(result.path)
            continue
        try:
            entries = read_tensors(listing.root, result.path)
        except ReadError as error:
            if result.status is FileStatus.DAMAGED:
                unparsable.add(result.path)
                message = f"{names.shown(str(error)).rstrip('.')}."
                findings.append(Finding(Code.WEIGHTS_REFUSED, result.path, message))
                published = _published_places(manifest, result.path)
                touched[result.path] = _touched(published, result.ranges)
            continue
        hit = _touched(entries, result.ranges)
        touched[result.path] = hit
        changed += len(hit)
        total += len(entries)
        changed_bytes += sum(end - start for start, end in result.ranges)
        total_bytes += result.size or 0
    share = min(changed / total, changed_bytes / total_bytes) if total and total_bytes else None
    return Damage(frozenset(unparsable), touched, share, findings)


def _published_places(manifest: Manifest, path: str) -> list[TensorEntry]:
    """Return where the official tensors lie in the file ``path``."""
    rows = (manifest.tensors() or {}).get("tensors")
    return [
        TensorEntry(str(row["name"]), "", (), path, place["start"], place["end"])
        for row in rows or ()
        for place in row.get("place") or ()
        if place.get("file") == path
    ]


def _touched(entries: Iterable[TensorEntry], ranges: Sequence[Range]) -> tuple[str, ...]:
    """Return the names of the tensors with a byte in ``ranges``, which are in order and apart."""
    ends = [end for _, end in ranges]

    def is_hit(entry: TensorEntry) -> bool:
        first = bisect_right(ends, entry.start)
        return first < len(ranges) and ranges[first][0] < entry.end and entry.start < entry.end

    return tuple(entry.name for entry in entries if is_hit(entry))


def with_tensor_names(
    finding: Finding, touched: Mapping[str, tuple[str, ...]], exact: frozenset[str]
) -> Finding:
    """Return a finding of damage with the names of the tensors in its byte ranges.

    A leaf reaches into several tensors; those known to be ``exact`` are not named.
    """
    near = touched.get(finding.path, ())
    hit = tuple(name for name in near if name not in exact) or near
    if finding.code is not Code.DAMAGED or not hit:
        return finding
    more = f" and {len(hit) - 1} more" if len(hit) > 1 else ""
    # Where the damage is comes before its cause, which may end in a remedy.
    start = f"{names.shown(finding.path)} differs in bytes "
    where, colon, cause = finding.message.removeprefix(start).rstrip(".").partition(": ")
    message = f"{start}{where}, in {names.shown(hit[0])}{more}{colon}{cause}."
    return replace(finding, message=message, tensors=hit[:MAX_SHOWN_TENSORS])
