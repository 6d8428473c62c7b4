"""Which values lie on the grid of a quantization, and which only look a little like it."""

import pytest
import torch

from tests.verifier.copies import K_QUANTS, QUANTIZED, symmetric
from verifier.quantized import NF4, RowWatch, look

TYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture
def matrix():
    torch.manual_seed(0)
    return 0.02 * torch.randn(64, 1024)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", QUANTIZED)
def test_a_quantization_is_named_by_its_grid_and_explains_its_error(matrix, name, dtype):
    copy = QUANTIZED[name](matrix).to(dtype).float()
    grid = look(copy[::4])
    assert (grid.is_quantized, grid.scheme) == (True, name)
    assert grid.explains(error(matrix, copy))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", K_QUANTS)
def test_a_k_quant_is_named_by_its_blocks(matrix, name, dtype):
    copy = K_QUANTS[name](matrix).to(dtype).float()
    grid = look(copy[::4])
    assert (grid.is_quantized, grid.scheme) == (True, name)
    assert grid.explains(error(matrix, copy))


@pytest.mark.parametrize("name", K_QUANTS)
def test_a_k_quant_that_says_what_it_is_explains_its_error(matrix, name):
    copy = K_QUANTS[name](matrix).bfloat16().float()
    assert look(copy[::4], stored=True).explains(error(matrix, copy))
    tuned = K_QUANTS[name](matrix + matrix.std() * torch.randn_like(matrix))
    assert not look(tuned[::4], stored=True).explains(error(matrix, tuned))


@pytest.mark.parametrize("name", QUANTIZED)
def test_another_matrix_on_the_same_grid_is_not_explained(matrix, name):
    tuned = matrix + 0.4 * matrix.std() * torch.randn_like(matrix)
    copy = QUANTIZED[name](tuned)
    assert look(copy[::4]).is_quantized
    assert not look(copy[::4]).explains(error(matrix, copy))


def test_the_oracle_quantizes_as_we_say(matrix):
    """The ``gguf`` package, llama.cpp's own conversion, decides what the names mean."""
    gguf = pytest.importorskip("gguf", reason="pip install gguf: llama.cpp's own conversion")
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
        kind = gguf.GGMLQuantizationType[name]
        coded = gguf.quants.quantize(matrix.numpy(), kind)
        copy = torch.from_numpy(gguf.quants.dequantize(coded, kind))
        grid = look(copy[::4])
        assert grid.scheme == name
        assert grid.explains(error(matrix, copy))


def distributions():
    torch.manual_seed(1)
    size = (16, 512)
    yield "normal", torch.randn(size)
    yield "laplace", torch.distributions.Laplace(0, 1).sample(size)
    yield "student", torch.distributions.StudentT(1.5).sample(size)
    yield "uniform", torch.rand(size) - 0.5
    yield "positive", torch.rand(size)
    outliers = torch.randn(size)
    outliers[:, ::50] *= 60
    yield "outlier columns", outliers
    yield "rows of many sizes", torch.randn(size) * torch.logspace(-4, 2, 16)[:, None]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kept", [1.0, 0.7, 0.5, 0.1], ids="kept {}".format)
def test_floats_pruned_or_not_are_on_no_grid(dtype, kept):
    for name, values in distributions():
        values = values * (torch.rand_like(values) < kept)
        grid = look((0.02 * values).to(dtype).float())
        assert not grid.is_quantized, (name, grid)


@pytest.mark.parametrize("dtype", TYPES)
def test_hundreds_of_unquantized_matrices_are_on_no_grid(dtype):
    torch.manual_seed(2)
    for _ in range(300):
        rows = (10 ** float(torch.empty(()).uniform_(-4, 1))) * torch.randn(4, 256)
        assert not look(rows.to(dtype).float()).is_quantized


def test_zeros_do_not_count_as_levels(matrix):
    """Counted with its zeros, a matrix pruned by nine tenths has four values in a window."""
    assert look(matrix * (torch.rand_like(matrix) < 0.1)).levels == 32


def test_a_quantized_and_pruned_matrix_is_on_its_grid(matrix):
    copy = symmetric(matrix, None, 7) * (torch.rand_like(matrix) < 0.6)
    assert look(copy[::4]).scheme == "int4 per row"


def test_narrow_empty_and_infinite_rows_say_nothing():
    for rows in (torch.randn(4, 8), torch.zeros(4, 64), torch.full((4, 64), torch.inf)):
        grid = look(rows)
        assert (grid.scheme, grid.noise) == (None, None)
    assert not look(torch.randn(4, 8)).is_quantized


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_squares_beyond_fp32_explain_nothing(matrix, size):
    grid = look(size * QUANTIZED["int8 per row"](matrix)[::4])
    assert grid.noise is None or grid.noise == pytest.approx(6e-5, rel=0.2)
    assert not grid.explains(0.5)


@pytest.mark.parametrize("size", [1, 777, 10**6])
def test_rows_are_watched_whatever_the_size_of_blocks(size):
    values = torch.arange(200.0 * 30).view(200, 30)
    watch = RowWatch("a", (200, 30), b"seed")
    assert torch.equal(
        torch.cat(list(watch.watch(iter(values.flatten().split(size))))), values.flatten()
    )
    assert all(torch.equal(row, values[int(row[0]) // 30]) for row in watch.rows)
    assert len(watch.rows) > 8


def test_nf4_is_the_published_table():
    assert len(NF4) == 16
    assert (NF4[0], NF4[7], NF4[15]) == (-1.0, 0.0, 1.0)
    assert list(NF4) == sorted(NF4)


def error(official, copy):
    return float((official - copy).square().sum() / official.square().sum())
