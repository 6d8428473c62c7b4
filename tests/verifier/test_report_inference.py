"""What the plots of a report show, and that a reader without them loses nothing."""

import itertools
import math
import re

import pytest

from verifier import report_html, report_inference

LAYERS = [
    {"layer": "the embedding", "distance": 0.0, "threshold": 1e-5},
    {"layer": "layer 0", "distance": 3e-6, "threshold": 1e-5},
    {"layer": "layer 1", "distance": 4e-2, "threshold": 2e-5},
]


def inference(**changes):
    return {
        "status": "disagrees",
        "reason": "its answers part from the published ones at layer 1",
        "device": "cpu",
        "dtype": "float32",
        "positions": 4,
        "statistics": {"logits": 0.3, "sketch": 0.1, "signatures": 0.2},
        "thresholds": {"logits": 1e-5, "sketch": 1e-5, "signatures": 1e-5},
        "per_position": [1e-6, 2e-6, 0.3, 1e-7],
        "layers": LAYERS,
        "tensors": [{"tensor": "a"}],
        "first_layer": "layer 1",
        "first_tensor": "layer 1's q_proj",
    } | changes


def test_there_is_a_plot_by_position_and_one_by_layer_with_a_threshold():
    drawn = report_inference.plots(inference())
    assert drawn.count("<svg") == 2
    assert drawn.count("<polyline") == drawn.count(">threshold</text>") == 2
    assert drawn.count("<circle") == 5 and drawn.count('class="wb-chart-beyond"') == 2


def test_the_plot_says_in_words_what_it_shows():
    drawn = report_inference.plots(inference())
    assert "Distance at each position: 4 values, from 1.0e-07 to 3.0e-01; 1 beyond" in drawn


def test_the_table_behind_has_every_number():
    table = report_inference.plots(inference()).partition("<details")[2]
    assert table.count("<tr>") == 1 + 4 + 3
    assert "3.00e-01 (beyond)" in table and "layer 1" in table


def test_a_larger_distance_is_drawn_higher():
    points = [report_inference.Point(str(n), 10.0**-n, None) for n in range(1, 6)]
    drawn = report_inference._plot("t", "position", points)
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', drawn)]
    assert heights == sorted(heights)
    steps = [b - a for a, b in itertools.pairwise(heights)]
    assert max(steps) - min(steps) < 0.3  # a decade is a decade: the scale is logarithmic


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "x", -1.0, True])
def test_what_is_no_distance_is_beyond_and_named(value):
    drawn = report_inference.plots(inference(per_position=[value], layers=[]))
    assert "not a number (beyond)" in drawn and "none of them a number" in drawn


@pytest.mark.parametrize(
    "changes",
    [
        {"per_position": [0.0] * 4, "layers": []},
        {"per_position": [1e300], "layers": [{}]},
        {"per_position": [], "layers": [None, 3, {"layer": "<b>"}]},
        {"thresholds": {}},
        {"thresholds": None},
    ],
)
def test_every_number_is_drawn_inside_the_frame(changes):
    drawn = report_inference.plots(inference(**changes))
    assert "<b>" not in drawn and "nan" not in drawn
    heights = [float(y) for y in re.findall(r' c?y[12]?="(-?[\d.]+)"', drawn)]
    assert heights and all(0 <= height <= 190 for height in heights)


def test_without_positions_and_layers_nothing_is_drawn():
    assert report_inference.plots(inference(per_position=[], layers=[])) == ""


def challenge(**changes):
    return {
        "schema": "weighbridge.challenge-report/1",
        "checkpoint": "llama/tiny@1",
        "verdict": "disagrees",
        "meaning": "the answers are not those of the official weights",
        "inference": inference(**changes),
        "isolation": {"network": "none"},
    }


def test_a_challenge_says_that_no_file_was_looked_at():
    page = report_html.render(challenge())
    assert page.count("no file was sent") == 2
    assert "1 tensors have another signature" in page


def test_a_right_answer_has_the_official_signatures():
    right = challenge(status="agrees", reason="", statistics={"signatures": 1e-7}, tensors=[])
    assert "every tensor has the official secret signature" in report_html.render(right)


def test_a_report_says_how_the_check_was_kept_apart():
    assert "The worker&#x27;s network" in report_html.render(challenge())


def test_each_rung_says_what_it_cannot_tell():
    report = {"verdict": "identical", "inference": inference(status="agrees", reason="")}
    page = report_html.fragment(report)
    assert page.count('class="wb-scope"') == 4
    assert "Only this says authentic" in page and "agrees (4 positions on cpu)" in page
