"""Matrices packed into several tensors are read as the one matrix that they mean."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.verifier.copies import NF4
from verifier import blocks, layouts, packed
from verifier.errors import ReadError
from verifier.readers import read_tensors

FILE = "model.safetensors"
NAME = "model.layers.0.mlp.up_proj"
ROWS, COLUMNS, GROUP = 24, 256, 64


@pytest.fixture
def matrix():
    torch.manual_seed(0)
    return 0.05 * torch.randn(ROWS, COLUMNS)


@pytest.fixture
def read(tmp_path):
    """Write tensors and read them back as the comparison does: values by name."""

    def run(tensors):
        save_file({n: t.contiguous() for n, t in tensors.items()}, tmp_path / FILE)
        (arranged,), problems = layouts.arrange(tmp_path, read_tensors(tmp_path, FILE))
        assert not problems
        found = {}
        for tensor in packed.join(tmp_path, arranged.tensors):
            with blocks.Files(tmp_path, tensor.paths) as files:
                values = torch.cat(list(packed.stream(files, tensor)))
            found[tensor.name] = values.view(tensor.shape)
        return found

    return run


def words(codes):
    """Pack codes of 4 bits along the last dimension, the first lowest, into signed words."""
    shifted = codes.long().view(*codes.shape[:-1], -1, 8) << (4 * torch.arange(8))
    whole = shifted.sum(-1)
    return torch.where(whole >= 2**31, whole - 2**32, whole).to(torch.int32)


def gptq(matrix, zero_as_stored=None):
    """AutoGPTQ: 4 bits, asymmetric, packed along the columns of the transposed matrix."""
    groups = matrix.view(ROWS, -1, GROUP)
    low, high = groups.amin(2), groups.amax(2)
    scales = (high - low) / 15
    zeros = (-low / scales).round() if zero_as_stored is None else torch.full_like(low, 8)
    index = torch.arange(COLUMNS) // GROUP
    each, zero = scales[:, index], zeros[:, index]
    codes = ((matrix / each).round() + zero).clamp(0, 15)
    stored = zeros - 1 if zero_as_stored is None else zeros
    return (codes - zero) * each, {
        f"{NAME}.qweight": words(codes).T,
        f"{NAME}.qzeros": words(stored.T),
        f"{NAME}.scales": scales.T,
        f"{NAME}.g_idx": index.to(torch.int32),
    }


def compressed(matrix):
    """compressed-tensors ``pack-quantized``: 4 bits, symmetric."""
    groups = matrix.view(ROWS, -1, GROUP)
    scale = groups.abs().amax(2) / 7
    each = scale.repeat_interleave(GROUP, 1)
    codes = (matrix / each).round()
    return codes * each, {
        f"{NAME}.weight_packed": words(codes + 8),
        f"{NAME}.weight_scale": scale,
        f"{NAME}.weight_shape": torch.tensor([ROWS, COLUMNS]),
    }


def bitsandbytes(matrix, nested):
    """NF4 with blocks of 64, as ``save_pretrained`` writes it."""
    groups = matrix.view(-1, 64)
    absmax = groups.abs().amax(1)
    extra, state = {}, {"quant_type": "nf4", "blocksize": 64, "shape": [ROWS, COLUMNS]}
    if nested:
        offset, table = float(absmax.mean()), torch.linspace(-1, 1, 256)
        outer = (absmax - offset).abs().amax().repeat(-(-len(absmax) // 256))
        codes = ((absmax - offset) / outer[0] - table[:, None]).abs().argmin(0)
        absmax = table[codes] * outer[0] + offset
        state |= {"nested_blocksize": 256, "nested_offset": offset}
        extra = {"absmax": codes.to(torch.uint8), "nested_absmax": outer, "nested_quant_map": table}
    values = torch.tensor(NF4)
    codes = ((groups / absmax[:, None])[..., None] - values).abs().argmin(-1)
    pairs = codes.view(-1, 2).to(torch.uint8)
    sides = {"absmax": absmax, "quant_map": values} | extra
    return (values[codes] * absmax[:, None]).view_as(matrix), {
        f"{NAME}.weight": (pairs[:, :1] << 4) | pairs[:, 1:],
        f"{NAME}.weight.quant_state.bitsandbytes__nf4": torch.tensor(
            list(json.dumps(state).encode()), dtype=torch.uint8
        ),
        **{f"{NAME}.weight.{end}": tensor for end, tensor in sides.items()},
    }


PACKERS = {
    "gptq": gptq,
    "gptq v2, symmetric": lambda m: gptq(m, 8),
    "compressed": compressed,
    "nf4": lambda m: bitsandbytes(m, False),
    "nf4, nested": lambda m: bitsandbytes(m, True),
}


@pytest.mark.parametrize("name", PACKERS)
def test_a_packed_matrix_is_read_as_the_one_it_means(read, matrix, name):
    meant, tensors = PACKERS[name](matrix)
    found = read(tensors | {"model.norm.weight": torch.ones(4)})
    assert set(found) == {f"{NAME}.weight", "model.norm.weight"}
    assert torch.allclose(found[f"{NAME}.weight"], meant, atol=1e-6)


@pytest.mark.parametrize("name", PACKERS)
def test_pieces_that_do_not_fit_each_other_stay_tensors_of_their_own(read, matrix, name):
    _, tensors = PACKERS[name](matrix)
    for spoiled in tensors:
        if spoiled.endswith(("weight_shape", "nested_absmax", "quant_state.bitsandbytes__nf4")):
            continue  # known from the others, allowed to be longer, or see below
        broken = tensors | {spoiled: torch.ones(3, dtype=tensors[spoiled].dtype)}
        assert len(read(broken)) == len(tensors), spoiled


@pytest.mark.parametrize(
    "state",
    [
        b"{",
        b"[]",
        b'{"blocksize": 0, "shape": [24, 256]}',
        b'{"blocksize": 64, "shape": [1]}',
        b"\0",
    ],
)
def test_a_state_that_is_not_understood_is_not_guessed(read, matrix, state):
    _, tensors = bitsandbytes(matrix, nested=True)
    name = f"{NAME}.weight.quant_state.bitsandbytes__nf4"
    found = read(tensors | {name: torch.tensor(list(state), dtype=torch.uint8)})
    assert f"{NAME}.weight" in found
    assert len(found) == len(tensors)


def test_a_group_that_is_not_there_is_refused(read, matrix):
    _, tensors = gptq(matrix)
    tensors[f"{NAME}.g_idx"] = torch.full((COLUMNS,), 99, dtype=torch.int32)
    with pytest.raises(ReadError, match="names a group that is not there"):
        read(tensors)


def test_single_numbers_beside_packed_matrices_are_no_weights(read, matrix):
    _, tensors = compressed(matrix)
    scalar = {"model.layers.0.self_attn.k_scale": torch.tensor(1.0)}
    assert set(read(tensors | scalar)) == {f"{NAME}.weight"}
    assert set(read(scalar)) == set(scalar)


def test_integers_without_scales_stay_integers(read):
    codes = torch.ones(64, 64, dtype=torch.int8)
    assert read({f"{NAME}.weight": codes})[f"{NAME}.weight"].dtype == torch.int8
