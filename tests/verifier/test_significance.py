"""The p-values are what they claim: among models trained apart, at most a share α is below α."""

import math

import pytest
import torch

from verifier.significance import (
    SMALLEST,
    claimed,
    log_binomial_tail,
    log_p_of_conjunction,
    log_p_of_matrix,
    log_p_of_signs,
)

LEVELS = (0.5, 0.2, 0.1, 0.05, 0.01, 0.001)
PAIRS = 4000


def normal(size):
    return torch.randn(size)


def heavy(size):
    return torch.distributions.StudentT(1.2).sample(size)


def outlier_columns(size):
    values = torch.randn(size)
    values[:, ::16] *= 50
    return values


def outlier_rows(size):
    return outlier_columns(size[::-1]).T


def coins(size):
    return torch.randint(0, 2, size) * 2.0 - 1


def common_columns(size):
    """Every entry of a column has one sign, drawn anew for each model, as residual channels may."""
    return coins((1, size[1])) * (1 + torch.rand(size))


DISTRIBUTIONS = [normal, heavy, outlier_columns, outlier_rows, coins, common_columns]


@pytest.mark.parametrize("size", [(32, 48), (2, 512), (512, 2)], ids=str)
@pytest.mark.parametrize("draw", DISTRIBUTIONS, ids=lambda d: d.__name__)
def test_independent_matrices_have_p_values_no_smaller_than_uniform_ones(draw, size):
    torch.manual_seed(size[0])
    places = torch.randint(0, size[0] * size[1], (256,)).sort().values
    found = []
    for _ in range(PAIRS // 10):
        one = draw(size).flatten()[places]
        two = draw(size).flatten()[places]
        found.append(log_p_of_matrix(one, two, places, size[1], 0.5, 0))
    assert_no_smaller_than_uniform(found)


def test_the_bound_on_signs_holds_in_thousands_of_trials():
    torch.manual_seed(0)
    groups = torch.arange(64)
    for sizes in (torch.ones(64), torch.rand(64), torch.logspace(-6, 6, 64)):
        signs = torch.randint(0, 2, (PAIRS, 64)) * 2 - 1
        found = [log_p_of_signs((sizes * row).double(), groups) for row in signs]
        assert_no_smaller_than_uniform(found)


def test_a_shared_sign_is_one_coin():
    """A thousand entries of one channel are no more evidence than one."""
    ones = torch.ones(1000, dtype=torch.float64)
    assert log_p_of_signs(ones, torch.zeros(1000)) == -0.5
    assert log_p_of_signs(ones, torch.arange(1000)) == -500


def test_opposite_and_undefined_sums_are_no_evidence():
    groups = torch.arange(9)
    for value in (-1.0, 0.0, math.nan, math.inf):
        assert log_p_of_signs(torch.full((9,), value, dtype=torch.float64), groups) == 0


@pytest.mark.parametrize("count, expected", [(0, 1 / 8), (1, 1 / 2), (3, 1.0), (9, 1.0)])
def test_the_binomial_tail_counts_coins(count, expected):
    assert math.exp(log_binomial_tail(count, 3)) == pytest.approx(expected)


def test_one_matrix_taken_over_is_no_evidence_for_the_rest():
    logs = [-500.0] + [math.log(0.3)] * 9
    assert log_p_of_conjunction(logs, 4) == 0
    assert log_p_of_conjunction(logs, 1) == pytest.approx(-500 + math.log(10))
    assert log_p_of_conjunction([], 1) == 0


def test_the_conjunction_of_independent_matrices_is_no_smaller_than_uniform():
    torch.manual_seed(1)
    logs = torch.rand(PAIRS, 10).log()
    for least in (1, 4, 10):
        found = [log_p_of_conjunction(row, least) for row in logs.tolist()]
        assert_no_smaller_than_uniform(found)


def test_nothing_below_the_smallest_is_claimed():
    assert claimed(-1e9) == SMALLEST
    assert claimed(-math.inf) == SMALLEST
    assert claimed(0.0) == 1


def assert_no_smaller_than_uniform(logs):
    """Allow four standard deviations of a binomial count."""
    for level in LEVELS:
        count = sum(value <= math.log(level) for value in logs)
        expected = level * len(logs)
        assert count <= expected + 4 * math.sqrt(expected) + 1, (level, count, expected)
