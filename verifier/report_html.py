"""A report as a page: what was checked, rung by rung, and a map of each file drawn to scale.

``fragment`` has only classes (no script, no inline style), so that a page with a strict content
security policy can include it; ``render`` puts it on a page of its own with ``report.css``.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from . import report_evidence, report_inference
from .findings import Verdict
from .names import shown
from .report import COPIES, meaning, signer, size

STYLE_SHEET = Path(__file__).with_name("report.css")

MAX_FILES = 500
MAX_FINDINGS = 200
MAX_TENSORS = 200
MAX_RANGES = 400
MAP_WIDTH = 1000

_TONES = {
    "identical": "good",
    "same-weights": "good",
    "cast": "good",
    "quantized": "good",
    "incomplete": "warn",
    "undetermined": "warn",
    "derived": "warn",
    # of an answer to a challenge
    "agrees": "good",
    "close": "warn",
    "inconclusive": "warn",
    "not-run": "warn",
}
_FILE_TONES = {
    "damaged": "bad",
    "differs": "bad",
    "refused": "bad",
    "missing": "warn",
    "cannot-be-told": "warn",
    "good": "good",
    "official": "good",
    "unlisted": "muted",
}
"""The states of files, the worst first."""
_MOSTLY_GOOD = ("good", "damaged", "official")
_ICONS = {
    "good": '<path d="M2 9l4 4 8-10"/>',
    "bad": '<path d="M3 3l10 10M13 3L3 13"/>',
    "warn": '<path d="M8 2v8M8 12.5v1.5"/>',
    "muted": '<path d="M3 8h10"/>',
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
@page {{ size: A4; margin: 16mm; }}
body {{ margin: 0; background: Canvas; }}
main {{ max-width: 60rem; margin: 0 auto; padding: 24px 16px 48px; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #15171a; }} }}
@media print {{ body {{ background: #ffffff; }} main {{ padding: 0; max-width: none; }} }}
{style}</style>
</head>
<body>
<main class="wb-report">
<h1 class="wb-title">Verification report</h1>
{body}
</main>
</body>
</html>
"""


def render(report: Mapping[str, Any]) -> str:
    """Return a self-contained page of one report."""
    return page([report])


def page(reports: Sequence[Mapping[str, Any]]) -> str:
    """Return a self-contained page of one report or more, one below the other."""
    title = f"{reports[0]['verdict']}: {shown(reports[0].get('checkpoint') or 'verification')}"
    return _PAGE.format(
        title=escape(title),
        style=STYLE_SHEET.read_text(encoding="utf-8"),
        body="\n".join(_article(report, several=len(reports) > 1) for report in reports),
    )


def fragment(report: Mapping[str, Any]) -> str:
    """Return the body of a report, to be included in a page that links ``report.css``."""
    return f'<div class="wb-report">\n{_article(report)}\n</div>'


def _article(report: Mapping[str, Any], *, several: bool = False) -> str:
    if report.get("schema") == report_inference.CHALLENGE_REPORT:
        parts = [_head(report), _rungs_list(report_inference.challenge_rungs(report))]
        parts += [report_inference.section(report.get("inference") or {}), _facts(report)]
        return "<article>\n" + "\n".join(filter(None, parts)) + "\n</article>"
    path = f'<p class="wb-title"><code>{_text(report.get("path"))}</code></p>' if several else ""
    parts = [path, _head(report), _ladder(report), _findings(report.get("findings") or [])]
    parts += [_torrent(report.get("torrent") or {}), _files(report.get("files") or [])]
    parts += [_weights(report.get("weights") or {})]
    parts += [report_inference.section(report.get("inference") or {}), _facts(report)]
    return "<article>\n" + "\n".join(filter(None, parts)) + "\n</article>"


def _head(report: Mapping[str, Any]) -> str:
    verdict = str(report["verdict"])
    tone = _TONES.get(verdict, "bad")
    signed = bool((report.get("manifest") or {}).get("signed_by"))
    says = report.get("meaning") or meaning(Verdict(verdict), signed=signed)
    name = f"<code>{_text(report.get('checkpoint') or 'unknown checkpoint')}</code>"
    identified = report.get("identified")
    if identified:  # the question was what it is
        name = _text(identified["claim"])
    sentence = "" if report.get("accepted") else _text(report.get("sentence") or "")
    return (
        f'<header class="wb-head wb-{tone}">\n'
        f'<p class="wb-verdict">{_icon(tone)} {escape(verdict)}</p>\n'
        f"<p>{name}: {_text(says)}.</p>\n"
        + (f"<p>{sentence}</p>\n" if sentence else "")
        + "</header>"
    )


def _ladder(report: Mapping[str, Any]) -> str:
    """The evidence, from the cheapest rung: what was checked, and what was not."""
    found = [_signature_rung(report), _files_rung(report)]
    if not report.get("torrent"):
        found += [_weights_rung(report.get("weights") or {}, Verdict(report["verdict"]))]
    rungs = [(*one, report_inference.SCOPE[one[0]]) for one in found]
    if not report.get("torrent"):
        rungs += [report_inference.rung(report.get("inference") or {})]
    return _rungs_list(rungs)


def _rungs_list(rungs: Iterable[report_inference.Rung]) -> str:
    items = "\n".join(
        f'<li class="wb-{tone}">{_icon(tone)}<strong>{name}</strong><span>{_text(text)}'
        + (f'<small class="wb-scope">{_text(scope)}</small>' if scope else "")
        + "</span></li>"
        for name, tone, text, scope in rungs
    )
    return f'<ol class="wb-ladder">\n{items}\n</ol>'


def _signature_rung(report: Mapping[str, Any]) -> tuple[str, str, str]:
    manifest = report.get("manifest") or {}
    if report["verdict"] == "untrusted":
        return "Signature", "bad", "does not hold"
    if not manifest.get("signed_by"):
        return "Signature", "warn", "not signed"
    revision = manifest.get("revision")
    text = f"holds, by {signer(str(manifest['signed_by']))}" + (
        f", revision {revision}" if revision else ""
    )
    return "Signature", "good", text


def _files_rung(report: Mapping[str, Any]) -> tuple[str, str, str]:
    counts: dict[str, int] = {}
    for file in report.get("files") or []:
        counts[file["status"]] = counts.get(file["status"], 0) + 1
    text = ", ".join(f"{number:,} {status}" for status, number in counts.items())
    if not counts:
        return "Files", "muted", "not checked"
    if counts.keys() & {"damaged", "refused", "differs"}:
        return "Files", "bad", text
    doubtful = counts.keys() & {"missing", "cannot-be-told"}
    return "Files", "warn" if doubtful else "good", text


def _weights_rung(weights: Mapping[str, Any], found: Verdict) -> tuple[str, str, str]:
    if weights.get("status") != "compared":
        return "Weights", "muted", f"not compared: {weights.get('reason') or 'not asked for'}"
    if found in COPIES and report_evidence.changes(weights):
        return "Weights", "warn", report_evidence.changes(weights)[0]
    verdict = str(weights.get("verdict") or "nothing readable")
    counts = weights.get("counts") or {}
    detail = ", ".join(f"{number:,} {kind}" for kind, number in counts.items() if number)
    scheme = f" ({weights['scheme']})" if weights.get("scheme") else ""
    text = f"{verdict}{scheme}: {detail} tensors"
    return "Weights", _TONES.get(verdict, "bad"), ". ".join([text, *report_evidence.lines(weights)])


def _findings(findings: Sequence[Mapping[str, Any]]) -> str:
    if not findings:
        return ""
    items = [
        f"<li><code>{_text(f['code'])}</code> {_text(f['message'])}</li>"
        for f in findings[:MAX_FINDINGS]
    ]
    if len(findings) > MAX_FINDINGS:
        items.append(f"<li>and {len(findings) - MAX_FINDINGS:,} more, in the JSON report</li>")
    return f'<h2>Findings</h2>\n<ul class="wb-findings">\n{chr(10).join(items)}\n</ul>'


def _files(files: Sequence[Mapping[str, Any]]) -> str:
    if not files:
        return ""
    worst = {status: place for place, status in enumerate(_FILE_TONES)}
    ordered = sorted(files, key=lambda file: worst.get(file["status"], len(worst)))
    rows = "\n".join(_file_row(file) for file in ordered[:MAX_FILES])
    more = len(files) - MAX_FILES
    note = f'<p class="wb-muted">and {more:,} more files</p>' if more > 0 else ""
    return (
        '<h2>Files</h2>\n<table class="wb-cards">\n<thead><tr><th scope="col">File</th>'
        '<th scope="col" class="wb-number">Size</th><th scope="col">State</th>'
        f'<th scope="col">Map</th></tr></thead>\n<tbody>\n{rows}\n</tbody></table>{note}'
    )


def _file_row(file: Mapping[str, Any]) -> str:
    status = str(file["status"])
    tone = _FILE_TONES.get(status, "muted")
    return (
        f"<tr><td><code>{_text(file['path'])}</code></td>"
        f'<td class="wb-number" data-label="Size">{_size(file.get("size"))}</td>'
        f'<td data-label="State" class="wb-state wb-{tone}">{escape(status)}'
        f"{_piece_counts(file.get('pieces') or {})}</td>"
        f"<td>{_map(file)}</td></tr>"
    )


def _piece_counts(pieces: Mapping[str, Mapping[str, int]]) -> str:
    """How many pieces of a torrent that the file lies in are official, for each half."""
    counts = (f"{half}: {n['official']:,} of {n['total']:,} pieces" for half, n in pieces.items())
    return "".join(f"<br>{_text(count)}" for count in counts)


def _torrent(torrent: Mapping[str, Any]) -> str:
    facts = _list((str(key).replace("_", " "), value) for key, value in torrent.items())
    return f"<h2>Torrent</h2>\n{facts}" if torrent else ""


def _map(file: Mapping[str, Any]) -> str:
    """A strip of the file, to scale: what is good, damaged, missing."""
    status = str(file["status"])
    size = max(file.get("size") or 0, file.get("expected_size") or 0, 1)
    whole = f'x="0" y="0" width="{MAP_WIDTH}" height="32"'
    shapes = [f'<rect class="wb-map-{"good" if status in _MOSTLY_GOOD else "other"}" {whole}/>']
    if status == "missing":
        shapes = [f'<rect class="wb-map-missing" {whole}/>']
    ranges = file.get("ranges") or []
    for start, end in ranges[:MAX_RANGES]:
        # At least two units wide: one bad leaf of a large file must be seen.
        left = min(MAP_WIDTH * start / size, MAP_WIDTH - 2)
        width = max(2.0, MAP_WIDTH * (end - start) / size)
        shapes.append(
            f'<rect class="wb-map-bad" x="{left:.2f}" y="0" width="{width:.2f}" height="32"/>'
        )
    shapes.append(f'<rect class="wb-map-frame" {whole}/>')
    words = ", ".join(f"bytes {start:,} to {end:,}" for start, end in ranges[:3])
    label = f"{status}: {words}" if words else status
    return (
        f'<svg class="wb-map" viewBox="0 0 {MAP_WIDTH} 32" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}">{"".join(shapes)}</svg>'
    )


def _weights(weights: Mapping[str, Any]) -> str:
    if weights.get("status") != "compared":
        return ""
    counts = {k: v for k, v in (weights.get("counts") or {}).items() if isinstance(v, int)}
    tensors = [t for t in weights.get("tensors") or [] if t.get("status") != "exact"]
    rows = "\n".join(
        f'<tr><td><code>{_text(t.get("name"))}</code></td><td data-label="State">'
        f'{_text(t.get("status"))}</td><td data-label="Statistics">{_statistics(t)}</td></tr>'
        for t in tensors[:MAX_TENSORS]
    )
    table = (
        '<table class="wb-cards">\n<thead><tr><th scope="col">Tensor</th><th scope="col">State</th>'
        f'<th scope="col">Statistics</th></tr></thead>\n<tbody>\n{rows}\n</tbody></table>'
    )
    more = len(tensors) - MAX_TENSORS
    note = f'<p class="wb-muted">and {more:,} more tensors</p>' if more > 0 else ""
    evidence = report_evidence.chart(weights) + _list(report_evidence.facts(weights))
    return f"<h2>Weights</h2>\n{_chart(counts)}{evidence}" + (table + note if tensors else "")


def _chart(counts: Mapping[str, int]) -> str:
    """Bars of tensor counts; the numbers stand beside them as text."""
    total = max(sum(counts.values()), 1)
    rows = []
    for line, (kind, number) in enumerate(counts.items()):
        y, width = line * 24, 440 * number / total
        rows.append(
            f'<text x="0" y="{y + 16}">{_text(kind)}</text>'
            f'<rect class="wb-bar" x="90" y="{y + 4}" width="{width:.1f}" height="16"/>'
            f'<text x="540" y="{y + 16}">{number:,}</text>'
        )
    label = ", ".join(f"{kind} {number}" for kind, number in counts.items())
    return (
        f'<svg class="wb-chart" viewBox="0 0 640 {24 * max(len(counts), 1)}" role="img" '
        f'aria-label="tensors: {escape(label)}">{"".join(rows)}</svg>'
    )


_SHOWN = (
    *("scheme", "stored_as", "dtype", "shape", "official_shape", "cosine", "centred_cosine"),
    *("hamming", "p_value", "equal_bits", "levels", "off_grid", "grid"),
)
"""What the table of tensors shows of each, the first eight that it has."""


def _statistics(tensor: Mapping[str, Any]) -> str:
    inner = tensor.get("statistics")
    values = {**tensor, **(inner if isinstance(inner, Mapping) else {})}
    found = [(name, values[name]) for name in _SHOWN if values.get(name) is not None]
    return ", ".join(f"{_text(k.replace('_', ' '))} {_value(v)}" for k, v in found[:8])


def _facts(report: Mapping[str, Any]) -> str:
    manifest = report.get("manifest") or {}
    pairs = [
        ("Copy", report.get("path")),
        ("Statement", manifest.get("digest")),
        ("Signed by", manifest.get("signed_by")),
        ("Revision", manifest.get("revision")),
        ("Issued", manifest.get("issued")),
        ("Read", f"{int(report.get('bytes_read') or 0):,} bytes"),
        ("Took", f"{float(report.get('seconds') or 0):.1f} seconds"),
    ]
    pairs += [(f"The worker's {k}", v) for k, v in (report.get("isolation") or {}).items()]
    return f"<h2>About this report</h2>\n{_list(pairs)}"


def _list(pairs: Iterable[tuple[str, Any]]) -> str:
    items = "".join(
        f"<dt>{_text(name)}</dt><dd><code>{_text(value)}</code></dd>"
        for name, value in pairs
        if value is not None
    )
    return f'<dl class="wb-facts">{items}</dl>' if items else ""


def _icon(tone: str) -> str:
    return f'<svg class="wb-icon" viewBox="0 0 16 16" aria-hidden="true">{_ICONS[tone]}</svg>'


def _size(number: Any) -> str:
    if not isinstance(number, int):
        return "–"
    return f'<span title="{number:,} bytes">{size(number)}</span>'


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "–" if value is None else _text(value)


def _text(value: Any) -> str:
    return escape(shown(str(value)))
