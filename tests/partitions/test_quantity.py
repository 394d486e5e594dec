import numpy as np
import pytest

from partitions import counts, iid, measure, quantity

LABELS = np.repeat(np.arange(10), 500)


def sizes(clients, alpha, min_size, seed=1):
    parts = quantity(LABELS, clients, alpha, min_size, np.random.default_rng(seed))
    return np.array([len(part) for part in parts])


def test_sizes_are_spread_as_a_dirichlet_says():
    # Var[p_i] = (1/N) (1 - 1/N) / (N alpha + 1)
    found = np.array([sizes(5, 2.0, 0, seed) for seed in range(300)]) / 5000
    assert found.mean(axis=0) == pytest.approx(0.2, abs=0.015)
    assert found.var(axis=0).mean() == pytest.approx(0.2 * 0.8 / 11, rel=0.2)


def test_mixes_are_those_of_an_iid_deal():
    # Labels come sorted: consecutive pieces would have one class.
    rng = np.random.default_rng(1)
    parts = quantity(LABELS, 20, 5.0, 50, rng)
    dealt = measure(counts(LABELS, iid(LABELS, 20, rng), 10))
    assert measure(counts(LABELS, parts, 10)).distance < 1.5 * dealt.distance


def test_a_small_alpha_gives_one_client_all_that_the_others_need_not_have():
    assert sorted(sizes(20, 1e-9, 10).tolist()) == [10] * 19 + [4810]
    assert sorted(sizes(20, 1e-9, 0).tolist()) == [0] * 19 + [5000]


@pytest.mark.parametrize(
    ("clients", "alpha", "min_size", "message"),
    [
        (0, 1.0, 0, r"^partition\.clients is 0: set it to 1 or more$"),
        (600, 1.0, 10, r"^partition\.clients x partition\.min-size is 600 x 10 = 6000, .* 5000"),
        (10, 0.0, 0, r"^partition\.alpha is 0\.0: set it to a finite number above 0"),
    ],
)
def test_the_impossible_is_refused(clients, alpha, min_size, message):
    with pytest.raises(ValueError, match=message):
        quantity(LABELS, clients, alpha, min_size, np.random.default_rng(1))
