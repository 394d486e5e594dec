import numpy as np
import pytest

from partitions import counts, dirichlet_equal, measure, mixture, quantity

LABELS = np.random.default_rng(0).permutation(np.arange(20_000) % 10)


def figures(alpha, quantity_alpha):
    rng = np.random.default_rng(1)
    return measure(counts(LABELS, mixture(LABELS, 50, alpha, quantity_alpha, 10, rng), 10))


def test_sizes_are_those_of_a_quantity_deal():
    mixed = mixture(LABELS, 50, 0.1, 0.5, 10, np.random.default_rng(1))
    sized = quantity(LABELS, 50, 0.5, 10, np.random.default_rng(1))
    assert [len(part) for part in mixed] == [len(part) for part in sized]


def test_each_knob_turns_its_own_skew():
    both, even, sizes, mixes = (
        figures(*alphas) for alphas in ((0.5, 0.5), (1e6, 1e6), (1e6, 0.5), (0.5, 1e6))
    )
    assert even.gini < 0.002 < 0.4 < sizes.gini == both.gini
    assert even.distance < sizes.distance < 0.3 < 0.5 < min(mixes.distance, both.distance)
    assert mixes.gini < 0.002


def test_equal_sizes_are_as_skewed_as_an_equal_size_deal():
    rng = np.random.default_rng(1)
    equal = measure(counts(LABELS, dirichlet_equal(LABELS, 50, 0.5, rng), 10))
    assert figures(0.5, 1e9).distance == pytest.approx(equal.distance, rel=0.1)


def test_a_small_alpha_gives_one_class_to_whoever_is_smaller_than_a_class():
    table = counts(LABELS, mixture(LABELS, 200, 1e-9, 5.0, 1, np.random.default_rng(1)), 10)
    # A second class comes only where one ran out, which each of the ten does at most once.
    assert ((table > 0).sum(axis=1) - 1).sum() <= 9


@pytest.mark.parametrize(
    ("alpha", "quantity_alpha", "message"),
    [
        (0.0, 1.0, r"^partition\.alpha is 0\.0: set it to a finite number above 0"),
        (1.0, -1.0, r"^partition\.quantity-alpha is -1\.0: set it to a finite number above 0"),
    ],
)
def test_the_impossible_is_refused(alpha, quantity_alpha, message):
    with pytest.raises(ValueError, match=message):
        mixture(LABELS, 50, alpha, quantity_alpha, 0, np.random.default_rng(1))
