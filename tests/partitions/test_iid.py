import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from partitions import iid

LABELS = np.arange(1000) % 10


@given(st.integers(1, 200), st.data())
def test_every_example_once_in_equal_parts(examples, data):
    clients = data.draw(st.integers(1, examples))
    labels = np.arange(examples) % 3
    before = labels.copy()
    parts = iid(labels, clients, np.random.default_rng(1))
    sizes = [len(part) for part in parts]
    assert len(parts) == clients
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(examples))
    np.testing.assert_array_equal(labels, before)


def test_the_deck_is_shuffled_and_the_generator_decides_how():
    one, same, other = (np.concatenate(iid(LABELS, 7, np.random.default_rng(s))) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, np.arange(1000))


@pytest.mark.parametrize(
    ("clients", "message"),
    [
        (0, r"^partition\.clients is 0: set it to 1 or more$"),
        (1001, r"^partition\.clients is 1001, .* only 1000 examples: set it to 1000 or less$"),
    ],
)
def test_the_impossible_is_refused(clients, message):
    with pytest.raises(ValueError, match=message):
        iid(LABELS, clients, np.random.default_rng(1))
