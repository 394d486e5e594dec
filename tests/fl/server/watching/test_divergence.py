import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl.server.watching.divergence import Divergence, gaps

START = {"w": np.zeros((1, 2), np.float32), "b": np.ones(1, np.float32), "n": np.array(7.0)}


def test_divergence_of_two_clients_by_pencil():
    """Updates (1, 0; 0) and (1, 1; 0) are 45° apart; the buffer n does not count."""
    divergence = Divergence(START, ["w", "b"], ["b"])
    divergence.add({**START, "w": np.array([[1, 0]], np.float32), "n": np.array(9.0)}, 1)
    divergence.add({**START, "w": np.array([[1, 1]], np.float32)}, 1)
    told = divergence.summary()
    assert told["update_cosine"] == pytest.approx(0.5**0.5)
    assert (told["scalar_variance"], told["clients"]) == ({"b": [0.0]}, 2)


def test_scalars_of_two_clients_by_pencil():
    start = {"s": np.array(1.0, np.float32), "c": np.array([0.0, 1e8])}
    divergence = Divergence(start, ["s", "c"], ["s", "c"])
    divergence.add({"s": np.array(1.0, np.float32), "c": np.array([4.0, 1e8])}, 1)
    divergence.add({"s": np.array(4.0, np.float32), "c": np.array([6.0, 1e8 + 2])}, 5)
    assert divergence.summary()["scalar_variance"] == {"s": 2.25, "c": [1.0, 1.0]}


def test_a_client_that_did_not_move_has_no_direction():
    divergence = Divergence(START, ["w", "b"], [])
    for step in (0, 1, -1):
        divergence.add({**START, "w": np.full((1, 2), step, np.float32)}, 1)
    told = divergence.summary()
    assert (told["update_cosine"], told["cancelled"]) == (pytest.approx(-1), pytest.approx(1))
    assert told["clients"] == 3


NETWORKS = st.lists(
    st.tuples(
        st.lists(st.floats(-1e3, 1e3, width=32), min_size=5, max_size=5), st.integers(1, 900)
    ),
    min_size=2,
    max_size=6,
)
LAYERS = {"a": slice(0, 3), "b.c": slice(3, 5)}
"""Layer -> where its parameters lie in a network of five."""


@given(NETWORKS)
def test_cosines_are_means_over_pairs_and_cancelled_is_distance_from_the_mean(found):
    """By their definitions, of the whole network and of each layer."""
    updates, weights = np.array([update for update, _ in found]), np.array([n for _, n in found])
    start = {"a.w": np.zeros(2), "a.b": np.zeros(1), "b.c.w": np.zeros(2)}
    divergence = Divergence(start, list(start), ["b.c.w"])
    for update, weight in found:
        own = {"a.w": update[:2], "a.b": update[2:3], "b.c.w": update[3:]}
        divergence.add({name: start[name] + u for name, u in own.items()}, weight)
    told = divergence.summary()
    assert list(told["layers"]) == list(LAYERS)
    for of, part in ((told, slice(None)), *((told["layers"][x], LAYERS[x]) for x in LAYERS)):
        u = updates[:, part]
        moving = [one / np.linalg.norm(one) for one in u if np.linalg.norm(one) > 0]
        pairs = [float(a @ b) for i, a in enumerate(moving) for b in moving[:i]]
        assert of["update_cosine"] == (pytest.approx(np.mean(pairs), abs=1e-9) if pairs else None)
        off = np.square(u - np.average(u, axis=0, weights=weights)).sum(1) @ weights
        moved = np.square(u).sum(1) @ weights
        assert of["cancelled"] == (pytest.approx(off / moved, abs=1e-9) if moved else None)
    variance = updates[:, LAYERS["b.c"]].var(0).tolist()
    assert told["scalar_variance"]["b.c.w"] == pytest.approx(variance, abs=1e-6)


def test_one_update_for_all_is_not_cancelled_and_one_taken_back_is():
    for signs, share in (((1, 1, 1), 0.0), ((1, -1), 1.0), ((1, 1, -1), 1 - 1 / 9)):
        divergence = Divergence(START, ["w"], [])
        for sign in signs:
            divergence.add({"w": np.array([[3.0 * sign, 0.0]])}, 7)
        assert divergence.summary()["cancelled"] == pytest.approx(share)


MOMENTS = {"x.norm.running_var": "x.norm.running_mean"}


def test_gaps_of_statistics_by_pencil():
    """Means 1 and 2 of the shared deviations off; variances twice and eight times as large."""
    shared = {"x.norm.running_mean": np.zeros(2), "x.norm.running_var": np.array([4.0, 9.0])}
    own = {"x.norm.running_mean": np.array([2.0, 6.0]), "x.norm.running_var": np.array([8.0, 72.0])}
    (told,) = gaps(MOMENTS, own, shared).values()
    assert told == {
        "mean": pytest.approx((1 + 4) / 2, rel=1e-5),
        "variance": pytest.approx(2 * np.log(2), rel=1e-5),
    }


def test_gaps_that_are_not_finite_are_none():
    shared = {"x.norm.running_mean": np.zeros(1), "x.norm.running_var": np.zeros(1)}
    own = {"x.norm.running_mean": np.array([np.nan]), "x.norm.running_var": np.array([np.inf])}
    assert gaps(MOMENTS, own, shared) == {"x.norm": {"mean": None, "variance": None}}
    assert gaps({}, own, shared) == {}
