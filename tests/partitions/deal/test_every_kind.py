"""The laws that every kind of partition obeys."""

import time

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import partitions as p

KINDS = {
    "iid": lambda y, d, k, rng: p.iid(y, k["clients"], rng),
    "dirichlet": lambda y, d, k, rng: p.dirichlet(y, k["clients"], k["alpha"], k["min"], rng),
    "dirichlet-equal": lambda y, d, k, rng: p.dirichlet_equal(y, k["clients"], k["alpha"], rng),
    "dirichlet-balanced": lambda y, d, k, rng: p.dirichlet_balanced(
        y, k["clients"], k["alpha"], k["min"], rng
    ),
    "mixture": lambda y, d, k, rng: p.mixture(
        y, k["clients"], k["alpha"], k["sizes"], k["min"], rng
    ),
    "quantity": lambda y, d, k, rng: p.quantity(y, k["clients"], k["alpha"], k["min"], rng),
    "shards": lambda y, d, k, rng: p.shards(y, k["clients"], k["shards"], rng),
    "label-count": lambda y, d, k, rng: p.label_count(y, k["clients"], k["labels"], rng),
    "natural": lambda y, d, k, rng: p.natural(y, d, k["clients"], k["alpha"], k["min"], rng),
}
BLIND = {"iid", "quantity"}
"""They don't look at the labels."""
SIZED = {"dirichlet", "dirichlet-balanced", "mixture", "quantity"}
"""They mind min-size."""

every_kind = pytest.mark.parametrize("kind", KINDS)


@st.composite
def deals(draw, kind):
    """Labels and domains in any order and number, and knobs that are possible for them."""
    n = draw(st.integers(1, 120))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    labels = rng.integers(-2, draw(st.integers(-1, 6)), n)
    domains = rng.integers(0, draw(st.integers(1, 5)), n)
    clients, floor = draw(st.integers(1, n)), n
    if kind == "natural":
        sizes = np.unique(domains, return_counts=True)[1]
        each = draw(st.integers(1, 3))
        clients = each * len(sizes) if each > 1 else draw(st.integers(1, len(sizes)))
        floor = int(sizes.min()) // each * clients
    classes = len(set(labels.tolist()))
    alphas = st.floats(-9, 6).map(lambda power: 10.0**power)
    knobs = {
        "clients": clients,
        "alpha": draw(alphas),
        "sizes": draw(alphas),
        "min": draw(st.integers(0, floor // clients)),
        "shards": draw(st.integers(1, max(n // clients, 1))),
        "labels": draw(st.integers(-(-classes // clients), classes)),
    }
    return labels, domains, knobs


def lists(parts):
    return [part.tolist() for part in parts]


@every_kind
@given(st.data(), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_every_example_once_and_nobody_too_small(kind, data, seed):
    labels, domains, knobs = data.draw(deals(kind))
    before = labels.copy(), domains.copy()
    parts = KINDS[kind](labels, domains, knobs, np.random.default_rng(seed))
    again = KINDS[kind](labels, domains, knobs, np.random.default_rng(seed))
    assert lists(parts) == lists(again)
    assert len(parts) == knobs["clients"]
    assert {part.dtype for part in parts} == {np.dtype(np.int64)}
    assert min(len(part) for part in parts) >= (knobs["min"] if kind in SIZED else 0)
    dealt = np.arange(len(labels))
    if kind == "natural" and knobs["clients"] < len(set(domains.tolist())):
        dealt = np.flatnonzero(np.isin(domains, domains[np.concatenate(parts)]))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), dealt)
    np.testing.assert_array_equal((labels, domains), before)


@every_kind
@given(st.data(), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_the_order_of_examples_changes_nobodys_classes(kind, data, seed):
    """Exactly, with equal generators; kinds that don't look at labels deal the same places."""
    labels, domains, knobs = data.draw(deals(kind))
    order = np.random.default_rng(seed + 1).permutation(len(labels))
    parts = KINDS[kind](labels, domains, knobs, np.random.default_rng(seed))
    moved = KINDS[kind](labels[order], domains[order], knobs, np.random.default_rng(seed))
    if kind in BLIND:
        assert lists(moved) == lists(parts)
    else:
        np.testing.assert_array_equal(
            p.counts(labels[order] + 2, moved, 8), p.counts(labels + 2, parts, 8)
        )


@every_kind
@given(st.data(), st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_names_of_classes_do_not_matter(kind, data, seed):
    labels, domains, knobs = data.draw(deals(kind))
    one = KINDS[kind](labels, domains, knobs, np.random.default_rng(seed))
    other = KINDS[kind](labels * 3 + 40, domains, knobs, np.random.default_rng(seed))
    assert lists(one) == lists(other)


LABELS = np.random.default_rng(0).permutation(np.arange(50_000) % 10)
DOMAINS = np.arange(50_000) % 100


def knobs_for(clients, alpha, min_size=5):
    return {
        "clients": clients,
        "alpha": alpha,
        "sizes": alpha,
        "min": min_size,
        "shards": 2,
        "labels": 2,
    }


@every_kind
@pytest.mark.parametrize("alpha", [1e-9, 1e6])
def test_ten_thousand_clients_in_bounded_work(kind, alpha):
    begun = time.monotonic()
    knobs = knobs_for(10_000, alpha)
    parts = KINDS[kind](LABELS, DOMAINS, knobs, np.random.default_rng(1))
    assert time.monotonic() - begun < 30  # well under a second; see tools/bench_partitions.py
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(50_000))
    assert min(len(part) for part in parts) > 0


@every_kind
def test_the_generator_decides_and_orders_are_shuffled(kind):
    knobs = knobs_for(100, 1.0)
    one, other = (KINDS[kind](LABELS, DOMAINS, knobs, np.random.default_rng(s)) for s in (1, 2))
    assert lists(one) != lists(other)
    long = [part for part in one if len(part) >= 20]
    assert not any((np.diff(part) > 0).all() for part in long)
    # Nor class by class: both halves of whoever has two classes or more have its first class.
    if kind != "shards":
        mixed = [LABELS[part] for part in long if (LABELS[part] == LABELS[part[0]]).mean() < 0.5]
        assert any(labels[0] in labels[len(labels) // 2 :] for labels in mixed)


@pytest.mark.parametrize("kind", [*sorted(SIZED), "dirichlet-equal"])
def test_a_large_alpha_is_nearly_iid(kind):
    deal = KINDS[kind](LABELS, DOMAINS, knobs_for(50, 1e6), np.random.default_rng(1))
    even = p.iid(LABELS, 50, np.random.default_rng(1))
    found, dealt = (p.measure(p.counts(LABELS, parts, 10)) for parts in (deal, even))
    assert found.distance < 1.4 * dealt.distance
    assert found.gini < 0.002


@pytest.mark.parametrize("kind", ["dirichlet", "dirichlet-balanced", "mixture", "dirichlet-equal"])
def test_classes_are_more_skewed_as_alpha_falls(kind):
    distances = [
        p.measure(
            p.counts(
                LABELS,
                KINDS[kind](LABELS, DOMAINS, knobs_for(50, alpha), np.random.default_rng(1)),
                10,
            )
        ).distance
        for alpha in (1e4, 10.0, 1.0, 0.1)
    ]
    assert distances == sorted(distances)
    assert distances[0] < 0.05 < 0.4 < distances[-1]


@pytest.mark.parametrize("kind", ["dirichlet", "mixture", "quantity"])
def test_sizes_are_more_skewed_as_alpha_falls(kind):
    ginis = [
        p.measure(
            p.counts(
                LABELS,
                KINDS[kind](LABELS, DOMAINS, knobs_for(50, alpha), np.random.default_rng(1)),
                10,
            )
        ).gini
        for alpha in (1e4, 10.0, 1.0, 0.1)
    ]
    assert ginis == sorted(ginis)
    assert ginis[0] < 0.01
