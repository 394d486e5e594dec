import numpy as np
import pytest

from partitions import counts, dirichlet, dirichlet_balanced, measure

LABELS = np.random.default_rng(0).permutation(np.arange(50_000) % 10)


def niid_bench(labels, clients, alpha, rng):
    """One try of NIID-Bench's rule as it is written: draw for all, strike out, renormalize."""
    dealt = np.zeros(clients, dtype=np.int64)
    for size in np.bincount(labels):
        p = rng.dirichlet(np.full(clients, alpha)) * (dealt < len(labels) / clients)
        cuts = (np.cumsum(p / p.sum()) * size).astype(int)[:-1]
        dealt += np.diff(cuts, prepend=0, append=size)
    return np.sort(dealt)


def test_sizes_have_the_law_of_niid_bench():
    labels = np.arange(2000) % 4
    rng = np.random.default_rng(1)
    theirs = np.mean([niid_bench(labels, 8, 0.5, rng) for _ in range(250)], axis=0)
    ours = [
        np.sort([len(part) for part in dirichlet_balanced(labels, 8, 0.5, 0, rng)])
        for _ in range(250)
    ]
    assert np.mean(ours, axis=0) == pytest.approx(theirs, rel=0.07, abs=8)


def test_who_has_an_average_share_gets_no_further_class():
    table = counts(LABELS, dirichlet_balanced(LABELS, 20, 0.2, 0, np.random.default_rng(1)), 10)
    before = np.cumsum(table, axis=1) - table
    assert (table[before >= 50_000 / 20] == 0).all()
    assert (table[before < 50_000 / 20] > 0).any()


def test_sizes_are_less_skewed_than_without_balance():
    balanced, free = (
        measure(counts(LABELS, deal(LABELS, 50, 0.3, 0, np.random.default_rng(1)), 10)).gini
        for deal in (dirichlet_balanced, dirichlet)
    )
    assert balanced < 0.8 * free


@pytest.mark.parametrize("clients", [10, 30])  # of ten, each holds exactly the average
@pytest.mark.parametrize("alpha", [5e-324, 1e-300, 1e-9])
def test_small_alpha_gives_each_class_one_owner_and_nobody_two(alpha, clients):
    parts = dirichlet_balanced(LABELS, clients, alpha, 0, np.random.default_rng(1))
    table = counts(LABELS, parts, 10) > 0
    assert (table.sum(axis=0) == 1).all()
    assert table.sum(axis=1).max() == 1


@pytest.mark.parametrize("alpha", [1e9, 1e300, 1.7e308])
def test_large_alpha_gives_everyone_the_same(alpha):
    table = counts(LABELS, dirichlet_balanced(LABELS, 10, alpha, 0, np.random.default_rng(1)), 10)
    assert (np.abs(table - 500) <= 2).all()


@pytest.mark.parametrize(
    ("clients", "alpha", "min_size", "message"),
    [
        (0, 1.0, 0, r"^partition\.clients is 0: set it to 1 or more$"),
        (10, 1.0, 5001, r"^partition\.clients x partition\.min-size is 10 x 5001"),
        (10, float("nan"), 0, r"^partition\.alpha is nan: set it to a finite number above 0"),
    ],
)
def test_the_impossible_is_refused(clients, alpha, min_size, message):
    with pytest.raises(ValueError, match=message):
        dirichlet_balanced(LABELS, clients, alpha, min_size, np.random.default_rng(1))
