"""Laws of successive halving, and of what is tried beyond a grid."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.statistics.halving import extended, halved

SCORES = st.dictionaries(st.integers(), st.sampled_from([-math.inf, 0.1, 0.2, 0.3]), min_size=1)


@given(SCORES, st.sampled_from([1.5, 2, 3, 4]))
def test_the_best_share_goes_on_and_nobody_better_stays_behind(scores, factor):
    kept = halved(scores, factor)
    left = [name for name in scores if name not in kept]
    assert len(kept) == math.ceil(len(scores) / factor)
    assert all(scores[one] >= scores[other] for one in kept for other in left)
    assert kept == [name for name in scores if name in kept]  # in their order


def test_of_equal_ones_the_first_goes_on():
    assert halved({0.01: 0.2, 0.02: 0.5, 0.04: 0.6, 0.08: 0.6, 0.16: 0.1}) == [0.02, 0.04, 0.08]
    assert halved({0.04: 0.6, 0.08: 0.6}) == [0.04]


@given(st.floats(1e-3, 10), st.sampled_from([2, 3, 10]), st.integers(2, 6))
def test_an_edge_winner_extends_a_grid_by_the_grid_s_own_ratio(low, ratio, points):
    grid = [low * ratio**n for n in range(points)]
    above, below = extended(grid, grid[-1]), extended(grid, grid[0])
    assert above == pytest.approx(low * ratio**points, rel=1e-3)
    assert below == pytest.approx(low / ratio, rel=1e-3)
    assert all(extended(grid, inner) is None for inner in grid[1:-1])


def test_there_is_nothing_beyond_one_value_or_beyond_0():
    assert extended([0.1], 0.1) is None
    assert extended([0, 0.01, 0.1], 0) is None
    assert extended([0, 0.01, 0.1], 0.1) == pytest.approx(1)
    assert extended([0, 0.1], 0.1) is None
