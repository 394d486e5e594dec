from math import log2, sqrt

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from partitions import Skew, counts, measure

LABELS = np.array([0, 1, 0, 1, 0, 2])


def test_counts_on_paper():
    parts = [np.array([0, 2, 4]), np.array([5, 1]), np.array([], dtype=np.int64), np.array([3])]
    expected = [[3, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    assert counts(LABELS, parts, 4).tolist() == expected


@pytest.mark.parametrize("labels", [np.array([0, 3]), np.array([-1, 0])])
def test_labels_out_of_range_are_refused(labels):
    with pytest.raises(ValueError, match=r"labels run from .* number the classes from 0 to 2$"):
        counts(labels, [np.array([0, 1])], 3)


def test_figures_on_paper():
    # Sizes 1, 3: sum |x_i - x_j| / (2 n^2 mean) = (2 + 2) / (2 * 4 * 2) = 1/4.
    # All have the mix (1/2, 1/2), client 0 (1, 0), client 1 (1/3, 2/3).
    found = measure(np.array([[1, 0], [1, 2]]))
    first = (log2(1 / (3 / 4)) + (log2(2 / 3) + log2(2)) / 2) / 2
    second = (
        (1 / 3) * log2((1 / 3) / (5 / 12))
        + (2 / 3) * log2((2 / 3) / (7 / 12))
        + (log2((1 / 2) / (5 / 12)) + log2((1 / 2) / (7 / 12))) / 2
    ) / 2
    effective = (1 + 3 / 2 ** (2 / 3)) / 2  # exp(ln 3 - (2/3) ln 2) = 3 / 2^(2/3)
    assert (found.clients, found.classes) == (2, 2)
    assert (found.smallest, found.median, found.largest) == (1, 2.0, 3)
    assert found.gini == pytest.approx(1 / 4)
    assert found.distance == pytest.approx((sqrt(first) + sqrt(second)) / 2)
    assert found.effective_classes == pytest.approx(effective)


def test_even_deals_have_no_skew():
    found = measure(np.full((4, 3), 5))
    assert found == Skew(4, 3, 15, 15.0, 15, 0.0, 0.0, found.effective_classes)
    assert found.effective_classes == pytest.approx(3)


def test_one_class_each():
    found = measure(np.diag([6, 6, 6, 6]))
    # m is 5/8 at the client's class and 1/8 at the three others; g is 1/4 everywhere.
    divergence = (log2(8 / 5) + (log2(2 / 5) + 3 * log2(2)) / 4) / 2
    assert found.distance == pytest.approx(sqrt(divergence))
    assert found.effective_classes == 1
    assert found.gini == 0


def test_empty_clients_have_a_size_but_no_mix():
    found = measure(np.array([[4, 4], [0, 0], [0, 0], [0, 0]]))
    assert found == Skew(4, 2, 0, 0.0, 8, 3 / 4, 0.0, found.effective_classes)
    assert found.effective_classes == pytest.approx(2)


def test_nothing_cannot_be_measured():
    with pytest.raises(ValueError, match="none of the 3 clients has an example"):
        measure(np.zeros((3, 2), dtype=np.int64))


@given(
    arrays(np.int64, st.tuples(st.integers(1, 8), st.integers(1, 6)), elements=st.integers(0, 9))
)
def test_figures_stay_in_their_ranges(table):
    table[0, 0] += 1
    found = measure(table)
    clients, classes = table.shape
    assert 0 <= found.distance <= 1
    assert 0 <= found.gini <= 1 - 1 / clients + 1e-12
    assert 1 - 1e-12 <= found.effective_classes <= classes + 1e-9
    assert found.smallest <= found.median <= found.largest


@given(arrays(np.int64, (5, 4), elements=st.integers(0, 9)), st.randoms(use_true_random=False))
def test_names_of_clients_and_classes_do_not_matter(table, random):
    table[0, 0] += 1
    rows, columns = random.sample(range(5), 5), random.sample(range(4), 4)
    found, renamed = measure(table), measure(table[rows][:, columns])
    assert renamed.gini == found.gini
    assert renamed.distance == pytest.approx(found.distance)
    assert renamed.effective_classes == pytest.approx(found.effective_classes)


def test_prints_as_one_line():
    assert str(measure(np.array([[1, 0], [1, 2]]))) == (
        "2 clients of 1 to 3 examples (median 2, Gini 0.25), on average 1.4 effective classes "
        "of 2 and Jensen-Shannon distance 0.35 from the mix of all"
    )
