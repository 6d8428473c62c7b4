"""The evidence in a report: every number beside its threshold, and nobody's text as markup."""

import re

import pytest

from verifier import report_evidence, report_html
from verifier.lineage import judge

HOSTILE = '<script>alert("x")</script>\x1b[2J'


def row(name, cosine, hamming, log_p=-100.0):
    statistics = {
        "matrix": True,
        "cosine": cosine,
        "centred_cosine": cosine,
        "hamming": hamming,
        "simhash_cosine": 1 - 2 * hamming,
        "samples": 1024,
        "zeroed": 0,
        "kept": 0,
        "equal_bits": 0.75,
        "log_p": log_p,
    }
    return {"name": name, "status": "changed", "statistics": statistics}


def weights_of(rows, with_sketch=True):
    judged = judge(rows, with_sketch=with_sketch)
    return {
        "status": "compared",
        "verdict": judged.verdict,
        "scheme": judged.scheme,
        "counts": {"changed": len(rows)},
        "evidence": judged.evidence,
        "tensors": rows,
    }


@pytest.fixture
def derived():
    return weights_of([row(HOSTILE, 0.8, 0.2), row("b", 0.75, 0.25), row("c", 0.01, 0.5, 0.0)])


def test_the_lines_say_how_many_by_which_thresholds_and_by_what_chance(derived):
    first, second = report_evidence.lines(derived)
    assert first.startswith("2 of 3 matrices alike (cosine ≥ 0.3, Hamming ≤ 0.4)")
    assert "equal bits 75%; by chance at most" in first
    assert second == "3 changed"


def test_unrelated_weights_claim_no_chance():
    (first, _) = report_evidence.lines(weights_of([row("a", 0.01, 0.5, 0.0)]))
    assert "0 of 1 matrices alike" in first
    assert "chance" not in first


@pytest.mark.parametrize("weights", [{}, {"evidence": None}, {"evidence": {"rung": "cast"}}])
def test_an_older_report_has_no_evidence_and_still_a_page(weights):
    assert report_evidence.lines(weights) == []
    assert report_evidence.facts(weights) == []
    assert report_evidence.chart(weights) == ""


def test_every_matrix_is_a_point_and_every_threshold_a_line(derived):
    chart = report_evidence.chart(derived)
    assert chart.count("<circle") == 6
    assert re.findall(r"derived from 0\.3|unrelated below 0\.2|derived up to 0\.4", chart) == [
        *("derived from 0.3", "unrelated below 0.2", "derived up to 0.4")
    ]
    assert "<script" not in chart
    assert "\x1b" not in chart


def test_the_page_has_the_evidence_with_its_sources(derived):
    report = {"checkpoint": "a", "verdict": "derived", "weights": derived, "manifest": {}}
    page = report_html.fragment(report)
    assert "Benjamini and Heller 2008" in page
    assert "every statistic &lt; 0.2" in page
    assert not re.search(r"\sstyle=|\son\w+=|<script", page)
    style = report_html.STYLE_SHEET.read_text()
    classes = set(" ".join(re.findall(r'class="([^"]+)"', page)).split())
    assert not [name for name in classes if f".{name}" not in style]


def test_too_many_matrices_are_drawn_in_part():
    rows = [row(str(n), 0.5, 0.3) for n in range(report_evidence.MAX_POINTS + 5)]
    assert (
        report_evidence.chart(weights_of(rows)).count("<circle") == 2 * report_evidence.MAX_POINTS
    )
