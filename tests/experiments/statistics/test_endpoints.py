"""Endpoints equal hand-worked ones; exact tests equal those of other libraries."""

import math

import pytest

from experiments.statistics.endpoints import (
    late_mean,
    median_time,
    rounds_to,
    window,
    worst_tenth,
)
from experiments.statistics.exact import collapsed, exact_interval, log_rank, mcnemar


@pytest.mark.parametrize(
    ("rounds", "last"), [(1, 1), (2, 2), (3, 3), (30, 3), (31, 4), (60, 6), (240, 24)]
)
def test_the_primary_endpoint_is_the_mean_of_the_last_tenth_and_of_three_at_least(rounds, last):
    assert window(rounds) == last
    scores = [0.0] * (rounds - last) + [0.5] * (last - 1) + [0.8]
    assert late_mean(scores) == pytest.approx((0.5 * (last - 1) + 0.8) / last)


def test_a_run_without_rounds_has_no_endpoint():
    with pytest.raises(ValueError, match="no rounds"):
        late_mean([])


def test_the_worst_tenth_is_the_mean_of_the_worst_clients():
    values = [0.9] * 9 + [0.3, 0.1]  # 11 clients, so two
    assert worst_tenth(values) == pytest.approx(0.2)
    assert worst_tenth(values, lambda error: -error) == pytest.approx(0.9)


def test_rounds_to_a_target_are_censored_where_it_is_not_reached():
    assert rounds_to([(3, 0.2), (6, 0.5), (9, 0.4), (12, 0.6)], 0.5) == (6, True)
    assert rounds_to([(3, 0.2), (6, None), (9, 0.5)], 0.5) == (9, True)
    assert rounds_to([(3, 0.2), (6, 0.3), (9, None)], 0.5) == (9, False), "it diverged"
    assert rounds_to([], 0.5) == (0, False)


def test_log_rank_sees_who_is_faster():
    slow, fast = [(20, False)] * 6 + [(18, True)] * 2, [(n, True) for n in range(3, 11)]
    assert log_rank(slow, slow) == pytest.approx(1.0)
    assert log_rank([(9, False)] * 3, [(9, False)] * 3) == 1.0, "nobody was seen to get there"
    assert log_rank([(3, True)] * 3, [(3, True)] * 3) == 1.0, "all are there at the same time"
    assert log_rank([(3, False)] * 3, [(9, True)] * 3) == 1.0, "nobody else was looked at by then"
    assert log_rank(slow, fast) < 0.001


def test_exact_intervals_are_those_of_statsmodels():
    other = pytest.importorskip("statsmodels.stats.proportion")
    for right, images in ((0, 100), (13, 100), (100, 1000), (1000, 1000)):
        expected = other.proportion_confint(right, images, 0.05, "beta")
        assert exact_interval(right, images) == pytest.approx(expected, abs=1e-6)
    assert exact_interval(0, 10) == pytest.approx((0, 1 - 0.025**0.1))  # by hand


@pytest.mark.parametrize(
    ("accuracy", "images", "lost"),
    [(0.1, 1000, True), (0.118, 1000, True), (0.125, 1000, False), (0.118, 10_000, False)],
)
def test_a_network_has_collapsed_if_it_cannot_be_told_from_guessing(accuracy, images, lost):
    assert collapsed(accuracy, images, 0.1) == lost
    assert collapsed(0.02, images, 0.1), "worse than guessing is no better"


def test_by_the_median_time_half_of_the_runs_are_there():
    assert median_time([(3, True), (6, True), (9, True)]) == 6
    assert median_time([(3, True), (6, True)]) == 3
    assert median_time([(3, True), (9, False), (6, True)]) == 6
    assert median_time([(3, True), (9, False)]) == 3
    assert median_time([(3, True), (9, False), (9, False)]) == math.inf


def test_mcnemar_is_that_of_statsmodels_and_of_a_pocket_calculator():
    first, second = [True] * 9 + [False] * 3, [False] * 7 + [True] * 2 + [True, False, False]
    assert mcnemar(first, second) == pytest.approx(2 * (1 + 8) / 2**8)  # 7 against 1
    other = pytest.importorskip("statsmodels.stats.contingency_tables")
    assert mcnemar(first, second) == pytest.approx(
        other.mcnemar([[2, 7], [1, 2]], exact=True).pvalue
    )
    assert mcnemar(first, first) == 1.0
