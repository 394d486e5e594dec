"""Paired tests equal SciPy's and statsmodels' own, and a hand-worked example."""

import numpy as np
import pytest
from scipy import stats

from experiments.statistics import endpoints, paired
from experiments.statistics.interaction import (
    interaction,
    retained,
    retained_beyond,
    retained_interval,
)
from fl.reproducibility.seeds import stream

D = [3.0, 1.0, 2.0, -1.0, 4.0, 2.0]
"""Mean 11/6, SD 1.7224; by hand."""


def test_a_hand_worked_example():
    low, high = paired.t_interval(D)
    half = 2.570582 * 1.722401 / 6**0.5  # t(5) at 97.5 %
    assert (low, high) == pytest.approx((11 / 6 - half, 11 / 6 + half), abs=1e-5)
    # |Σ ±d| ≥ 11 of Σ|d| = 13: no sign, or a single 1 on the other side; and their mirrors.
    assert paired.sign_flip(D) == pytest.approx(2 * 3 / 64)
    assert paired.tost(D, 1.5) == pytest.approx(
        stats.t.sf((1.5 - 11 / 6) / (1.722401 / 6**0.5), 5), abs=1e-6
    )


def test_pairs_are_blocks_that_both_have():
    assert endpoints.differences({1: 0.5, 2: 0.25, 4: 1.0}, {2: 0.5, 1: 0.25}) == {
        1: 0.25,
        2: -0.25,
    }


@pytest.mark.parametrize("n", [2, 7])
def test_t_intervals_and_tests_are_those_of_scipy(n):
    d = stream(1, "t", n).normal(0.4, 1, n)
    expected = stats.ttest_1samp(d, 0).confidence_interval(0.9)
    assert paired.t_interval(d, 0.9) == pytest.approx((expected.low, expected.high))
    above = stats.ttest_1samp(d, -0.7, alternative="greater").pvalue
    below = stats.ttest_1samp(d, 0.7, alternative="less").pvalue
    assert paired.tost(d, 0.7) == pytest.approx(max(above, below))


@pytest.mark.parametrize("n", [5, 9])
def test_sign_flips_are_those_of_scipy(n):
    d = stream(1, "d", n).normal(0.4, 1, n)
    expected = stats.permutation_test(
        (d,), lambda x, axis: np.mean(x, axis=axis), permutation_type="samples",
        n_resamples=2**n, vectorized=True,
    ).pvalue  # fmt: skip
    assert paired.sign_flip(d) == pytest.approx(expected)
    assert paired.sign_flip(np.full(n, 0.3)) == pytest.approx(2 / 2**n), "the least p"


def test_drawn_signs_are_close_to_all_and_the_same_every_time():
    d = stream(1, "many").normal(0.5, 1, 20)
    p = paired.sign_flip(d)
    assert p == paired.sign_flip(d)
    assert p == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.01)
    assert paired.sign_flip(d + 10) == pytest.approx(1e-4)


def test_holm_is_that_of_statsmodels():
    p = [0.04, 0.01, 0.03, 0.005, 0.9]
    assert paired.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # by hand
    assert paired.holm([0.02], family=4) == pytest.approx([0.08])
    other = pytest.importorskip("statsmodels.stats.multitest")
    assert paired.holm(p) == pytest.approx(other.multipletests(p, method="holm")[1])


def test_two_one_sided_tests_are_those_of_statsmodels():
    other = pytest.importorskip("statsmodels.stats.weightstats")
    d = stream(1, "equal").normal(0.1, 0.5, 12)
    expected = other.DescrStatsW(d).ttost_mean(-0.5, 0.5)[0]
    assert paired.tost(d, 0.5) == pytest.approx(expected)


def test_without_any_spread_the_interval_has_no_width():
    assert paired.t_interval([0.2, 0.2, 0.2]) == pytest.approx((0.2, 0.2), abs=1e-12)
    assert paired.tost([0.2] * 5, 0.3) == 0
    assert paired.tost([0.2] * 5, 0.2) == 1
    assert paired.bca_interval([0.2] * 10) == (0.2, 0.2)


def test_the_bootstrap_begins_at_ten_blocks_and_follows_a_skewed_sample():
    assert paired.bca_interval([1.0] * 9) is None
    d = stream(1, "skewed").exponential(1, 12)
    low, high = paired.bca_interval(d)
    assert high - d.mean() > d.mean() - low
    assert paired.bca_interval(d) == (low, high)


def test_one_difference_is_none():
    with pytest.raises(ValueError, match="two or more"):
        paired.t_interval([0.1])


def test_hold_up_is_a_difference_of_log_odds():
    # From odds of 9 to 1 and from 4 to 1: the first loses a factor of 9, the second of 4.
    found = interaction([0.5], [0.5], [0.9], [0.8])
    assert found == pytest.approx([np.log(4 / 9)])
    assert interaction([0.5], [0.5], [0.8], [0.8]) == pytest.approx([0])
    with pytest.raises(ValueError, match="log odds"):
        interaction([1.0], [0.5], [0.8], [0.8])


def test_the_retained_share_and_its_interval():
    even = np.array([0.5, 0.6, 0.7, 0.6, 0.55, 0.65])
    skewed = 0.1 + 0.4 * (even - 0.1)
    assert retained(skewed, even, 0.1) == pytest.approx(0.4)
    assert retained_interval(skewed, even, 0.1) == pytest.approx((0.4, 0.4)), "blocks are whole"
    low, high = retained_interval(skewed[::-1] + 0.05 * np.arange(6), even, 0.1)
    assert low < retained(skewed[::-1] + 0.05 * np.arange(6), even, 0.1) < high


def test_the_retained_share_beside_that_of_a_reference_in_the_same_blocks():
    even = np.array([0.5, 0.6, 0.7, 0.6, 0.55, 0.65])
    own, other = (0.1 + share * (even - 0.1) for share in (0.7, 0.4))
    beyond = retained_beyond((own, even), (other, even), 0.1)
    assert beyond == pytest.approx(np.full(6, 0.3)), "what blocks share is no error of a difference"
    mirrored = retained_beyond((other, even), (own, even), 0.1)
    assert mirrored == pytest.approx(-beyond)


def test_the_interval_of_a_retained_share_covers_the_true_one_as_often_as_it_says():
    """Of ten blocks, where blocks differ in level and runs in noise."""
    rng, hits, tries = np.random.default_rng(0), 0, 2000
    for _ in range(tries):
        block = rng.normal(0, 0.02, 10)
        levels = (0.42, 0.5, 0.34, 0.5)  # they keep 0.8 and 0.6 of their lead
        a, b, c, d = (level + block + rng.normal(0, 0.01, 10) for level in levels)
        low, high = paired.t_interval(retained_beyond((a, b), (c, d), 0.1))
        hits += low < 0.2 < high
    assert 0.935 < hits / tries < 0.965
