"""Thresholds: what agrees, what is inconclusive, and that NaN never agrees."""

import math
from dataclasses import replace

import pytest
import torch

from inference_check.answers import LAYER_SKETCH, SKETCH, Answers
from inference_check.compare import Distances, bound_of, distances, judge
from inference_check.reference import Reference

GOOD = Distances(
    {"logits": 1e-6, "sketch": 1e-6, "logsumexp": 1e-6}, (1e-6,), [0.0, 1e-7, 1e-6], 0.0, 1.0
)


def answers(seed=0):
    torch.manual_seed(seed)
    logits = torch.randn(8, 100, dtype=torch.float64)
    top, ids = logits.topk(64)
    return Answers(
        vocab=100,
        logsumexp=logits.logsumexp(1),
        std=logits.std(1),
        ids=ids,
        logits=top,
        best=ids[:, 0],
        sketch=torch.randn(8, SKETCH, dtype=torch.float64),
        layers=torch.rand(3, 2, LAYER_SKETCH + 1, dtype=torch.float64) + 1,
    )


def reference(eps64=1e-6, layers=(0.0, 1e-7, 1e-6)):
    return Reference(2, 8, 100, "seed", tuple(range(8)), answers(), eps64, layers)


def with_distance(value, layer=0.0):
    return replace(GOOD, worst=GOOD.worst | {"logits": value}, layers=[0.0, layer, layer])


def test_equal_answers_have_no_distance():
    found = distances(answers(), answers())
    assert set(found.worst.values()) == {0.0}
    assert (found.kl, found.top1, found.layers) == (0.0, 1.0, [0.0, 0.0, 0.0])


@pytest.mark.parametrize("field", ["logsumexp", "logits", "sketch", "layers"])
def test_every_published_number_counts(field):
    changed = replace(answers(), **{field: getattr(answers(), field) + 0.1})
    found = distances(answers(), changed)
    assert judge(reference(), found).status == "disagrees"


@pytest.mark.parametrize(
    ("eps64", "distance", "status"),
    [
        (1e-9, 0.9e-5, "agrees"),
        (1e-9, 1.1e-5, "disagrees"),
        (5.6e-5, 5.2e-4, "agrees"),
        (5.6e-5, 5.8e-4, "disagrees"),
        (4.9e-4, 4.8e-3, "agrees"),
        (5.1e-4, 1.0, "inconclusive"),
    ],
)
def test_the_threshold_grows_with_the_models_own_error(eps64, distance, status):
    assert judge(reference(eps64), with_distance(distance)).status == status


def test_an_ill_conditioned_model_still_disagrees_where_a_layer_parts():
    judged = judge(reference(eps64=1.0), with_distance(1.0, layer=1e-3))
    assert (judged.status, judged.first_layer) == ("disagrees", "layer 0")


@pytest.mark.parametrize("rung", [None, "cast:bf16-rne", "quantized:Q4_0"])
def test_nan_never_agrees(rung):
    assert judge(reference(), with_distance(math.nan), rung).status == "disagrees"
    assert judge(reference(), with_distance(0.0, layer=math.nan)).status == "disagrees"


@pytest.mark.parametrize(
    ("rung", "bound"),
    [
        ("cast:fp16-rne", 1e-6 * 2**13),
        ("cast:bf16-rne", 1e-6 * 2**16),
        ("cast:bf16-trunc", 1e-6 * 2**17),
        ("quantized:Q8_0", 1e-6 * 2**16),
        ("quantized:Q4_K", 1.0),
        ("quantized:int4", 1.0),
        ("quantized:strange", None),
        (None, None),
    ],
)
def test_a_bound_belongs_to_a_named_rung(rung, bound):
    assert bound_of(rung, 1e-6) == (bound if bound is None else pytest.approx(bound))


def test_close_is_within_the_bound_of_the_rung_alone():
    assert judge(reference(), with_distance(0.05), "cast:bf16-rne").status == "close"
    assert judge(reference(), with_distance(0.07), "cast:bf16-rne").status == "disagrees"
    assert judge(reference(), GOOD, "cast:bf16-rne").status == "agrees"
