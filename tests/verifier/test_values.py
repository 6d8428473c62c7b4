"""Verdicts on weights by their values: same, cast, derived, unrelated, or nothing said."""

import hashlib
import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from inference_check.synthetic import Shape, make_checkpoint, make_weights, write_hf, write_meta
from verifier import sketch, values
from verifier.blocks import BLOCK
from verifier.errors import ManifestError, ReadError
from verifier.value_digests import ROUNDINGS, digest_values, round_to

SHAPE = Shape(layers=3)
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def silent(stage, done, total):
    assert stage == "weights"
    assert 0 <= done <= total


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def publish(folder):
    return json.loads(json.dumps(values.describe(folder, names(folder), silent)))


@pytest.fixture(scope="module")
def weights():
    return make_weights(SHAPE)


@pytest.fixture(scope="module")
def official(tmp_path_factory, weights):
    """The published value digests and the secret sketch."""
    folder = tmp_path_factory.mktemp("official")
    write_hf(folder, weights, SHAPE)
    secret_sketch = json.loads(json.dumps(sketch.make(folder, names(folder), b"secret")))
    return publish(folder), secret_sketch


@pytest.fixture
def judge(official, tmp_path):
    """Write weights as a copy and compare it with what is published."""

    def run(copy, *, with_sketch=True, write=write_hf):
        write(tmp_path, copy, SHAPE, 2)
        tensors, secret_sketch = official
        return values.compare(
            tmp_path, names(tmp_path), tensors, secret_sketch if with_sketch else None, silent
        )

    return run


@pytest.mark.parametrize("write", [write_hf, write_meta])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_official_values_in_any_layout_and_wider_type_are_same_weights(
    judge, weights, write, dtype
):
    if dtype == torch.float64 and write is write_meta:
        dtype = torch.float32
    result = judge({n: t.to(dtype) for n, t in weights.items()}, write=write)
    assert (result.verdict, result.changed_fraction, result.problems) == ("same-weights", 0.0, [])
    assert result.counts["exact"] == len(weights)


@pytest.mark.parametrize("write", [write_hf, write_meta])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_values_rounded_to_bfloat16_are_a_cast_in_whatever_type_they_lie(
    judge, weights, write, dtype
):
    result = judge({n: t.bfloat16().to(dtype) for n, t in weights.items()}, write=write)
    assert (result.verdict, result.scheme) == ("cast", "bf16-rne")


def test_truncation_is_told_from_rounding(judge, weights):
    result = judge({n: round_to("bf16-trunc", t.float()) for n, t in weights.items()})
    assert (result.verdict, result.scheme) == ("cast", "bf16-trunc")


def test_values_that_only_round_alike_are_no_cast(judge, weights):
    nudged = {n: t.bfloat16().float() * (1 + 2**-12) for n, t in weights.items()}
    assert all(torch.equal(nudged[n].bfloat16(), weights[n].bfloat16()) for n in weights)
    assert judge(nudged, with_sketch=False).verdict == "undetermined"
    assert judge(nudged).verdict == "derived"


def test_fp32_official_weights_cast_to_half_are_found(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    make_checkpoint(one, "hf", dtype="float32", shape=SHAPE)
    make_checkpoint(two, "meta", dtype="float16", shape=SHAPE)
    result = values.compare(two, names(two), publish(one), None, silent)
    assert (result.verdict, result.scheme) == ("cast", "fp16-rne")


def test_fine_tuned_weights_are_derived_only_with_a_sketch(judge, weights):
    torch.manual_seed(0)
    tuned = {n: t + 0.2 * t.std() * torch.randn_like(t) for n, t in weights.items()}
    assert judge(tuned, with_sketch=False).verdict == "undetermined"
    result = judge(tuned)
    assert result.verdict == "derived"
    assert result.changed_fraction > 0.9
    assert result.tensors[0]["statistics"]["cosine"] > 0.9


def test_three_official_matrices_are_evidence_without_a_sketch(judge, weights):
    other = make_weights(SHAPE, seed=8)
    kept = [n for n in weights if "mlp.up_proj" in n]
    result = judge(other | {n: weights[n] for n in kept}, with_sketch=False)
    assert result.verdict == "derived"
    assert judge(other | {n: weights[n] for n in kept[:2]}, with_sketch=False).verdict == (
        "undetermined"
    )


def test_vectors_and_trivial_matrices_are_no_evidence(tmp_path):
    shared = {f"norm{n}.weight": torch.ones(4096) for n in range(9)}
    shared |= {f"zero{n}.weight": torch.zeros(64, 64) for n in range(9)}
    shared |= {f"eye{n}.weight": torch.eye(64) for n in range(9)}
    for seed, folder in enumerate(("one", "two")):
        torch.manual_seed(seed)
        (tmp_path / folder).mkdir()
        save_file(shared | {"own.weight": torch.randn(64, 64)}, tmp_path / folder / "m.safetensors")
    result = values.compare(
        tmp_path / "two", ["m.safetensors"], publish(tmp_path / "one"), None, silent
    )
    assert result.verdict == "undetermined"


@pytest.mark.parametrize("seed", range(8, 14))
def test_other_weights_are_never_called_derived(judge, seed):
    result = judge(make_weights(SHAPE, seed=seed))
    assert result.verdict == "unrelated"
    assert result.counts["exact"] == 0


def test_other_weights_without_a_sketch_are_undetermined(judge):
    assert judge(make_weights(SHAPE, seed=8), with_sketch=False).verdict == "undetermined"


def test_one_changed_entry_is_one_changed_tensor(judge, weights):
    name = "model.layers.1.mlp.up_proj.weight"
    changed = weights[name].clone()
    changed[5, 7] += 1
    result = judge(weights | {name: changed})
    assert result.verdict == "derived"
    assert [row["name"] for row in result.tensors if row["status"] == "changed"] == [name]
    assert result.changed_fraction < 0.01


def test_missing_and_added_tensors_are_named(judge, weights):
    copy = {n: t for n, t in weights.items() if "layers.2" not in n} | {"adapter": torch.ones(3)}
    result = judge(copy)
    assert (result.verdict, len(result.missing), result.added) == ("derived", 9, ["adapter"])


def test_a_tied_head_may_be_absent_or_written_out(tmp_path, weights):
    tied = weights | {HEAD: weights[EMBEDDING]}
    without = {n: t for n, t in tied.items() if n != HEAD}
    for folder, content in (("with", tied), ("without", without)):
        (tmp_path / folder).mkdir()
        write_hf(tmp_path / folder, {n: t.clone() for n, t in content.items()}, SHAPE, 2)
    for one, two in (("with", "without"), ("without", "with")):
        published = publish(tmp_path / one)
        result = values.compare(tmp_path / two, names(tmp_path / two), published, None, silent)
        assert (result.verdict, result.missing, result.added) == ("same-weights", [], [])


def test_an_absent_head_that_was_not_tied_is_missing(judge, weights):
    result = judge({n: t for n, t in weights.items() if n != HEAD})
    assert result.missing == [HEAD]
    assert result.verdict != "same-weights"


def test_a_release_of_several_models_keeps_its_folders_apart(tmp_path):
    for folder, seed in (("7B", 7), ("13B", 8)):
        make_checkpoint(tmp_path / "all" / folder, "meta", seed=seed, shape=Shape(layers=1))
    published = publish(tmp_path / "all")
    assert {row["name"].split("/")[0] for row in published["tensors"]} == {"7B", "13B"}
    make_checkpoint(tmp_path / "copy" / "7B", "hf", seed=7, shape=Shape(layers=1))
    make_checkpoint(tmp_path / "copy" / "13B", "hf", seed=8, shape=Shape(layers=1))
    copy = tmp_path / "copy"
    assert values.compare(copy, names(copy), published, None, silent).verdict == "same-weights"


def test_unreadable_files_are_problems_and_the_rest_is_compared(judge, tmp_path, weights):
    (tmp_path / "extra.bin").write_bytes(b"<html>")
    result = judge(weights)
    assert [problem.path for problem in result.problems] == ["extra.bin"]
    assert result.verdict == "same-weights"


def test_nothing_readable_has_no_verdict(tmp_path, official):
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    result = values.compare(tmp_path, ["model.safetensors"], official[0], None, silent)
    assert result.verdict is None
    assert result.problems


def test_describing_an_unreadable_file_is_an_error(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ReadError):
        publish(tmp_path)


@pytest.mark.parametrize(
    "tensors", [{}, {"schema": 2, "tensors": []}, {"schema": 1, "tensors": [{"name": "a"}]}]
)
def test_malformed_value_digests_are_no_manifest(tmp_path, tensors):
    with pytest.raises(ManifestError):
        values.compare(tmp_path, [], tensors, None, silent)


def test_the_digest_is_the_documented_formula():
    entries = [1.0, -0.0, 0.1, float("nan")]
    stored = torch.tensor(entries).half()
    found = digest_values("a.weight", (2, 2), ("exact", *ROUNDINGS), iter([stored])).digests
    wide = [struct.unpack("<e", struct.pack("<e", x))[0] for x in entries[:3]]
    start = b"wb-tensor-v1\0a.weight\x002,2\0"
    exact = struct.pack("<3f", *wide) + b"\0\0\xc0\x7f"
    assert found["exact"] == hashlib.sha256(start + b"exact\0" + exact).hexdigest()
    half = struct.pack("<3e", *wide) + b"\0\x7e"
    assert found["fp16-rne"] == hashlib.sha256(start + b"fp16-rne\0" + half).hexdigest()
    cut = b"".join(struct.pack("<f", x)[2:] for x in wide) + b"\xc0\x7f"
    assert found["bf16-trunc"] == hashlib.sha256(start + b"bf16-trunc\0" + cut).hexdigest()


@pytest.mark.parametrize("size", [1, 999, 4096])
def test_digests_do_not_depend_on_the_size_of_blocks(size):
    stored = torch.arange(4096.0)
    whole = digest_values("a", (4096,), ("exact", *ROUNDINGS), iter([stored]))
    cut = digest_values("a", (4096,), ("exact", *ROUNDINGS), iter(stored.split(size)))
    assert whole.digests == cut.digests


def test_fp64_is_exact_only_where_fp32_can_hold_it():
    short, long = torch.tensor([0.5, 2.0]), torch.tensor([0.1], dtype=torch.float64)

    def exact(values):
        return digest_values("a", values.shape, ("exact",), iter([values])).digests["exact"]

    assert exact(short) == exact(short.double())
    assert exact(long) != exact(long.float())


def test_tensors_are_streamed_in_bounded_blocks(tmp_path):
    from verifier import blocks, layouts
    from verifier.readers import read_tensors

    save_file({"a": torch.zeros(3 * BLOCK // 4)}, tmp_path / "m.safetensors")
    (arranged,), _ = layouts.arrange(tmp_path, read_tensors(tmp_path, "m.safetensors"))
    with blocks.Files(tmp_path, arranged.files) as files:
        sizes = [block.numel() * 4 for block in blocks.stream(files, arranged.tensors[0])]
    assert sizes == [BLOCK] * 3
