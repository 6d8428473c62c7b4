"""The portal's sketch: what it keeps of a tensor, and what it gives away."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from inference_check.synthetic import Shape, make_checkpoint
from verifier import sketch
from verifier.errors import ManifestError
from verifier.layouts import LogicalTensor

SEED = bytes(32)


def sketched(values, name="a", seed=SEED, blocks=1000):
    tensor = LogicalTensor(name, "", "F32", tuple(values.shape), ())
    return sketch.sketch_of(name, tensor, iter(values.flatten().split(blocks)), seed)


def at_angle(one, angle):
    """Return a vector of the length of ``one`` at an angle to it, radians."""
    other = torch.randn_like(one)
    other -= (other @ one) / (one @ one) * one
    return math.cos(angle) * one + math.sin(angle) * other * one.norm() / other.norm()


@pytest.mark.parametrize("degrees", [0, 30, 60, 90, 180])
def test_simhash_measures_the_angle_and_samples_the_cosine(degrees):
    torch.manual_seed(degrees)
    one = torch.randn(100_000)
    likeness = sketch.compare(sketched(one), sketched(at_angle(one, math.radians(degrees))))
    assert abs(likeness.hamming - degrees / 180) < 0.06
    assert abs(likeness.cosine - math.cos(math.radians(degrees))) < 0.12


def test_samples_are_entries_of_the_tensor_at_secret_places():
    values = torch.arange(5000.0)
    one, two = sketched(values), sketched(values, seed=b"\1" * 32)
    places = torch.frombuffer(bytearray(one.samples), dtype=torch.float32)
    assert len(places) == sketch.SAMPLES
    assert bool((places[1:] >= places[:-1]).all())
    assert one.samples != two.samples
    assert one.simhash != two.simhash


@pytest.mark.parametrize("blocks", [1, 777, 10**7])
def test_a_sketch_does_not_depend_on_the_size_of_blocks(blocks, monkeypatch):
    monkeypatch.setattr(sketch, "_STEP", 2 * sketch.FOLDS)
    values = torch.randn(30_000)
    if blocks == 1:
        values = values[:3000]
    assert sketched(values, blocks=blocks) == sketched(values, blocks=4096)


def test_a_small_tensor_is_sampled_whole_and_an_empty_one_not_at_all():
    assert len(sketched(torch.ones(10)).samples) == 40
    assert sketched(torch.ones(0)) is None


def test_both_layouts_have_one_sketch(tmp_path):
    made = []
    for layout in ("hf", "meta"):
        folder = tmp_path / layout
        make_checkpoint(folder, layout, shape=Shape(layers=1))
        made.append(sketch.make(folder, sorted(p.name for p in folder.iterdir()), b"secret"))
    assert made[0] == made[1]
    assert b"secret".hex() not in json.dumps(made[0])


def test_the_sketch_of_other_tensors_says_nothing(tmp_path):
    save_file({"ints": torch.arange(5)}, tmp_path / "m.safetensors")
    assert sketch.make(tmp_path, ["m.safetensors"], b"secret")["tensors"] == {}


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"tensors": []},
        {"tensors": {"a": {}}},
        {"tensors": {"a": {"samples": "*", "simhash": ""}}},
        {"tensors": {"a": {"samples": "", "simhash": "AAAA"}}},
    ],
)
def test_a_malformed_sketch_is_refused(content):
    with pytest.raises(ManifestError, match="not well-formed"):
        sketch.load(content, "a")


def test_nan_and_infinity_do_not_spoil_a_sketch():
    values = torch.randn(5000)
    values[:3] = torch.tensor([math.nan, math.inf, -math.inf])
    assert sketch.compare(sketched(values), sketched(values)).hamming == 0
