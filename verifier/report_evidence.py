"""The evidence for a rung of the ladder, for a reader who may disagree with it: lines and a chart.

What is shown comes from a report's ``weights``, of this run or of a stored one.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .names import shown

MAX_POINTS = 1000
_WIDTH, _PANEL, _LEFT, _RIGHT, _GAP = 640, 130, 44, 6, 34
_Band = tuple[float, float]


def lines(weights: Mapping[str, Any]) -> list[str]:
    """Return how many matrices are alike, by which thresholds and what chance, in up to three lines.

    The third is what was found beside the official weights.
    """
    evidence = _mapping(weights.get("evidence"))
    found, limits = _mapping(evidence.get("statistics")), _mapping(evidence.get("thresholds"))
    if evidence.get("rung") in ("same-weights", "cast", None):
        return []
    beside = _beside(evidence)
    if not found.get("matrices"):
        return beside
    first = f"{found.get('alike', 0):,} of {found['matrices']:,} matrices alike"
    if found.get("measured"):
        first += (
            f" (cosine ≥ {limits.get('derived_cosine')}, "
            f"Hamming ≤ {limits.get('derived_hamming')}); "
            f"mean |cosine| {found['mean_abs_cosine']:.2f}, equal bits {found['equal_bits']:.0%}"
        )
    if evidence.get("p_value") is not None:
        first += f"; by chance at most {evidence['p_value']:.1e}"
    return [first, *changes(weights), *beside]


def changes(weights: Mapping[str, Any]) -> list[str]:
    """Return how many tensors are changed, missing and so on, in a line, if there is any."""
    found = _mapping(_mapping(weights.get("evidence")).get("changes"))
    kinds = ("unchanged", "changed", "missing", "added", "renamed")
    line = ", ".join(f"{found[kind]:,} {kind}" for kind in kinds if found.get(kind))
    if found.get("pruned"):
        line += f"; pruned: {found.get('zeros') or 0:.0%} of the entries became zero"
    return [line] if line else []


def _beside(evidence: Mapping[str, Any]) -> list[str]:
    """Return what was found beside the official weights, in a line."""
    found = _mapping(evidence.get("beside"))
    if found.get("low_rank"):
        return ["the changes are of low rank, as those of merged adapters are"]
    disguise = _mapping(found.get("disguise"))
    if not disguise:
        return []
    measured = ", ".join(
        f"{name} {one['value']:.2f} (null {one['null_mean']:.2f})"
        for name, one in _mapping(disguise.get("statistics")).items()
    )
    words = "disguised by other channels" if disguise.get("disguised") else "no disguise found"
    return [f"beside the official weights {words}: {measured or 'nothing to compare'}"]


def facts(weights: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return what was measured, the thresholds, and how the p-value was computed, as pairs."""
    evidence = _mapping(weights.get("evidence"))
    if not lines(weights):
        return []
    limits = _mapping(evidence.get("thresholds"))
    pairs = [
        (name.replace("_", " "), f"{value:.3g}" if isinstance(value, float) else value)
        for name, value in _mapping(evidence.get("statistics")).items()
    ]
    pairs.append(("thresholds", _in_words(limits) if limits else None))
    if evidence.get("p_value") is not None:
        pairs += [
            ("p-value", f"{evidence['p_value']:.1e}"),
            ("how", evidence.get("how")),
            ("assuming", evidence.get("assumption")),
            ("after", "; ".join(map(str, evidence.get("sources") or ()))),
        ]
    return pairs + [("note", note) for note in evidence.get("notes") or ()]


def _in_words(limits: Mapping[str, Any]) -> str:
    share = limits.get("derived_share")
    return (
        f"derived: cosine ≥ {limits.get('derived_cosine')} and Hamming ≤ "
        f"{limits.get('derived_hamming')} on at least {share} of the matrices, or "
        f"{limits.get('derived_whole_matrices')} whole ones, and p ≤ "
        f"{limits.get('derived_p_value')}; unrelated: every statistic < "
        f"{limits.get('unrelated_statistic')} and mean |cosine| < "
        f"{limits.get('unrelated_mean_cosine')}"
    )


def chart(weights: Mapping[str, Any]) -> str:
    """Draw cosine and Hamming distance of every measured matrix, with the thresholds as lines."""
    limits = _mapping(_mapping(weights.get("evidence")).get("thresholds"))
    points = [
        (str(row.get("name")), row["statistics"])
        for row in weights.get("tensors") or ()
        if isinstance(row.get("statistics"), Mapping) and _is_measured(row["statistics"])
    ][:MAX_POINTS]
    if not points or not limits:
        return ""
    cosines = [(name, float(s["cosine"])) for name, s in points]
    hammings = [(name, float(s["hamming"])) for name, s in points]
    near = {"derived from": limits.get("derived_cosine")}
    near["unrelated below"] = limits.get("unrelated_statistic")
    far = {"derived up to": limits.get("derived_hamming")}
    body = _panel("cosine", cosines, (-0.25, 1.0), near, 0)
    body += _panel("Hamming distance", hammings, (0.0, 0.6), far, _PANEL + _GAP)
    label = (
        f"{len(points)} matrices: cosine from {min(v for _, v in cosines):.2f} to "
        f"{max(v for _, v in cosines):.2f}, Hamming distance from "
        f"{min(v for _, v in hammings):.2f} to {max(v for _, v in hammings):.2f}"
    )
    return (
        f'<svg class="wb-chart" viewBox="0 0 {_WIDTH} {2 * (_PANEL + _GAP)}" role="img" '
        f'aria-label="{escape(label)}">{body}</svg>'
    )


def _panel(
    title: str,
    points: Sequence[tuple[str, float]],
    band: _Band,
    limits: Mapping[str, Any],
    top: float,
) -> str:
    """Draw one statistic: tensors from left to right, in the order of the report."""
    low, high = band

    def y(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return top + 20 + (1 - share) * (_PANEL - 10)

    step = (_WIDTH - _LEFT - _RIGHT) / max(len(points), 1)
    frame = f'x="{_LEFT}" y="{top + 20}" width="{_WIDTH - _LEFT - _RIGHT}"'
    marks = [
        f'<text x="{_LEFT}" y="{top + 14}">{title} of each matrix</text>',
        f'<rect class="wb-chart-frame" {frame} height="{_PANEL - 10}"/>',
        *(f'<text x="4" y="{y(v) + 4:.1f}">{v:g}</text>' for v in (low, high)),
    ]
    for words, limit in limits.items():
        if isinstance(limit, (int, float)):
            at = y(float(limit))
            beside = at + 12 if words.endswith("below") else at - 3
            marks.append(
                f'<line class="wb-chart-limit" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" '
                f'y1="{at:.1f}" y2="{at:.1f}"/><text class="wb-chart-note" text-anchor="end" '
                f'x="{_WIDTH - _RIGHT - 4}" y="{beside:.1f}">{words} {limit:g}</text>'
            )
    for number, (name, value) in enumerate(points):
        x = _LEFT + (number + 0.5) * step
        marks.append(
            f'<circle class="wb-bar" cx="{x:.1f}" cy="{y(value):.1f}" r="3">'
            f"<title>{escape(shown(name))}: {value:.3f}</title></circle>"
        )
    return "".join(marks)


def _is_measured(statistics: Mapping[str, Any]) -> bool:
    numbers = (statistics.get("cosine"), statistics.get("hamming"))
    return bool(statistics.get("matrix")) and all(isinstance(n, (int, float)) for n in numbers)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
