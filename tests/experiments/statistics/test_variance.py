"""Variance shares equal the closed form of a balanced design."""

import numpy as np
import pytest

pytest.importorskip("statsmodels")

from experiments.statistics.variance import variance_shares
from fl.reproducibility.seeds import stream

DEALS, INITS = 6, 4


def balanced():
    """Return rows of 6 deals × 4 inits with a strong deal, and their table."""
    rng = stream(1, "variance")
    y = (
        rng.normal(0, 2, (DEALS, 1))
        + rng.normal(0, 1, (1, INITS))
        + rng.normal(0, 0.5, (DEALS, INITS))
    )
    rows = [{"Y": y[d, i], "deal": d, "init": i} for d in range(DEALS) for i in range(INITS)]
    return rows, y


def test_shares_are_those_of_the_analysis_of_variance():
    rows, y = balanced()
    deals, inits = y.mean(1, keepdims=True), y.mean(0, keepdims=True)
    rest = ((y - deals - inits + y.mean()) ** 2).sum() / ((DEALS - 1) * (INITS - 1))
    deal = (INITS * deals.var(ddof=1) - rest) / INITS
    init = (DEALS * inits.var(ddof=1) - rest) / DEALS
    expected = np.array([deal, init, rest]) / (deal + init + rest)
    found = variance_shares(rows, "Y", (), ("deal", "init"))
    assert list(found) == ["deal", "init", "rest"]
    assert list(found.values()) == pytest.approx(expected, abs=5e-3)


def test_what_was_compared_on_purpose_is_no_variance():
    rows, _ = balanced()
    both = [{**row, "recipe": r, "Y": row["Y"] + 50 * r} for row in rows for r in (0, 1)]
    found = variance_shares(both, "Y", ("recipe",), ("deal", "init", "deal:recipe"))
    assert sum(found.values()) == pytest.approx(1)
    assert found["deal"] > 0.5
    assert found["deal:recipe"] < 0.01


def test_what_was_compared_may_go_together():
    rows, _ = balanced()
    both = [
        {**row, "recipe": r, "rate": 0.1 * (1 + r), "skew": k, "Y": row["Y"] + 50 * r + 9 * k}
        for row in rows
        for r in (0, 1)
        for k in (0, 1)
    ]
    found = variance_shares(both, "Y", ("recipe", "rate", "skew"), ("deal", "init"))
    assert found == pytest.approx(
        variance_shares(both, "Y", ("recipe", "skew"), ("deal", "init")), abs=1e-6
    )
