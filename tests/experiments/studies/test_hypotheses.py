"""The plan's hypotheses, on tables whose answers are known."""

import re
import shutil
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

import fl
from experiments.studies.answer import ANSWER, judged
from experiments.studies.answer.conditions import FULL
from experiments.studies.answer.hypotheses import (
    ALPHA,
    best_normalizer,
    better,
    cause,
    closes_the_gap,
    holds_up,
    micro_batches,
)
from experiments.studies.answer.rows import Ended
from experiments.studies.answer.tables import found
from experiments.studies.answer.tables.words import NAMES

LATE = Path(fl.__file__).parents[1] / "docs/studies/answer/tuning/late"
BLOCKS = range(1001, 1013)
SKEWS = ("even", "3", "1")
LEVELS = {
    "bn-average": 0.40, "bn-recalibrate": 0.42, "bn-fixbn": 0.41, "groupnorm": 0.43, "none": 0.44,
    "zc-swish": 0.50, "salunet": 0.40,
}  # fmt: skip
"""Mean accuracies: ZC-Swish 7 points above GroupNorm, SaluNet 3 below."""


def table(levels=LEVELS, noise=0.003, blocks=BLOCKS, seed=0):
    """Return accuracies with noise of a run, and a draw that all contenders of a block share."""
    rng = np.random.default_rng(seed)
    shared = {block: rng.normal(0, 0.02) for block in blocks}
    return {
        name: {block: level + shared[block] + rng.normal(0, noise) for block in blocks}
        for name, level in levels.items()
    }


RUNS = {skew: table(seed=place) for place, skew in enumerate(SKEWS)}
VALIDATION = {skew: {"groupnorm": 0.4, "none": 0.9, "bn-recalibrate": 0.39} for skew in SKEWS}


def test_a_contender_without_a_normalizer_is_never_the_best_one():
    assert best_normalizer(VALIDATION["1"], list(LEVELS)) == "groupnorm"
    assert best_normalizer(VALIDATION["1"], ["bn-recalibrate", "none"]) == "bn-recalibrate"


def test_better_and_worse_are_found_at_each_skew():
    claims = list(better(RUNS, VALIDATION))
    assert [(c.name, c.where, c.holds) for c in claims] == [
        *(("H1", f"zc-swish, {skew}", True) for skew in SKEWS),
        *(("H2", f"salunet, {skew}", False) for skew in SKEWS),
    ]
    assert {c.against for c in claims} == {"groupnorm"}
    assert all(c.interval[0] < c.value < c.interval[1] for c in claims)


def test_a_small_lead_is_no_better_one():
    levels = {**LEVELS, "zc-swish": 0.438}
    claims = list(better({"1": table(levels)}, VALIDATION))
    assert (claims[0].word, claims[0].holds) == ("BETTER-SMALL", False)


@pytest.mark.parametrize(("blocks", "found"), [(range(7), None), (range(10), True)])
def test_fewer_than_ten_blocks_decide_nothing_however_large_a_lead_is(blocks, found):
    """2 / 2ⁿ times six tests is above α before: that is why the first look is at ten."""
    assert 6 * 2 / 2**9 < ALPHA < 6 * 2 / 2**7
    runs = {skew: table(blocks=blocks, seed=place) for place, skew in enumerate(SKEWS)}
    assert next(better(runs, VALIDATION)).holds is found


def test_who_keeps_more_of_the_odds_than_batchnorm_holds_up():
    skewed = {**LEVELS, "bn-average": 0.25, "zc-swish": 0.45, "salunet": 0.25}
    runs = {"even": table(), "1": table(skewed, seed=5)}
    claims = {c.where: c for c in holds_up(runs, "even")}
    assert claims["zc-swish, 1"].holds is True
    assert claims["salunet, 1"].holds is None
    runs["1"] = table({**skewed, "zc-swish": 0.2}, seed=5)
    assert {c.where: c.holds for c in holds_up(runs, "even")}["zc-swish, 1"] is False


def test_batchnorm_s_gain_by_a_larger_batch_is_compared():
    small = {"bn-average": 0.3, "zc-swish": 0.49, "salunet": 0.30}
    runs = {4: table(blocks=range(8)), 1: table(small, blocks=range(8), seed=3)}
    found = {c.against: (c.holds, round(c.value, 2)) for c in micro_batches(runs)}
    assert found == {"zc-swish": (True, 0.09), "salunet": (False, 0.0)}
    few = {size: {name: dict(list(of.items())[:5]) for name, of in t.items()}
           for size, t in runs.items()}  # fmt: skip
    assert {c.holds for c in micro_batches(few)} == {None, False}, "five blocks can't support it"


def test_an_activation_of_the_same_gain_that_is_as_good_refutes_the_cause():
    levels = {"zc-swish": 0.5, "leaky-relu": 0.5, "swish": 0.45}
    found = {
        c.against: (c.word, c.holds)
        for c in cause(table(levels, noise=0.006, blocks=range(8), seed=2))
    }
    assert found == {"leaky-relu": ("EQUIVALENT", False), "swish": ("BETTER", True)}


def test_a_remedy_closes_the_gap_or_part_of_it_or_there_is_none():
    found = {c.where: c for c in closes_the_gap(table({**LEVELS, "bn-recalibrate": 0.48}))}
    assert (found["bn-recalibrate"].holds, found["bn-fixbn"].holds) == (True, False)
    assert found["bn-recalibrate"].value == pytest.approx(0.8, abs=0.05)
    runs = table({**LEVELS, "zc-swish": 0.40})
    d = [y - runs["bn-average"][block] for block, y in runs["zc-swish"].items()]
    (claim,) = closes_the_gap(runs)
    assert (claim.where, claim.against) == ("zc-swish", "bn-average")
    assert (claim.word, claim.holds, claim.n) == ("no gap", None, 12)
    assert claim.value == pytest.approx(np.mean(d))
    assert np.allclose(claim.interval, ttest_1samp(d, 0).confidence_interval(1 - ALPHA))


@settings(max_examples=20)
@given(st.lists(st.floats(-0.05, 0.05), min_size=12, max_size=12))
def test_what_a_block_gives_to_all_changes_no_difference(moves):
    """Pairing is what the design rests on: only differences within a block count."""
    moved = {
        name: {block: y + move for (block, y), move in zip(of.items(), moves, strict=True)}
        for name, of in RUNS["1"].items()
    }
    both = [
        [*better({"1": runs}, VALIDATION), *closes_the_gap(runs)] for runs in (RUNS["1"], moved)
    ]
    for one, other in zip(*both, strict=True):
        assert (one.holds, one.word) == (other.holds, other.word)
        assert one.value == pytest.approx(other.value, abs=1e-9)
        assert np.allclose(astuple(one)[6], astuple(other)[6])


@pytest.mark.parametrize(("lacks", "claims"), [(1, 0), (0, 2)])
def test_the_block_of_batches_is_judged_when_it_is_whole(monkeypatch, tmp_path, lacks, claims):
    """BatchNorm gains 10 points by the larger batch, ZC-Swish 2, SaluNet 9."""
    (tmp_path / "batch").mkdir()
    (tmp_path / "batch/runs.csv").touch()
    gained = {"batchnorm": 0.1, "zc-swish": 0.02, "salunet": 0.09}
    rng = np.random.default_rng(0)
    runs = [
        Ended(k, 0.3 + gained[k["recipe"]] * (k["client.batch-size"] == 4) + rng.normal(0, 1e-4))
        for k in (one.to_flat() for one in ANSWER["answer-batch"]["full"]().experiments)
    ]
    monkeypatch.setattr(judged, "ended", lambda tables: runs[: len(runs) - lacks])
    told = list(found.claims(tmp_path))
    assert [c.n for c in told] == [8] * claims
    if told:
        assert [(c.where, c.against, c.holds, round(c.value, 2)) for c in told] == [
            ("bn-average", "zc-swish", True, 0.08),
            ("bn-average", "salunet", False, 0.01),
        ]
        head, _, *rows = found.batches(judged.by_batch(tmp_path))
        assert "batches of 1 | batches of 4" in head
        assert [row.split(" | ")[1:4] for row in rows] == [
            ["30.0", "40.0", "+10.0"],
            ["30.0", "32.0", "+2.0"],
            ["30.0", "39.0", "+9.0"],
        ]


@pytest.mark.parametrize("lacks", [1, 0])
def test_others_at_batches_of_one_are_told_when_all_of_them_are_there(monkeypatch, tmp_path, lacks):
    """NF is 9 points ahead of ZC-Swish in each block, recalibrated BatchNorm 30 behind."""
    level = {"zc-swish": 0.41, "nf": 0.5, "batchnorm": 0.11, "salunet": 0.34}
    tables = {tmp_path / "batch": "answer-batch", tmp_path / "batch/others": "answer-batch-others"}
    runs = dict[Path, list[Ended]]()
    for folder, study in tables.items():
        folder.mkdir()
        (folder / "runs.csv").touch()
        knobs = [one.to_flat() for one in ANSWER[study]["full"]().experiments]
        runs[folder] = [Ended(k, level[k["recipe"]] + k["seed"] % 7 / 1000) for k in knobs]
    runs[tmp_path / "batch/others"] = runs[tmp_path / "batch/others"][lacks:]
    monkeypatch.setattr(judged, "ended", runs.__getitem__)
    told = judged.with_one(tmp_path)
    assert bool(told) == (not lacks)
    if told:
        rows = "\n".join(found.with_one(told))
        assert "| NF (scaled weight standardization) | 8 | 50.3 | −9.0 |" in rows
        assert "| BatchNorm, recalibrated | 8 | 11.3 | +30.0 |" in rows


@pytest.mark.parametrize(("blocks", "seen"), [(9, 0), (10, 10), (11, 10), (12, 12)])
def test_the_primary_block_is_judged_at_its_looks_alone(monkeypatch, tmp_path, blocks, seen):
    """A run that a block lacks keeps that block out."""
    (tmp_path / "primary").mkdir()
    (tmp_path / "primary/runs.csv").touch()
    shutil.copytree(LATE, tmp_path / "tuning/late")
    last = FULL.seeds[blocks - 1]
    knobs = [one.to_flat() for one in ANSWER["answer-primary"]["full"]().experiments]
    draws = np.random.default_rng(0).normal(0, 0.01, len(knobs))
    runs = [Ended(k, 0.4 + y) for k, y in zip(knobs, draws, strict=True) if k["seed"] <= last]
    more = [Ended(k, 0.4) for k in knobs if k["seed"] == last + 1][1:]
    monkeypatch.setattr(judged, "ended", lambda tables: runs + more)
    claims = list(found.claims(tmp_path))
    assert {claim.n for claim in claims} == ({seen} if seen else set())
    names = [claim.name for claim in claims]
    assert names == (["H1"] * 3 + ["H2"] * 3 + ["H3"] * 4 + ["H6"] if seen else [])
    assert all(claim.against == "nf" for claim in claims[:6])


def test_tables_of_the_primary_block_are_means_shares_and_paired_differences():
    skews = ("even", "α 3", "α 1")
    of_all = {**LEVELS, "nf": 0.5, "ws-groupnorm": 0.3}
    runs = {skew: table(of_all, seed=place) for place, skew in enumerate(skews)}
    head, _, *rows = (line.strip("| ").split(" | ") for line in found.accuracies(runs))
    assert head == ["contender", *skews, "left at α 3", "left at α 1"]
    assert [rows[0][0], rows[1][0]] == [NAMES["nf"], NAMES["bn-average"]]
    assert len(rows) == len(of_all)
    zc = {skew: np.array(list(runs[skew]["zc-swish"].values())) for skew in skews}
    (row,) = [row for row in rows if row[0] == NAMES["zc-swish"]]
    assert row[1:4] == [f"{100 * zc[skew].mean():.1f}" for skew in skews]
    left = 100 * (zc["α 1"].mean() - 0.1) / (zc["even"].mean() - 0.1)
    share, low, high = map(int, re.findall(r"\d+", row[5]))
    assert share == round(left)
    assert low <= share <= high
    head, _, *rows = (line.strip("| ").split(" | ") for line in found.beside_batchnorm(runs))
    assert head == ["less BatchNorm", *(cell for skew in skews for cell in (skew, "verdict"))]
    assert rows[0][0] == NAMES["nf"]
    assert NAMES["bn-average"] not in [row[0] for row in rows]
    (row,) = [row for row in rows if row[0] == NAMES["zc-swish"]]
    d = zc["even"] - np.array(list(runs["even"]["bn-average"].values()))
    low, high = ttest_1samp(d, 0).confidence_interval(0.975)
    assert row[1] == f"{100 * d.mean():+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    assert row[2] == "BETTER"
