import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from partitions import counts, shards

SORTED = np.repeat(np.arange(10), 6000)


def test_mcmahans_own_setting():
    # 60,000 images of ten even classes, 200 shards of 300, 2 for each of 100 clients.
    parts = shards(SORTED, 100, 2, np.random.default_rng(1))
    table = counts(SORTED, parts, 10)
    assert {len(part) for part in parts} == {600}
    assert set(np.unique(table).tolist()) == {0, 300, 600}
    assert ((table > 0).sum(axis=1) <= 2).all()
    # Pairs of shards are of one class with probability 19 / 199: about 9.5 clients of 100.
    same = [(counts(SORTED, shards(SORTED, 100, 2, rng), 10) == 600).sum()
            for rng in map(np.random.default_rng, range(40))]  # fmt: skip
    assert np.mean(same) == pytest.approx(100 * 19 / 199, abs=1.5)


@given(st.integers(1, 200), st.data())
@settings(max_examples=40, deadline=None)
def test_sizes_and_classes_are_as_promised(examples, data):
    clients = data.draw(st.integers(1, examples))
    each = data.draw(st.integers(1, examples // clients))
    labels = np.arange(examples) * 7 % 5
    parts = shards(labels, clients, each, np.random.default_rng(1))
    sizes = [len(part) for part in parts]
    assert each * (examples // (clients * each)) <= min(sizes)
    assert max(sizes) - min(sizes) <= each
    held = (counts(labels, parts, 5) > 0).sum(axis=1)
    # Each border between two classes lies inside of one shard at most.
    borders = len(np.unique(labels)) - 1
    assert held.sum() <= clients * each + borders


def test_within_a_class_the_cut_is_drawn():
    first = shards(np.zeros(100, dtype=np.int64), 2, 1, np.random.default_rng(1))[0]
    assert 10 < (first < 50).sum() < 40


@pytest.mark.parametrize(
    ("clients", "each", "message"),
    [
        (0, 2, r"^partition\.clients is 0: set it to 1 or more$"),
        (5, 0, r"^partition\.shards is 0: set it to 1 or more$"),
        (
            50,
            3,
            r"^partition\.clients x partition\.shards is 50 x 3 = 150, but there are only 100 "
            r"examples: set partition\.shards to 2 or less, or partition\.clients to 33 or less$",
        ),
    ],
)
def test_the_impossible_is_refused(clients, each, message):
    with pytest.raises(ValueError, match=message):
        shards(np.arange(100) % 10, clients, each, np.random.default_rng(1))
