import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from partitions import hold_out

SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=8)
SHARES = st.floats(0, 1, exclude_max=True)


def dealt(sizes):
    order = np.random.default_rng(5).permutation(sum(sizes))
    return np.split(order, np.cumsum(sizes)[:-1])


def lists(parts):
    return [part.tolist() for part in parts]


@given(SIZES, SHARES, st.integers(0, 99))
@settings(max_examples=50)
def test_each_client_keeps_its_examples_in_two_parts(sizes, share, seed):
    parts = dealt(sizes)
    before = lists(parts)
    train, held = hold_out(parts, share, np.random.default_rng(seed))
    again = hold_out(parts, share, np.random.default_rng(seed))
    assert (lists(train), lists(held)) == (lists(again[0]), lists(again[1]))
    assert lists(parts) == before
    for part, mine, kept in zip(before, lists(train), lists(held), strict=True):
        assert sorted(mine + kept) == sorted(part)
        assert mine == [place for place in part if place in set(mine)]  # in its order
        n = len(part)
        assert len(mine) >= min(n, 1)
        if share and n >= 2:
            assert 1 <= len(kept) <= n - 1
            assert abs(len(kept) - share * n) <= 0.5 or len(kept) in (1, n - 1)
        else:
            assert kept == []


@given(SIZES, SHARES, SHARES, st.integers(0, 99))
@settings(max_examples=30)
def test_a_larger_share_holds_out_the_same_and_more(sizes, one, other, seed):
    small, large = (
        hold_out(dealt(sizes), share, np.random.default_rng(seed))[1]
        for share in sorted((one, other))
    )
    assert all(
        set(few.tolist()) <= set(many.tolist()) for few, many in zip(small, large, strict=True)
    )


def test_what_is_held_out_is_drawn():
    parts = [np.arange(1000)]
    one, other = (hold_out(parts, 0.2, np.random.default_rng(seed))[1][0] for seed in (1, 2))
    assert len(one) == 200
    assert set(one.tolist()) != set(other.tolist())
    assert 60 < (one < 500).sum() < 140


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_the_impossible_is_refused(share):
    with pytest.raises(ValueError, match=r"^partition\.held-out is .*: set it to 0 or more and"):
        hold_out([np.arange(3)], share, np.random.default_rng(1))
