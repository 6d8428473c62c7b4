"""The report as a page: complete, self-contained, and no stranger's text becomes markup."""

import re

import pytest

from verifier import report_html
from verifier.findings import Verdict

HOSTILE = '<script>alert("x")</script>\x1b[2J&'


@pytest.fixture
def report():
    return {
        "schema": "weighbridge.report/1",
        "path": HOSTILE,
        "checkpoint": HOSTILE,
        "verdict": "damaged",
        "sentence": HOSTILE,
        "findings": [{"code": "damaged", "path": HOSTILE, "ranges": [[0, 5]], "message": HOSTILE}],
        "files": [
            {"path": HOSTILE, "size": 100, "status": "damaged", "ranges": [[10, 20]]},
            {"path": "gone", "size": None, "expected_size": 10, "status": "missing", "ranges": []},
            {"path": "good", "size": 10**10, "status": "good", "ranges": []},
        ],
        "weights": {
            "status": "compared",
            "verdict": "undetermined",
            "counts": {"exact": 3, "changed": 1},
            "tensors": [{"name": HOSTILE, "status": "changed", "statistics": {"cosine": 0.5}}],
        },
        "inference": {
            "status": "disagrees",
            "reason": HOSTILE,
            "device": "cpu",
            "statistics": {"logits": 0.25},
            "thresholds": {"logits": 1e-5},
        },
        "manifest": {"revision": 1, "signed_by": "ab" * 32, "digest": "cd" * 32},
        "bytes_read": 110,
        "seconds": 1.5,
    }


def test_no_text_of_a_stranger_becomes_markup(report):
    page = report_html.render(report)
    assert "<script" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;" in page


def test_the_fragment_obeys_a_strict_content_security_policy(report):
    fragment = report_html.fragment(report)
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script|javascript:", fragment)
    assert "url(" not in report_html.STYLE_SHEET.read_text()


def test_the_page_asks_no_other_host_for_anything(report):
    page = report_html.render(report)
    assert not re.search(r"(src|href)=|@import|https?://", page)


def test_the_four_rungs_are_there_in_order(report):
    fragment = report_html.fragment(report)
    at = [
        fragment.index(f"<strong>{rung}<")
        for rung in ("Signature", "Files", "Weights", "Inference")
    ]
    assert at == sorted(at)


def test_a_bad_range_is_drawn_where_it_lies(report):
    assert '<rect class="wb-map-bad" x="100.00" y="0" width="100.00"' in report_html.fragment(
        report
    )


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_a_page(report, verdict):
    assert verdict.value in report_html.render(report | {"verdict": verdict.value})


def test_every_class_of_the_fragment_is_in_the_style_sheet(report):
    classes = set(re.findall(r'class="([^"]+)"', report_html.fragment(report)))
    style = report_html.STYLE_SHEET.read_text()
    for name in {name for group in classes for name in group.split()}:
        assert f".{name}" in style
