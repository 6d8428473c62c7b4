"""Descended, quantized, unrelated, or nothing said: what people do to weights, and who did not."""

import itertools
import json
import math

import pytest
import torch
from safetensors.torch import save_file

from inference_check.synthetic import Shape, make_weights
from tests.verifier import copies
from tests.verifier.copies import QUANTIZED, adapted, matrices, merged, noisy, pruned, trained
from verifier import lineage, significance, sketch, values
from verifier.layouts import LogicalTensor

SHAPE = Shape(layers=2, width=128, heads=4, kv_heads=2, hidden=256, vocab=256)
SMALL = Shape(layers=1, width=64, heads=4, kv_heads=2, hidden=128, vocab=128)
FILE = "model.safetensors"


def silent(stage, done, total):
    assert done <= total


def write(folder, weights):
    folder.mkdir(exist_ok=True)
    save_file({n: t.contiguous().clone() for n, t in weights.items()}, folder / FILE)
    return folder


def publish(folder, weights):
    """Return the value digests and the secret sketch."""
    write(folder, weights)
    described = values.describe(folder, [FILE], silent)
    return described, json.loads(json.dumps(sketch.make(folder, [FILE], b"secret")))


@pytest.fixture(scope="module")
def weights():
    """A model that was trained for a moment, so that its matrices are not just noise."""
    start = make_weights(SHAPE, 7, "float32")
    return {n: t.half() for n, t in trained(start, SHAPE, steps=20, seed=7).items()}


@pytest.fixture(scope="module")
def official(tmp_path_factory, weights):
    return publish(tmp_path_factory.mktemp("official"), weights)


@pytest.fixture
def judge(official, tmp_path):
    def run(copy, with_sketch=True):
        torch.manual_seed(0)
        write(tmp_path, copy)
        found = values.compare(
            tmp_path, [FILE], official[0], official[1] if with_sketch else None, silent
        )
        assert json.loads(json.dumps(found.evidence)) == found.evidence
        return found

    return run


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [n for n in QUANTIZED if "128" not in n])  # as wide as a row
def test_a_quantized_copy_stored_as_floats_is_quantized(judge, weights, name, dtype):
    copy = matrices(weights, lambda m: QUANTIZED[name](m).to(dtype))
    result = judge(copy)
    assert (result.verdict, result.scheme) == ("quantized", name)
    assert result.counts["quantized"] == sum(t.dim() == 2 for t in weights.values())
    assert result.evidence["p_value"] < 1e-9


def test_without_a_sketch_a_quantized_copy_is_undetermined(judge, weights):
    copy = matrices(weights, QUANTIZED["int8 per row"])
    assert judge(copy, with_sketch=False).verdict == "undetermined"


def test_embedding_and_head_may_stay_as_they_were(judge, weights):
    kept = ("embed_tokens", "lm_head")
    copy = matrices(weights, QUANTIZED["Q4_0"])
    copy |= {n: t for n, t in weights.items() if any(k in n for k in kept)}
    result = judge(copy)
    assert (result.verdict, result.scheme) == ("quantized", "Q4_0")
    assert result.counts["exact"] > 2


def test_two_schemes_are_both_named_the_coarser_first(judge, weights):
    copy = matrices(weights, QUANTIZED["Q8_0"])
    down = {n: QUANTIZED["Q4_0"](t) for n, t in weights.items() if "down" in n}
    assert judge(copy | down).scheme == "Q4_0+Q8_0"


@pytest.mark.parametrize("style", ["weight_scale", "SCB", "tensor", "tiles"])
def test_codes_stored_beside_their_scales_are_quantized(judge, weights, style):
    copy = {}
    for name, tensor in weights.items():
        if tensor.dim() == 1:
            copy[name] = tensor
            continue
        largest = tensor.float().abs().amax(1, keepdim=True)
        if style == "tensor":
            largest = largest.max().view(1, 1)
        if style == "tiles":
            rows, columns = tensor.shape
            largest = torch.ones(-(-rows // 128), -(-columns // 128)) * largest.max()
        scale = largest / 127
        per_entry = scale.flatten()[0] if style == "tiles" else scale
        copy[name] = (tensor.float() / per_entry).round().to(torch.int8)
        bare = name.removesuffix(".weight")
        if style == "SCB":
            copy |= {f"{bare}.SCB": largest[:, 0], f"{bare}.weight_format": torch.tensor(0)}
        elif style == "tiles":
            copy[f"{name}_scale_inv"] = scale
        else:
            copy[f"{name}_scale"] = scale
    result = judge(copy)
    assert result.verdict == "quantized"
    assert result.scheme == (
        "int8 per row" if style in ("weight_scale", "SCB") else "int8 per tensor"
    )
    assert result.added == []


def test_a_fine_tuned_then_quantized_copy_is_derived(judge, weights):
    tuned = noisy(weights, 0.3)
    result = judge(matrices(tuned, QUANTIZED["int8 per row"]))
    assert result.verdict == "derived"
    assert all(r["statistics"]["grid"] == "int8 per row" for r in changed_matrices(result))


def changed_matrices(result):
    found = [r for r in result.tensors if r["status"] == "changed" and r["statistics"]["matrix"]]
    assert found
    return found


@pytest.mark.parametrize(
    "change",
    {
        "fine-tuned": lambda w: trained(w, SHAPE, steps=20, seed=1, rate=1e-3),
        "continued": lambda w: trained(w, SHAPE, steps=120, seed=2),
        "pruned": lambda w: pruned(w, 0.3),
        "noise": lambda w: noisy(w, 0.5),
        "merged": lambda w: merged(w, make_weights(SHAPE, 9, "float32"), 0.6),
        "adapted": adapted,
        "bfloat16": lambda w: {n: t.bfloat16() for n, t in noisy(w, 0.1).items()},
    }.items(),
    ids=lambda item: item[0],
)
def test_what_people_do_to_weights_is_derived(judge, weights, change):
    result = judge(change[1](weights))
    assert result.verdict == "derived"
    assert result.evidence["p_value"] <= 1e-6
    assert result.evidence["statistics"]["share"] >= 0.4
    assert result.evidence["changes"]["pruned"] == (change[0] == "pruned")


def test_pruning_is_told_in_another_type_too(judge, weights):
    copy = {n: t.bfloat16() for n, t in pruned(weights, 0.5).items()}
    result = judge(copy)
    assert (result.verdict, result.evidence["changes"]["pruned"]) == ("derived", True)
    assert 0.4 < result.evidence["changes"]["zeros"] < 0.6


def test_more_tokens_than_the_official_ones_are_compared_by_the_first(judge, weights):
    name = "model.embed_tokens.weight"
    longer = torch.cat((weights[name], torch.randn(3, SHAPE.width).half()))
    result = judge(weights | {name: longer})
    (row,) = [row for row in result.tensors if row["status"] == "changed"]
    assert (result.verdict, row["name"]) == ("derived", name)
    assert row["statistics"]["cosine"] == pytest.approx(1)


def test_two_replaced_tensors_are_named(judge, weights):
    other = make_weights(SHAPE, seed=8)
    replaced = [n for n in weights if "up_proj" in n]
    result = judge(weights | {n: other[n] for n in replaced})
    assert result.verdict == "derived"
    assert [r["name"] for r in result.tensors if r["status"] == "changed"] == replaced


def test_one_shared_matrix_does_not_make_a_model_derived(judge, weights):
    other = make_weights(SHAPE, seed=8)
    name = "model.embed_tokens.weight"
    result = judge(other | {name: weights[name]})
    assert result.verdict == "undetermined"


def test_two_models_that_share_three_matrices_are_derived(judge, weights):
    other = make_weights(SHAPE, seed=8)
    shared = [n for n in weights if "layers.1.self_attn" in n][:3]
    result = judge(other | {n: weights[n] for n in shared})
    assert result.verdict == "derived"
    assert result.evidence["at_least"] == 3


@pytest.mark.parametrize("dim", [0, 1])
def test_permuted_rows_or_columns_are_never_called_unrelated(judge, weights, dim):
    order = {size: torch.randperm(size) for size in (64, 128, 256)}

    def permute(matrix):
        return matrix.index_select(dim, order[matrix.shape[dim]])

    result = judge(matrices({n: t.float() for n, t in weights.items()}, permute))
    assert result.verdict == "undetermined"
    assert any("permuted" in note for note in result.evidence["notes"])


def test_rows_permuted_only_between_layers_leave_the_rest_as_evidence(judge, weights):
    copy = dict(weights)
    for layer in range(SHAPE.layers):
        order = torch.randperm(SHAPE.hidden)
        for name, dim in (("gate", 0), ("up", 0), ("down", 1)):
            at = f"model.layers.{layer}.mlp.{name}_proj.weight"
            copy[at] = weights[at].index_select(dim, order)
    assert judge(copy).verdict == "derived"


def test_renamed_tensors_are_matched_by_shape_and_sketch(judge, weights):
    names = {name: f"blocks.{number}.w" for number, name in enumerate(sorted(weights))}
    result = judge({names[n]: t for n, t in noisy(weights, 0.2).items()})
    assert result.verdict == "derived"
    found = {row["name"]: row["stored_as"] for row in result.tensors if "stored_as" in row}
    sought = {n: names[n] for n, t in weights.items() if t.dim() == 2}
    assert {n: found[n] for n in sought} == sought


def test_official_values_under_unknown_names_are_no_more_than_derived(judge, weights):
    result = judge({f"{number}.w": t for number, t in enumerate(weights.values())})
    assert result.verdict == "derived"
    assert result.counts["exact"] == len(weights)
    assert judge({f"{n}.w": t for n, t in enumerate(weights.values())}, False).verdict == (
        "undetermined"
    )


def test_swapped_layers_are_never_the_same_weights(judge, weights):
    from inference_check.synthetic import swapped

    result = judge(swapped(weights, 0, 1))
    assert result.verdict == "derived"
    stored = {row["name"]: row.get("stored_as") for row in result.tensors}
    assert stored["model.layers.0.mlp.up_proj.weight"] == "model.layers.1.mlp.up_proj.weight"


def test_unrelated_tensors_under_unknown_names_match_nothing(judge):
    other = make_weights(SHAPE, seed=8)
    result = judge({f"{number}.w": t for number, t in enumerate(other.values())})
    assert result.verdict == "undetermined"
    assert result.counts["added"] == len(other)


def test_other_models_are_unrelated_and_no_p_value_is_claimed(judge):
    result = judge(make_weights(SHAPE, seed=8))
    assert result.verdict == "unrelated"
    assert result.evidence["p_value"] is None
    assert result.evidence["thresholds"]["derived_cosine"] == 0.30


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("small"), make_weights(SMALL, 0, "float32"))


@pytest.mark.parametrize("seeds", [range(n, n + 20) for n in range(1, 201, 20)], ids=str)
def test_none_of_200_unrelated_small_models_is_derived(small, tmp_path, seeds):
    verdicts = []
    for seed in seeds:
        write(tmp_path, make_weights(SMALL, seed, "float32"))
        verdicts.append(values.compare(tmp_path, [FILE], *small, silent).verdict)
    assert set(verdicts) <= {"unrelated", "undetermined"}
    assert verdicts.count("unrelated") > len(verdicts) / 2


def trained_apart(tmp_path, shape, models, steps):
    """Return the verdict on every pair of models of one configuration, tokenizer and text."""
    apart = [
        trained(make_weights(shape, seed, "float32"), shape, steps=steps, seed=seed)
        for seed in range(models)
    ]
    published = [publish(tmp_path / str(n), one) for n, one in enumerate(apart)]
    pairs = itertools.permutations(range(models), 2)
    return [
        values.compare(tmp_path / str(two), [FILE], *published[one], silent) for one, two in pairs
    ]


def test_models_trained_apart_on_one_text_are_not_derived(tmp_path):
    found = trained_apart(tmp_path, SMALL, models=3, steps=60)
    assert {result.verdict for result in found} <= {"unrelated", "undetermined"}


@pytest.mark.nightly
def test_models_trained_apart_until_they_know_the_text_are_not_derived(tmp_path):
    found = trained_apart(tmp_path, SHAPE, models=5, steps=800)
    assert {result.verdict for result in found} <= {"unrelated", "undetermined"}


def positive(size):
    return torch.rand(size)


def heavy(size):
    return torch.distributions.StudentT(1.5).sample(size)


def outlier_columns(size):
    found = torch.randn(size)
    found[..., ::16] *= 40
    return found


def common_means(size):
    """The same channels are large, and positive, in both."""
    found = torch.randn(size)
    found[..., ::16] += 20
    return found


def laplace(size):
    return torch.distributions.Laplace(0, 0.02).sample(size)


DRAWN = [torch.randn, laplace, heavy, outlier_columns, common_means, positive]
SIZES = [(64, 64), (16, 256), (256, 16), (40, 96)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("draw", DRAWN, ids=lambda d: d.__name__)
def test_none_of_10000_unrelated_pairs_of_tensors_is_derived(draw, size):
    """417 pairs of each kind; each is judged as a model of one matrix, with nothing to outvote it."""
    torch.manual_seed(size[0])
    pairs = math.ceil(10_000 / (len(DRAWN) * len(SIZES)))
    one, two = (sketches(draw((pairs, *size))) for _ in range(2))
    places = torch.tensor(sketch.places_of("a", math.prod(size), SEED))
    for first, second in zip(one, two, strict=True):
        likeness = sketch.compare(first, second)
        log_p = significance.log_p_of_matrix(
            *(sketch.entries_of(s) for s in (first, second)),
            *(places, size[1], likeness.hamming, sketch.BITS),
        )
        verdict = lineage.judge([row_of(likeness, log_p)], with_sketch=True).verdict
        assert verdict != "derived", (likeness, log_p)


SEED = bytes(32)


def sketches(tensors):
    """Sketch many matrices of one shape at once, as ``sketch_of`` does one by one."""
    flat = tensors.flatten(1)
    count = flat.shape[1]
    signs = sketch._signs("a", 0, count, SEED)
    folded = torch.nn.functional.pad((flat * signs).double(), (0, -count % sketch.FOLDS))
    sums = folded.view(len(flat), -1, sketch.FOLDS).sum(1)
    above = (sums.float() @ sketch._planes(SEED).T) > 0
    packed = (above.view(len(flat), -1, 8) * 2 ** torch.arange(8)).sum(2).to(torch.uint8)
    samples = flat[:, torch.tensor(sketch.places_of("a", count, SEED))]
    return [
        sketch.TensorSketch(s.numpy().tobytes(), p.numpy().tobytes())
        for s, p in zip(samples, packed, strict=True)
    ]


def test_many_sketches_at_once_are_those_made_one_by_one():
    torch.manual_seed(0)
    values = torch.randn(2, 64, 96)
    tensor = LogicalTensor("a", "", "F32", (64, 96), ())
    one = [sketch.sketch_of("a", tensor, iter([v.flatten()]), SEED) for v in values]
    assert [s.samples for s in sketches(values)] == [s.samples for s in one]
    assert [s.simhash for s in sketches(values)] == [s.simhash for s in one]


def row_of(likeness, log_p):
    statistics = {
        "matrix": True,
        "cosine": likeness.cosine,
        "centred_cosine": likeness.centred_cosine,
        "hamming": likeness.hamming,
        "simhash_cosine": math.cos(math.pi * likeness.hamming),
        "samples": likeness.samples,
        "zeroed": likeness.zeroed,
        "kept": likeness.kept,
        "equal_bits": likeness.equal_bits,
        "log_p": log_p,
    }
    return {"name": "a", "status": "changed", "statistics": statistics}


def test_the_training_of_the_tests_learns(weights):
    """Models trained apart are a test only if they were trained."""
    start = make_weights(SMALL, 3, "float32")
    text = torch.tensor([list(copies.TEXT.encode()[:64])])
    losses = []
    for model in (start, trained(start, SMALL, steps=60, seed=3)):
        found = copies.logits(model, SMALL, text[:, :-1])
        losses.append(float(torch.nn.functional.cross_entropy(found[0], text[0, 1:])))
    assert losses[1] < losses[0] / 1.5


def test_a_tied_head_may_be_written_out_in_a_rounded_or_quantized_copy(tmp_path, weights):
    embedding, head = "model.embed_tokens.weight", "lm_head.weight"
    without = {n: t for n, t in weights.items() if n != head}
    published = publish(tmp_path / "one", without)
    for change, verdict in (
        (torch.Tensor.bfloat16, "cast"),
        (QUANTIZED["int8 per row"], "quantized"),
    ):
        copy = matrices(without, change)
        copy = {n: t.bfloat16() if verdict == "cast" else t for n, t in copy.items()}
        write(tmp_path / "two", copy | {head: copy[embedding]})
        result = values.compare(tmp_path / "two", [FILE], *published, silent)
        assert (result.verdict, result.added) == (verdict, [])


def test_a_model_packed_by_gptq_is_quantized(judge, weights):
    from tests.verifier.test_packed import words

    copy = {}
    for name, tensor in weights.items():
        if "proj" not in name:
            copy[name] = tensor
            continue
        bare, matrix = name.removesuffix(".weight"), tensor.float()
        scale = matrix.abs().amax(1) / 7
        codes = (matrix / scale[:, None]).round() + 8
        copy |= {
            f"{bare}.qweight": words(codes).T,
            f"{bare}.qzeros": words(torch.full((1, len(matrix)), 7)),
            f"{bare}.scales": scale[None],
            f"{bare}.g_idx": torch.zeros(matrix.shape[1], dtype=torch.int32),
        }
    result = judge(copy)
    assert (result.verdict, result.scheme, result.added) == ("quantized", "int4 per row", [])


def test_a_sketch_of_too_few_entries_says_nothing(official, tmp_path, weights):
    cut = json.loads(json.dumps(official[1]))
    for found in cut["tensors"].values():
        found["samples"] = found["samples"][:16]
    write(tmp_path, noisy(weights, 0.2))
    assert values.compare(tmp_path, [FILE], official[0], cut, silent).verdict == "undetermined"


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e-40, 1e38])
def test_entries_of_any_size_end_in_a_report(judge, weights, value):
    copy = {n: t.float().clone() for n, t in weights.items()}
    copy["model.layers.0.mlp.up_proj.weight"].fill_(value)
    copy["model.layers.0.mlp.gate_proj.weight"] *= value
    result = judge(copy)
    assert result.verdict == "derived"
    json.dumps(result.tensors, allow_nan=False)
