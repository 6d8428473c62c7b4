"""Disguises: the model computes the same, no entry is where it was, and descent still shows."""

import itertools
import math

import pytest
import torch

from inference_check.synthetic import Shape, make_weights
from tests.verifier.copies import adapted, logits, noisy, trained
from verifier.invariants import disguised, is_low_rank, share_of_low_rank

SHAPE = Shape(layers=2, width=64, heads=4, kv_heads=2, hidden=128, vocab=256)
WIDTH = SHAPE.head_width
READERS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
)
WRITERS = ("self_attn.o_proj", "mlp.down_proj")


@pytest.fixture(scope="module")
def official():
    return trained(make_weights(SHAPE, 1, "float32"), SHAPE, steps=60, seed=1)


def folded(weights):
    """Fold every gain into the matrices that follow it."""
    found = dict(weights)
    for layer in range(SHAPE.layers):
        at = f"model.layers.{layer}."
        for name in READERS:
            norm = "input" if "attn" in name else "post_attention"
            gain = weights[f"{at}{norm}_layernorm.weight"]
            found[f"{at}{name}.weight"] = weights[f"{at}{name}.weight"] * gain
    found["lm_head.weight"] = weights["lm_head.weight"] * weights["model.norm.weight"]
    return {n: torch.ones_like(t) if "norm" in n else t for n, t in found.items()}


def turned(weights, turn):
    """Turn the residual stream of folded weights by an orthogonal matrix."""
    found = dict(weights)
    for name, tensor in weights.items():
        if any(reader in name for reader in (*READERS, "embed_tokens", "lm_head")):
            found[name] = tensor @ turn.T
        elif any(writer in name for writer in WRITERS):
            found[name] = turn @ tensor
    return found


def rotated(weights):
    return turned(folded(weights), torch.linalg.qr(torch.randn(SHAPE.width, SHAPE.width))[0])


def permuted(weights):
    """Permute the residual stream and the channels between matrices."""
    found = turned(folded(weights), torch.eye(SHAPE.width)[torch.randperm(SHAPE.width)])
    for layer in range(SHAPE.layers):
        order = torch.randperm(SHAPE.hidden)
        for name, dim in (("gate", 0), ("up", 0), ("down", 1)):
            at = f"model.layers.{layer}.mlp.{name}_proj.weight"
            found[at] = found[at].index_select(dim, order)
    return found


def rescaled(weights):
    """Let scales go from q to k and from v to o, which cancels."""
    found = dict(weights)
    groups = SHAPE.heads // SHAPE.kv_heads
    for layer in range(SHAPE.layers):
        at = f"model.layers.{layer}.self_attn."
        scale = 0.5 + torch.rand(SHAPE.kv_heads, 1)
        each = scale.expand(-1, WIDTH).reshape(-1, 1)
        shared = scale.repeat_interleave(groups, 0).expand(-1, WIDTH).reshape(-1, 1)
        found[f"{at}k_proj.weight"] = weights[f"{at}k_proj.weight"] * each
        found[f"{at}q_proj.weight"] = weights[f"{at}q_proj.weight"] / shared
        found[f"{at}v_proj.weight"] = weights[f"{at}v_proj.weight"] * each
        found[f"{at}o_proj.weight"] = weights[f"{at}o_proj.weight"] / shared.T
    return found


DISGUISES = [folded, rotated, permuted, rescaled, lambda w: rescaled(rotated(w))]


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_disguised_copy_computes_alike_and_is_found(official, disguise):
    torch.manual_seed(0)
    copy = disguise(official)
    tokens = torch.arange(32)[None]
    one, two = logits(official, SHAPE, tokens), logits(copy, SHAPE, tokens)
    assert float((one - two).norm() / one.norm()) < 1e-3, "the disguise is broken, not the check"
    evidence = disguised(official, copy, WIDTH)
    assert [s.name for s in evidence.statistics if s.holds] == ["scores", "values", "head"]
    assert evidence.disguised


@pytest.mark.parametrize(
    "change",
    [
        lambda w: noisy(w, 0.1),
        lambda w: trained(w, SHAPE, steps=20, seed=5, rate=1e-3),
        lambda w: {n: t.half().float() for n, t in w.items()},
    ],
)
def test_a_changed_and_then_disguised_copy_is_found(official, change):
    torch.manual_seed(1)
    assert disguised(official, rescaled(rotated(change(official))), WIDTH).disguised


@pytest.mark.parametrize("seed", range(2, 12))
def test_other_weights_are_never_disguised(official, seed):
    evidence = disguised(official, make_weights(SHAPE, seed, "float32"), WIDTH)
    assert not evidence.disguised
    assert not any(statistic.holds for statistic in evidence.statistics)


def apart(models, steps):
    found = [
        trained(make_weights(SHAPE, 100 + n, "float32"), SHAPE, steps=steps, seed=n)
        for n in range(models)
    ]
    return [disguised(one, two, WIDTH) for one, two in itertools.permutations(found, 2)]


def test_models_trained_apart_on_one_text_are_not_disguised():
    assert not any(evidence.disguised for evidence in apart(3, 60))


@pytest.mark.nightly
def test_models_trained_apart_until_they_know_the_text_are_not_disguised():
    found = apart(5, 800)
    assert not any(evidence.disguised for evidence in found)
    assert sum(s.holds for evidence in found for s in evidence.statistics) == 0


def test_without_the_width_of_a_head_shared_keys_are_left_out(official):
    evidence = disguised(official, rotated(official))
    assert [s.name for s in evidence.statistics] == ["head"]
    assert not evidence.disguised
    assert evidence.notes


def test_without_an_embedding_nothing_is_said(official):
    assert not disguised(official, {}, WIDTH).disguised
    assert disguised(official, {}, WIDTH).statistics == ()


def test_the_report_has_every_statistic_with_its_null(official):
    shown = disguised(official, rotated(official), WIDTH).as_json()
    assert shown["disguised"] is True
    assert set(shown["statistics"]) == {"scores", "values", "head"}
    for found in shown["statistics"].values():
        assert found["null_mean"] <= found["null_largest"] < found["value"]
        assert math.isfinite(found["excess"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_merged_adapter_is_of_low_rank_and_noise_is_not(official, dtype):
    torch.manual_seed(2)
    merged = {n: t.to(dtype) for n, t in adapted(official, rank=2).items()}
    assert share_of_low_rank(official, merged) == 1
    assert share_of_low_rank(official, noisy(official, 0.3)) == 0
    assert share_of_low_rank(official, official) is None


def test_rounding_alone_is_no_change(official):
    matrix = official["model.layers.0.mlp.up_proj.weight"]
    assert is_low_rank(matrix, matrix.half()) is None
    assert is_low_rank(matrix, matrix.bfloat16()) is None
