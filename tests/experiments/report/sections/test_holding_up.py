"""What holds up under skew, on runs whose odds are known; and what runs differ by."""

import math

import pytest
from scipy.special import expit, logit

from experiments.report.results import read
from experiments.report.sections.decision import holding_up
from experiments.statistics.paired import t_interval

EVEN = {"partition.kind": "iid"}
SKEWED = {"partition.kind": "dirichlet", "partition.alpha": 0.1}


def cost(recipe, seed):
    """Return the log odds that skew costs, of which 0.5 is the network's own."""
    return 0.8 + 0.5 * (recipe == "batchnorm") + 0.05 * math.sin(seed + len(recipe))


def write(write_run, folder, seeds):
    for recipe, start in (("batchnorm", 0.2), ("zc-swish", 0.9)):
        for seed in seeds:
            even = start + 0.1 * math.cos(seed)
            for name, knobs, odds in (
                ("even", EVEN, even),
                ("skewed", SKEWED, even - cost(recipe, seed)),
            ):
                accuracy = float(expit(odds))
                write_run(
                    folder / f"{recipe}-{name}-{seed}", [0.1, accuracy],
                    {"recipe": recipe, "seed": seed, **knobs},
                )  # fmt: skip
    return read(folder)


def test_the_interaction_is_that_of_known_odds(tmp_path, write_run):
    seeds = range(1, 9)
    results = write(write_run, tmp_path, seeds)
    (((before, after), (reference, other)),) = holding_up.held(results).items()
    assert (str(before), str(after)) == ("iid", "Dirichlet α = 0.1")
    assert (str(reference.cell.series), reference.interaction) == ("BatchNorm", None)
    known = [cost("batchnorm", seed) - cost("zc-swish", seed) for seed in seeds]
    assert other.interaction.mean == pytest.approx(sum(known) / 8)
    assert other.interaction.interval == pytest.approx(t_interval(known))
    assert (str(other.interaction.verdict), other.interaction.n) == ("BETTER", 8)
    ends = [
        [run.outcome for run in results.cells[other.cell.series, c].runs] for c in (before, after)
    ]
    assert logit(ends[0][0]) - logit(ends[1][0]) == pytest.approx(cost("zc-swish", 1))
    share = (sum(ends[1]) / 8 - 0.1) / (sum(ends[0]) / 8 - 0.1)
    assert other.kept == pytest.approx(share)
    low, high = other.interval
    assert low < share < high < 1
    assert "HOLDS UP BETTER, n = 8" in holding_up.section(results)


@pytest.mark.parametrize("seeds", [5, 8])
def test_power_is_told_of_seeds_that_can_be_significant(tmp_path, write_run, seeds):
    told = holding_up.power(write(write_run, tmp_path, range(1, seeds + 1)))
    assert ("p ≥ 0.062" in told) == (seeds == 5)  # 2 / 2⁵
    assert ("with probability 0.8" in told) == (seeds == 8)


def test_few_seeds_give_no_verdict_and_no_interval(tmp_path, write_run):
    results = write(write_run, tmp_path, (1, 2))
    ((_, other),) = holding_up.held(results).values()
    assert (other.interval, other.interaction.verdict) == (None, None)
    assert "HOLDS UP" not in holding_up.section(results)


def test_without_even_clients_one_line_says_so(tmp_path, write_run):
    for recipe in ("batchnorm", "zc-swish"):
        write_run(tmp_path / recipe, [0.1, 0.5], {"recipe": recipe, **SKEWED})
    results = read(tmp_path)
    assert holding_up.held(results) == {}
    assert "no runs with even clients beside skewed ones" in holding_up.section(results)


def crossed(write_run, folder, own):
    """Write runs of which the deal matters most; `own` says whether weights vary on their own."""
    for deal in range(4):
        for init in range(4) if own else (deal,):
            accuracy = (
                0.5 + 0.03 * (deal % 2) + 0.01 * (deal // 2) + 0.002 * math.sin(7 * init + deal)
            )
            for recipe, gain in (("batchnorm", 0), ("none", 0.02)):
                knobs = {"recipe": recipe, "seed.deal": deal + 1, "seed.init": init + 1}
                write_run(folder / f"{recipe}-{deal}-{init}", [0.1, accuracy + gain], knobs)
    return read(folder)


@pytest.mark.slow
def test_variance_is_told_apart_where_two_draws_vary_on_their_own(tmp_path, write_run):
    found = holding_up.shares(crossed(write_run, tmp_path, own=True))
    assert sum(found.values()) == pytest.approx(1)
    assert found["deal"] > 0.9 > 0.1 > found["first weights"]


def test_draws_that_go_together_are_not_told_apart(tmp_path, write_run):
    results = crossed(write_run, tmp_path, own=False)
    assert holding_up.shares(results) == {}
    assert "ten runs in which two of the seeds vary on their own" in holding_up.section(results)
