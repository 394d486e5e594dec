import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from partitions.deal.repair import TRIES, deal_out, top_up


def lists(parts):
    return [part.tolist() for part in parts]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.data())
def test_nobody_too_small_and_nobody_poorer_than_that(sizes, data):
    min_size = data.draw(st.integers(0, sum(sizes) // len(sizes)))
    parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    repaired = top_up(parts, min_size)
    assert min(len(part) for part in repaired) >= min_size
    assert sorted(np.concatenate(repaired).tolist()) == list(range(sum(sizes)))
    for before, after in zip(sizes, repaired, strict=True):
        assert len(after) == min_size if before < min_size else len(after) <= before


def test_top_up_on_paper():
    parts = [np.arange(0), np.arange(3), np.array([9]), np.arange(10, 15), np.arange(20, 25)]
    # 0 lacks 2: of the two with five, 3 gives [13, 14]. 2 lacks 1: now 4 has the most.
    repaired = top_up(parts, 2)
    assert lists(repaired) == [[13, 14], [0, 1, 2], [9, 24], [10, 11, 12], [20, 21, 22, 23]]
    assert [len(part) for part in parts] == [0, 3, 1, 5, 5]


def test_top_up_takes_from_several_where_one_cannot_spare_enough():
    parts = [np.arange(0), np.arange(10, 15), np.arange(20, 24)]
    assert lists(top_up(parts, 3)) == [[13, 14, 23], [10, 11, 12], [20, 21, 22]]


def test_the_first_draw_that_is_large_enough_is_dealt():
    draws = iter([[[6, 0]], [[4, 2]], [[3, 3]]])
    rng = np.random.default_rng(1)
    parts = deal_out(np.arange(6), lambda: np.array(next(draws)), 2, rng)
    assert [sorted(part) for part in lists(parts)] == [[0, 1, 2, 3], [4, 5]]


def test_no_more_than_so_many_draws():
    drawn = []

    def draw():
        drawn.append(1)
        return np.array([[6, 0]])

    parts = deal_out(np.arange(6), draw, 2, np.random.default_rng(1))
    assert len(drawn) == TRIES
    assert [len(part) for part in parts] == [4, 2]
