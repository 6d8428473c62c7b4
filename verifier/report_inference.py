"""What running a copy showed: statistics, and a plot of agreement by position and by layer.

Distances are drawn on a logarithmic scale, with the threshold as a line. What is beyond it is a
cross, not only another colour; NaN stands at the top. A table with the same numbers lies behind.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from .names import shown

MAX_POINTS = 1024
CHALLENGE_REPORT = "weighbridge.challenge-report/1"
Rung = tuple[str, str, str, str]
"""Name, tone, what was found, and what the rung can say and cannot."""

SCOPE = {
    "Signature": "Says who listed the files; nothing yet about this copy.",
    "Files": "Every byte of the files listed, by digest. Only this says authentic.",
    "Weights": "The values of every tensor, whatever the files look like. Not the tokenizer or the "
    "settings.",
    "Inference": "Whether the copy computes alike on fixed token ids, and a signature of every "
    "tensor. Not that it is unmodified elsewhere.",
}
ANSWERED = "Whether whoever answered computes alike on token ids that nobody knew before."
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 340, 190, 46, 6, 24, 22
_LEAST = 1e-10


@dataclass(frozen=True, slots=True)
class Point:
    """A distance, None for NaN, what it belongs to, and how large it may be."""

    name: str
    distance: float | None
    threshold: float | None

    @property
    def is_beyond(self) -> bool:
        """Whether it is larger than allowed, or none."""
        return self.threshold is not None and (
            self.distance is None or self.distance > self.threshold
        )


def rung(inference: Mapping[str, Any]) -> Rung:
    """Return the rung of the ladder."""
    status = str(inference.get("status") or "not-run")
    tones = {"agrees": "good", "disagrees": "bad", "not-run": "muted"}
    text = f"{status}: {inference['reason']}" if inference.get("reason") else status
    positions, device = inference.get("positions"), inference.get("device")
    if status != "not-run" and positions:
        text += f" ({positions} positions" + (f" on {device})" if device else ")")
    return "Inference", tones.get(status, "warn"), text, SCOPE["Inference"]


def challenge_rungs(report: Mapping[str, Any]) -> list[Rung]:
    """Return the ladder of a challenge: what its answer can say, and what nobody looked at."""
    inference = _mapping(report.get("inference"))
    unseen = "not checked: no file was sent, only answers"
    signed = _mapping(inference.get("thresholds")).get("signatures")
    found = _number(_mapping(inference.get("statistics")).get("signatures"))
    weights: Rung = ("Weights", "muted", "no signature of a tensor was compared", "")
    if signed is not None:
        others = len(inference.get("tensors") or ())
        right = found is not None and found <= signed
        weights = (
            "Weights",
            "good" if right else "bad",
            "every tensor has the official secret signature"
            if right
            else f"{others or 'some'} tensors have another signature than the official ones",
            "Random sums over every entry of each tensor, drawn for this challenge.",
        )
    return [
        ("Signature", "muted", unseen, SCOPE["Signature"]),
        ("Files", "muted", unseen, SCOPE["Files"]),
        weights,
        (*rung(inference)[:3], ANSWERED),
    ]


def section(inference: Mapping[str, Any]) -> str:
    """Return the part of a report about inference: statistics, plots, and the numbers behind."""
    statistics = inference.get("statistics")
    if inference.get("status") in (None, "not-run") or not isinstance(statistics, Mapping):
        return ""
    thresholds = _mapping(inference.get("thresholds"))
    rows = "\n".join(
        f"<tr><td>{_text(name)}</td>"
        f'<td class="wb-number" data-label="Measured">{_value(value)}</td>'
        f'<td class="wb-number" data-label="Threshold">{_value(thresholds.get(name))}</td></tr>'
        for name, value in statistics.items()
    )
    facts = "".join(
        f"<dt>{_text(key.replace('_', ' '))}</dt><dd><code>{_text(inference[key])}</code></dd>"
        for key in ("device", "dtype", "positions", "first_layer", "first_tensor")
        if inference.get(key) is not None
    )
    table = _table(("Statistic", "Measured", "Threshold"), rows) if rows else ""
    facts = f'<dl class="wb-facts">{facts}</dl>' if facts else ""
    return f"<h2>Inference</h2>\n{facts}{plots(inference)}{table}"


def plots(inference: Mapping[str, Any]) -> str:
    """Draw agreement by position and by layer, and put both in a table behind."""
    limit = _number(_mapping(inference.get("thresholds")).get("logits"))
    values = list(inference.get("per_position") or ())[:MAX_POINTS]
    positions = [Point(str(n), _number(v), limit) for n, v in enumerate(values)]
    layers = [
        Point(str(row.get("layer")), _number(row.get("distance")), _number(row.get("threshold")))
        for row in list(inference.get("layers") or ())[:MAX_POINTS]
        if isinstance(row, Mapping)
    ]
    drawn = [
        (title, axis, points)
        for title, axis, points in (
            ("Distance at each position", "position", positions),
            ("Distance after each layer", "layer", layers),
        )
        if points
    ]
    if not drawn:
        return ""
    rows = "\n".join(_row(axis, point) for _, axis, points in drawn for point in points)
    return (
        f'<div class="wb-plots">{"".join(_plot(*one) for one in drawn)}</div>\n'
        '<details class="wb-behind"><summary>The same numbers as a table</summary>'
        f"{_table(('Where', 'Distance', 'Threshold'), rows)}</details>"
    )


def _row(axis: str, point: Point) -> str:
    where = f"position {point.name}" if axis == "position" else point.name
    mark = " (beyond)" if point.is_beyond else ""
    value = "not a number" if point.distance is None else f"{point.distance:.2e}"
    return (
        f"<tr><td>{_text(where)}</td>"
        f'<td class="wb-number" data-label="Distance">{value}{mark}</td>'
        f'<td class="wb-number" data-label="Threshold">{_value(point.threshold)}</td></tr>'
    )


def _plot(title: str, axis: str, points: Sequence[Point]) -> str:
    low, high = _decades(points)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    step = (right - _LEFT) / len(points)

    def x(number: float) -> float:
        return _LEFT + (number + 0.5) * step

    def y(value: float | None) -> float:
        power = high if value is None else math.log10(max(value, _LEAST))
        share = (min(max(power, low), high) - low) / (high - low)
        return bottom - share * (bottom - _TOP)

    beyond = sum(point.is_beyond for point in points)
    box = f'width="{right - _LEFT}" height="{bottom - _TOP}"'
    parts = [
        f'<text x="{_LEFT}" y="14">{title}</text>',
        f'<rect class="wb-chart-frame" x="{_LEFT}" y="{_TOP}" {box}/>',
    ]
    for power in range(low, high + 1, max(1, (high - low + 4) // 5)):
        at = y(10.0**power)
        parts.append(
            f'<line class="wb-chart-grid" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="wb-chart-note" x="{_LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">'
            f"1e{power}</text>"
        )
    parts += _limit_line(points, x, y, step)
    parts += [_mark(x(n), y(point.distance), point) for n, point in enumerate(points)]
    first, last = ("embedding", f"layer {len(points) - 2}") if axis == "layer" else ("0", "")
    last = last or f"{axis} {len(points) - 1}"
    parts.append(
        f'<text class="wb-chart-note" x="{_LEFT}" y="{_HEIGHT - 6}">{first}</text>'
        f'<text class="wb-chart-note" x="{right}" y="{_HEIGHT - 6}" text-anchor="end">{last}</text>'
    )
    told = f"{title}: {len(points)} values, {_span(points)}; {beyond} beyond the threshold"
    return (
        f'<svg class="wb-plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(told)}">{"".join(parts)}</svg>'
    )


def _limit_line(points: Sequence[Point], x: Any, y: Any, step: float) -> Iterable[str]:
    """Draw the thresholds as one line, which may go up and down with the layers."""
    spots = [(x(n), y(p.threshold)) for n, p in enumerate(points) if p.threshold is not None]
    if not spots:
        return
    line = " ".join(
        f"{at - step / 2:.1f},{height:.1f} {at + step / 2:.1f},{height:.1f}" for at, height in spots
    )
    yield f'<polyline class="wb-chart-limit" points="{line}"/>'
    yield (
        f'<line class="wb-chart-limit" x1="{_WIDTH - _RIGHT - 88}" x2="{_WIDTH - _RIGHT - 62}" '
        'y1="10" y2="10"/>'
        f'<text class="wb-chart-note" text-anchor="end" x="{_WIDTH - _RIGHT}" y="14">threshold</text>'
    )


def _mark(x: float, y: float, point: Point) -> str:
    value = "not a number" if point.distance is None else f"{point.distance:.2e}"
    title = f"<title>{_text(point.name)}: {value}</title>"
    if point.is_beyond:
        arms = f"M{x - 3:.1f} {y - 3:.1f}l6 6M{x + 3:.1f} {y - 3:.1f}l-6 6"
        return f'<path class="wb-chart-beyond" d="{arms}">{title}</path>'
    return f'<circle class="wb-bar" cx="{x:.1f}" cy="{y:.1f}" r="2.5">{title}</circle>'


def _decades(points: Sequence[Point]) -> tuple[int, int]:
    """Return the powers of ten between which everything lies; 0 has none and lies at the bottom."""
    values = [v for p in points for v in (p.distance, p.threshold) if v]
    powers = [math.log10(max(value, _LEAST)) for value in values] or [-6.0]
    low, high = math.floor(min(powers)), math.ceil(max(powers) + 0.2)
    return low, max(high, low + 2)


def _span(points: Sequence[Point]) -> str:
    known = [point.distance for point in points if point.distance is not None]
    return f"from {min(known):.1e} to {max(known):.1e}" if known else "none of them a number"


def _table(heads: Sequence[str], rows: str) -> str:
    first, *others = heads
    numbers = "".join(f'<th scope="col" class="wb-number">{head}</th>' for head in others)
    return (
        f'<table class="wb-cards">\n<thead><tr><th scope="col">{first}</th>{numbers}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table>"
    )


def _number(value: Any) -> float | None:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if fits and math.isfinite(value) and value >= 0 else None


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "–" if value is None else _text(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return escape(shown(str(value)))
