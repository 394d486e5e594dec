"""The error that test images add, against closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from experiments.statistics.images import apart, crossed_interval


def answers(seed: int, blocks: int, images: int, share: float) -> np.ndarray:
    return np.random.default_rng(seed).random((blocks, images)) < share


def test_where_blocks_agree_the_width_is_that_of_images():
    """With one answer an image in all blocks, the deviation is √(var d / images)."""
    one, other = answers(1, 1, 2000, 0.6), answers(2, 1, 2000, 0.5)
    low, high = crossed_interval(one.repeat(6, 0), other.repeat(6, 0))
    d = one.astype(float) - other
    half = 1.96 * d.std() / np.sqrt(2000)
    assert (high - low) / 2 == pytest.approx(half, rel=0.06)
    assert (high + low) / 2 == pytest.approx(d.mean(), abs=half / 5)


def test_where_images_agree_the_width_is_that_of_blocks():
    """With all images right or wrong together, it is √(var of block means / blocks)."""
    rng = np.random.default_rng(3)
    one, other = (rng.random((40, 1)) < share for share in (0.6, 0.4))
    low, high = crossed_interval(one.repeat(50, 1), other.repeat(50, 1))
    d = (one.astype(float) - other)[:, 0]
    assert (high - low) / 2 == pytest.approx(1.96 * d.std() / np.sqrt(40), rel=0.06)


@settings(max_examples=10)
@given(st.integers(0, 100), st.integers(2, 6), st.integers(1, 30))
def test_it_is_the_same_at_every_call_and_turns_with_the_sign(seed, blocks, images):
    one, other = answers(seed, blocks, images, 0.5), answers(seed + 1, blocks, images, 0.5)
    low, high = crossed_interval(one, other)
    assert (low, high) == crossed_interval(one, other)
    assert crossed_interval(other, one) == pytest.approx((-high, -low), abs=1e-12)
    assert -1 <= low <= high <= 1


def test_a_difference_has_both_intervals_at_the_level_that_is_asked_for():
    one, other = answers(1, 12, 300, 0.6), answers(2, 12, 300, 0.5)
    found, wide = apart(one, other), apart(one, other, 0.99)
    d = one.mean(1) - other.mean(1)
    assert found.mean == pytest.approx(d.mean())
    assert found.blocks == pytest.approx(ttest_1samp(d, 0).confidence_interval(0.95))
    assert found.images == crossed_interval(one, other)
    for narrow, wider in ((found.blocks, wide.blocks), (found.images, wide.images)):
        assert wider[0] < narrow[0] < narrow[1] < wider[1]


def test_answers_of_other_images_are_no_pair():
    with pytest.raises(ValueError, match="two blocks or more"):
        crossed_interval(answers(1, 3, 5, 0.5), answers(1, 3, 6, 0.5))
    with pytest.raises(ValueError, match="two blocks or more"):
        crossed_interval(answers(1, 1, 5, 0.5), answers(1, 1, 5, 0.5))
