import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from partitions import counts, dirichlet, measure

GOLDEN = json.loads((Path(__file__).parent / "golden" / "dirichlet.json").read_text())
LARGE = [case for case in GOLDEN if "sha256" in case]
SMALL = [case for case in GOLDEN if "labels" in case]
FIFTY_THOUSAND = (np.arange(50_000) * 2654435761 >> 16) % 64 % 10
"""The labels of make_golden.py."""


def lists(parts):
    return [part.tolist() for part in parts]


# ---- Bit for bit what flwr-datasets 0.6.1 deals ---------------------------------------------


@pytest.mark.parametrize("case", [c for c in LARGE if c["sizes"]], ids=lambda c: str(c["knobs"]))
def test_equals_flwr_datasets(case):
    parts = dirichlet(FIFTY_THOUSAND, *case["knobs"], np.random.default_rng(case["seed"]))
    flat = np.concatenate(parts).astype("<i8")
    assert [len(part) for part in parts] == case["sizes"]
    assert hashlib.sha256(flat.tobytes()).hexdigest() == case["sha256"]


@pytest.mark.parametrize("case", SMALL, ids=lambda c: str(c["knobs"]))
def test_equals_flwr_datasets_in_full(case):
    labels = np.array(case["labels"])
    parts = dirichlet(labels, *case["knobs"], np.random.default_rng(case["seed"]))
    assert lists(parts) == case["parts"]


@pytest.mark.parametrize(
    "case", [c for c in LARGE if not c["sizes"]], ids=lambda c: str(c["knobs"])
)
def test_answers_where_flwr_datasets_raises(case):
    clients, alpha, min_size = case["knobs"]
    rng = np.random.default_rng(case["seed"])
    parts = dirichlet(FIFTY_THOUSAND, clients, alpha, min_size, rng)
    assert min(len(part) for part in parts) == min_size  # topped up, not a twelfth try
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(50_000))


# ---- Laws -----------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [5e-324, 1e-300, 1e-9])
def test_small_alpha_gives_each_class_one_owner(alpha):
    parts = dirichlet(FIFTY_THOUSAND, 30, alpha, 0, np.random.default_rng(1))
    holders = (counts(FIFTY_THOUSAND, parts, 10) > 0).sum(axis=0)
    np.testing.assert_array_equal(holders, np.ones(10))


@pytest.mark.parametrize("alpha", [1e9, 1e300, 1.7e308])
def test_large_alpha_gives_everyone_the_same(alpha):
    parts = dirichlet(FIFTY_THOUSAND, 10, alpha, 0, np.random.default_rng(1))
    table = counts(FIFTY_THOUSAND, parts, 10)
    # Cuts are rounded down at both ends of a share, and the draw itself is off by 1e-4.
    assert (np.abs(table - table.sum(axis=0) / 10) <= 2).all()


def test_skew_falls_as_alpha_grows():
    figures = [
        measure(counts(FIFTY_THOUSAND, dirichlet(FIFTY_THOUSAND, 50, a, 0, rng), 10))
        for a, rng in ((a, np.random.default_rng(1)) for a in (1e-3, 0.1, 1.0, 10.0, 1e4))
    ]
    distances = [figure.distance for figure in figures]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.8
    assert distances[-1] < 0.01


# ---- The repair -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clients", "alpha", "min_size"),
    [(1000, 0.05, 10), (1000, 0.05, 1), (1000, 1e-9, 50), (10_000, 0.1, 1)],
)
def test_many_clients_with_small_alpha(clients, alpha, min_size):
    rng = np.random.default_rng(1)
    parts = dirichlet(FIFTY_THOUSAND, clients, alpha, min_size, rng)
    assert min(len(part) for part in parts) == min_size
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(50_000))


def test_the_repair_keeps_the_skew():
    rng = np.random.default_rng(1)
    parts = dirichlet(FIFTY_THOUSAND, 1000, 0.05, 10, rng)
    assert measure(counts(FIFTY_THOUSAND, parts, 10)).effective_classes < 2.5


def test_what_is_given_away_has_the_mix_of_the_giver():
    labels = np.repeat([0, 1], 100)
    parts = dirichlet(labels, 3, 1e-9, 20, np.random.default_rng(1))
    # One client owned both classes, and the 20 that each of the others got are of both.
    assert sorted(len(part) for part in parts) == [20, 20, 160]
    assert (counts(labels, parts, 2) > 0).all()


# ---- What is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clients", "alpha", "min_size", "message"),
    [
        (0, 1.0, 0, r"^partition\.clients is 0: set it to 1 or more$"),
        (2, 1.0, -1, r"^partition\.min-size is -1: set it to 0 or more$"),
        (13, 1.0, 1, r"^partition\.clients is 13, .* only 12 examples: set it to 12 or less$"),
        (
            4,
            1.0,
            5,
            r"^partition\.clients x partition\.min-size is 4 x 5 = 20, .* only 12 examples: "
            r"set partition\.min-size to 3 or less, or partition\.clients to 2 or less$",
        ),
        *((2, alpha, 1, r"^partition\.alpha is .*: set it to a finite number above 0")
          for alpha in (0.0, -1.0, float("nan"), float("inf"))),
    ],
)  # fmt: skip
def test_the_impossible_is_refused(clients, alpha, min_size, message):
    with pytest.raises(ValueError, match=message) as refusal:
        dirichlet(np.arange(12) % 3, clients, alpha, min_size, np.random.default_rng(1))
    assert "\n" not in str(refusal.value)


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="0 examples"):
        dirichlet(np.arange(0), 1, 1.0, 0, np.random.default_rng(1))


def test_empty_clients_only_when_asked_for():
    parts = dirichlet(np.arange(3), 5, 1.0, 0, np.random.default_rng(1))
    assert sum(len(part) for part in parts) == 3
    assert len(parts) == 5
