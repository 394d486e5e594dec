import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from strategies.serving.server import Mean

VALUES = st.floats(-1e3, 1e3)
CLIENTS = st.lists(
    arrays(np.float64, st.tuples(st.integers(1, 9), st.just(3)), elements=VALUES),
    min_size=1,
    max_size=5,
)


@given(CLIENTS)
def test_pooled_moments_are_those_of_all_examples_together(clients):
    """The law of total variance: whoever holds which example makes no difference."""
    mean = Mean({"v": "m"})
    for examples in clients:
        mean.add({"v": examples.var(axis=0), "m": examples.mean(axis=0)}, float(len(examples)))
    together = np.concatenate(clients)
    found = mean.result()
    np.testing.assert_allclose(found["m"], together.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(found["v"], together.var(axis=0), atol=1e-6)


@given(CLIENTS)
def test_the_plain_mean_of_variances_is_never_above_the_pooled_variance(clients):
    plain, pooled = Mean(), Mean({"v": "m"})
    for examples in clients:
        moments = {"v": examples.var(axis=0), "m": examples.mean(axis=0)}
        plain.add(moments, float(len(examples)))
        pooled.add(moments, float(len(examples)))
    one, other = plain.result(), pooled.result()
    assert (one["v"] <= other["v"] + 1e-6).all()
    np.testing.assert_array_equal(one["m"], other["m"])


def test_a_mean_forgets_its_sums_as_it_is_drained():
    """So in memory are the sums and one mean, and not two of all."""
    mean = Mean({"v": "m"})
    mean.add({name: np.full(3, n) for n, name in enumerate("vmx")}, 2.0)
    held = [(name, sorted(mean.sums)) for name, _ in mean.drain()]
    assert held == [("v", ["m", "x"]), ("m", ["x"]), ("x", [])]


def test_a_pooled_variance_is_never_negative():
    """Rounding would make it so: the square of 1/3 in float32 is not what float64 squares to."""
    mean = Mean({"v": "m"})
    for weight in (1, 2, 7):
        mean.add(
            {"v": np.zeros(1, np.float32), "m": np.full(1, 1e6 / 3, np.float32)}, float(weight)
        )
    found = mean.result()
    assert found["v"].dtype == np.float32
    assert found["v"] == pytest.approx(0, abs=1e-3)
    assert found["v"] >= 0
