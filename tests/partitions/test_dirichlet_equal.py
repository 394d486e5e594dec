from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from partitions import counts, dirichlet_equal, iid, measure
from partitions.dirichlet_equal import log_mixes, take

LABELS = np.arange(5000) * 7 % 64 % 10
SIZES = np.bincount(LABELS)


@given(st.integers(1, 120), st.data())
@settings(max_examples=50, deadline=None)
def test_sizes_are_equal(examples, data):
    clients = data.draw(st.integers(1, examples))
    labels, alpha = np.arange(examples) * 7 % 5, 10.0 ** data.draw(st.floats(-9, 6))
    parts = dirichlet_equal(labels, clients, alpha, np.random.default_rng(1))
    small, more = divmod(examples, clients)
    assert [len(part) for part in parts] == [small + 1] * more + [small] * (clients - more)


def test_indices_are_in_no_order():
    first, second = dirichlet_equal(LABELS, 2, 1.0, np.random.default_rng(1))
    assert (np.diff(LABELS[first]) < 0).any()
    first, second = dirichlet_equal(np.zeros(20, dtype=np.int64), 2, 1.0, np.random.default_rng(1))
    assert max(first) > min(second)
    assert max(second) > min(first)


def test_leftovers_say_nothing_about_a_clients_number():
    tables = [
        counts(LABELS, dirichlet_equal(LABELS, 50, 1e6, np.random.default_rng(seed)), 10)
        for seed in range(10)
    ]
    odd = np.mean([np.abs(table - SIZES / 50).sum(axis=1) for table in tables], axis=0)
    assert odd[-10:].mean() == pytest.approx(odd[:10].mean(), rel=0.25)


@pytest.mark.parametrize("alpha", [5e-324, 1e-300, 1e-9])
def test_small_alpha_gives_one_class(alpha):
    parts = dirichlet_equal(LABELS, 100, alpha, np.random.default_rng(1))
    held = (counts(LABELS, parts, 10) > 0).sum(axis=1)
    # A second class comes only where one ran out, which each of the ten does at most once.
    assert (held - 1).sum() <= 9
    assert measure(counts(LABELS, parts, 10)).distance > 0.8


@pytest.mark.parametrize("alpha", [1e6, 1e300, 1.7e308])
def test_large_alpha_is_nearly_iid(alpha):
    rng = np.random.default_rng(1)
    ours = measure(counts(LABELS, dirichlet_equal(LABELS, 50, alpha, rng), 10))
    dealt = measure(counts(LABELS, iid(LABELS, 50, rng), 10))
    # Not less skewed than iid, and a little more: the last clients get an uneven rest.
    assert dealt.distance < ours.distance < 1.4 * dealt.distance


def test_skew_falls_as_alpha_grows():
    distances = [
        measure(counts(LABELS, dirichlet_equal(LABELS, 50, a, rng), 10)).distance
        for a, rng in ((a, np.random.default_rng(1)) for a in (1e-3, 0.5, 5.0, 50.0, 5e3))
    ]
    assert distances == sorted(distances, reverse=True)


def test_mixes_are_spread_as_a_dirichlet_says():
    # Var[q_k] = p_k (1 - p_k) / (alpha + 1); drawing `size` examples from q makes it
    # p_k (1 - p_k) (1 + alpha / size) / (alpha + 1) for the shares, while no class runs out.
    prior, alpha, size, draws = SIZES / len(LABELS), 4.0, 500, 4000
    rng = np.random.default_rng(1)
    plenty = np.full(10, size)
    mixes = log_mixes(alpha * prior, draws, rng)
    shares = np.array([take(size, mix, plenty, rng) for mix in mixes]) / size
    spread = (prior * (1 - prior)).sum() * (1 + alpha / size) / (alpha + 1)
    assert shares.mean(axis=0) == pytest.approx(prior, abs=0.02)
    assert shares.var(axis=0).sum() == pytest.approx(spread, rel=0.05)


def test_running_out_has_the_law_of_single_draws():
    left, mix, size, draws = np.array([1, 2, 5]), np.array([0.5, 0.4, 0.1]), 4, 4000
    rng = np.random.default_rng(1)

    def one_by_one():
        taken = np.zeros(3, dtype=np.int64)
        for _ in range(size):
            weights = mix * (taken < left)
            taken[rng.choice(3, p=weights / weights.sum())] += 1
        return tuple(taken.tolist())

    expected = Counter(one_by_one() for _ in range(draws))
    found = Counter(tuple(take(size, np.log(mix), left, rng).tolist()) for _ in range(draws))
    assert sum(((expected - found) + (found - expected)).values()) / (2 * draws) < 0.03
    assert set(found) == set(expected)


def test_a_class_of_no_weight_is_taken_once_the_others_ran_out():
    rng = np.random.default_rng(1)
    log_mix = np.array([0.0, -1e300, -1e290])
    assert take(5, log_mix, np.array([2, 4, 2]), rng).tolist() == [2, 1, 2]


@pytest.mark.parametrize(
    ("clients", "alpha", "message"),
    [
        (0, 1.0, r"^partition\.clients is 0: set it to 1 or more$"),
        (5001, 1.0, r"^partition\.clients is 5001, .*: set it to 5000 or less$"),
        (10, 0.0, r"^partition\.alpha is 0\.0: set it to a finite number above 0"),
    ],
)
def test_the_impossible_is_refused(clients, alpha, message):
    with pytest.raises(ValueError, match=message):
        dirichlet_equal(LABELS, clients, alpha, np.random.default_rng(1))
