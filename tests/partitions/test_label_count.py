import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from partitions import counts, label_count

LABELS = np.random.default_rng(0).permutation(np.arange(50_000) % 10)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 99), st.data())
@settings(max_examples=50, deadline=None)
def test_k_labels_each_shared_equally_among_all_who_own_it(clients, classes, seed, data):
    each = data.draw(st.integers(-(-classes // clients), classes))
    labels = np.arange(classes * 70) % classes  # more of each label than clients
    parts = label_count(labels, clients, each, np.random.default_rng(seed))
    table = counts(labels, parts, classes)
    assert ((table > 0).sum(axis=1) == each).all()
    owners = (table > 0).sum(axis=0)
    assert (owners > 0).all()
    for column, count in zip(table.T, owners.tolist(), strict=True):
        share = 70 // count
        assert set(column[column > 0].tolist()) <= {share, share + 1}
    if clients >= classes:
        assert (table[np.arange(clients), np.arange(clients) % classes] > 0).all()


@pytest.mark.parametrize("seed", range(10))
def test_with_few_clients_every_label_has_an_owner(seed):
    table = counts(LABELS, label_count(LABELS, 4, 3, np.random.default_rng(seed)), 10) > 0
    assert (table.sum(axis=0) > 0).all()
    assert (table.sum(axis=1) == 3).all()


def test_all_labels_is_an_even_deal():
    table = counts(LABELS, label_count(LABELS, 100, 10, np.random.default_rng(1)), 10)
    assert (table == 50).all()


def test_further_labels_are_drawn_evenly():
    table = counts(LABELS, label_count(LABELS, 3000, 2, np.random.default_rng(1)), 10) > 0
    # Of 300 clients whose first label is 0, a ninth each own 1 to 9 besides: 33.3 +- 5.4.
    assert table[::10, 0].all()
    assert table[::10, 1:].sum() == 300
    assert (np.abs(table[::10, 1:].sum(axis=0) - 300 / 9) < 4.5 * 5.4).all()


def test_a_rest_goes_to_no_number_in_particular():
    labels = np.zeros(150, dtype=np.int64)
    parts = label_count(labels, 100, 1, np.random.default_rng(1))
    larger = [len(part) == 2 for part in parts]
    assert sum(larger) == 50
    assert 12 < sum(larger[:50]) < 38


def test_who_would_be_empty_gets_one_example():
    # 40 owners of three examples of class 1: most get none of it, and own nothing else.
    labels = np.array([0] * 97 + [1] * 3)
    parts = label_count(labels, 80, 1, np.random.default_rng(1))
    assert min(len(part) for part in parts) == 1
    assert sorted(np.concatenate(parts).tolist()) == list(range(100))


@pytest.mark.parametrize(
    ("clients", "each", "message"),
    [
        (0, 2, r"^partition\.clients is 0: set it to 1 or more$"),
        (101, 2, r"^partition\.clients is 101, .*: set it to 100 or less$"),
        (20, 0, r"^partition\.labels is 0, but there are 10 labels: set it from 1 to 10$"),
        (20, 11, r"^partition\.labels is 11, but there are 10 labels: set it from 1 to 10$"),
        (
            4,
            2,
            r"^partition\.clients x partition\.labels is 4 x 2 = 8, but there are 10 labels, .*: "
            r"set partition\.labels to 3 or more, or partition\.clients to 5 or more$",
        ),
    ],
)
def test_the_impossible_is_refused(clients, each, message):
    with pytest.raises(ValueError, match=message):
        label_count(np.arange(100) % 10, clients, each, np.random.default_rng(1))
