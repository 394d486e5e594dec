"""Numbers of blocks equal statsmodels', published ones of our design, and simulated power."""

import numpy as np
import pytest

from experiments.statistics import power
from fl.reproducibility.seeds import stream


@pytest.mark.parametrize(
    ("sd", "one", "two", "equal"),
    [(2.5, (51, 73), (15, 21), 26), (1.2, (14, 19), (5, 8), 7), (4.5, (161, 229), (42, 60), 79)],
)
def test_the_design_s_table(sd, one, two, equal):
    """The design rounds to the nearest block; these are the first at which power is 0.8."""
    for points, expected in ((1, one), (2, two)):
        found = tuple(power.blocks_for_difference(sd, points, alpha) for alpha in (0.05, 0.0125))
        assert all(0 <= n - table <= 1 for n, table in zip(found, expected, strict=True))
    assert 0 <= power.blocks_for_equivalence(sd, 1.5) - equal <= 1


def test_the_number_is_the_least_that_is_enough():
    n = power.blocks_for_difference(2.5, 2)
    assert power.power_of_difference(n - 1, 0.8) < 0.8 <= power.power_of_difference(n, 0.8)
    n = power.blocks_for_equivalence(2.5, 1.5)
    assert power.power_of_equivalence(n - 1, 2.5, 1.5) < 0.8
    assert power.power_of_equivalence(n, 2.5, 1.5) >= 0.8


def test_least_detectable_differences_of_the_design():
    found = [round(power.least_detectable(n), 2) for n in (3, 5, 8, 20)]
    assert found == [3.26, 1.68, 1.16, 0.66]


def test_a_huge_effect_needs_as_many_blocks_as_signs_can_tell():
    assert power.blocks_for_difference(0.01, 1) == 6  # 2 / 2⁶ < 0.05 < 2 / 2⁵
    assert power.blocks_for_difference(0.01, 1, 0.05 / 4) == 8


def test_power_is_that_of_statsmodels():
    other = pytest.importorskip("statsmodels.stats.power").TTestPower()
    for n, effect in ((6, 1.5), (12, 0.9), (50, 0.3)):
        assert power.power_of_difference(n, effect) == pytest.approx(
            other.power(effect, n, 0.05, alternative="two-sided"), abs=1e-3
        )


def test_the_power_of_equivalence_is_that_of_a_simulation():
    d = stream(1, "equivalence").normal(0, 2.5, (20_000, 26))
    half = 1.708141 * d.std(axis=1, ddof=1) / 26**0.5  # t(25) at 95 %
    found = np.mean(np.abs(d.mean(axis=1)) + half < 1.5)
    assert power.power_of_equivalence(26, 2.5, 1.5) == pytest.approx(found, abs=0.01)
