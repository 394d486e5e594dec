"""Each verdict where it belongs, and no more false ones than promised, by simulation."""

import os

import numpy as np
import pytest

from experiments.statistics.paired import t_interval
from experiments.statistics.racing import race
from experiments.statistics.verdicts import Verdict, judge
from fl.reproducibility.seeds import stream

FULL = "FEDNF_FULL" in os.environ
NOISE = np.array([0.1, -0.1, 0.2, -0.2, 0.15, -0.15, 0.05, -0.05])


@pytest.mark.parametrize(
    ("d", "verdict"),
    [
        (2.0 + NOISE, Verdict.BETTER),
        (1.0 + NOISE, Verdict.BETTER_SMALL),
        (-1.0 + NOISE, Verdict.WORSE),
        (0.0 + NOISE, Verdict.EQUIVALENT),
        (20 * NOISE, Verdict.UNDECIDED),
        ((2.0 + NOISE)[:5], Verdict.UNDECIDED),  # p = 2/2⁵, whatever the numbers
        ((2.0 + NOISE)[:4], None),
    ],
)
def test_each_verdict(d, verdict):
    found = judge({"a": d}, 1.5)["a"]
    assert found.verdict == verdict
    assert found.n == len(d)
    assert found.mean == pytest.approx(np.mean(d))
    assert (found.more is not None) == (verdict is Verdict.UNDECIDED)


def test_a_family_asks_for_more_than_a_single_contrast():
    d = (2.0 + NOISE)[:6]  # p = 2/64
    assert judge({"a": d}, 1.5)["a"].verdict == Verdict.BETTER
    both = judge({"a": d, "b": d, "few": d[:3]}, 1.5)
    assert [one.verdict for one in both.values()] == [Verdict.UNDECIDED] * 2 + [None]
    assert str(both["few"]) == ""
    assert str(both["a"]) == "UNDECIDED (1 more)"  # 2/2⁷ < 0.05/3


def test_without_a_margin_nothing_is_small_or_equivalent():
    assert judge({"a": 1.0 + NOISE}, None)["a"].verdict == Verdict.BETTER
    found = judge({"a": NOISE}, None)["a"]
    assert (found.verdict, found.more) == (Verdict.UNDECIDED, None)


def test_more_blocks_than_are_needed_ask_for_no_further():
    d = 1.5 + 2 * stream(1, "near").standard_normal(40)
    d += 1.0 - d.mean()  # between nothing and the margin, and not significant in this family
    found = judge({"a": d}, 1.5, family=1000)["a"]
    assert found.verdict == Verdict.UNDECIDED


@pytest.mark.slow
def test_false_verdicts_are_as_rare_as_promised():
    """Under no difference, four contrasts with a common reference, eight blocks."""
    draws, wrong, covered = 10_000 if FULL else 1_000, 0, 0
    rng = stream(1, "null")
    for _ in range(draws):
        runs = rng.normal(0, 2.5, (5, 8))
        found = judge({name: runs[name] - runs[4] for name in range(4)}, 1.5)
        verdicts = {one.verdict for one in found.values()}
        wrong += bool(verdicts & {Verdict.BETTER, Verdict.BETTER_SMALL, Verdict.WORSE})
        low, high = t_interval(runs[0] - runs[4])
        covered += low <= 0 <= high
    assert wrong / draws <= 0.055
    assert covered / draws == pytest.approx(0.95, abs=0.01 if FULL else 0.03)


@pytest.mark.slow
def test_false_equivalence_is_as_rare_as_promised():
    draws, wrong = 10_000 if FULL else 1_000, 0
    rng = stream(1, "margin")
    for _ in range(draws):
        found = judge({"a": rng.normal(1.5, 1.0, 8)}, 1.5)["a"]
        wrong += found.verdict is Verdict.EQUIVALENT
    assert wrong / draws <= 0.055


LOOKS, BLOCKS = (6, 8, 10, 12, 16, 20), range(20)


def by_block(differences):
    """Return differences by number of their block."""
    return {name: dict(enumerate(map(float, d))) for name, d in differences.items()}


def test_a_race_ends_for_whoever_is_decided_and_logs_each_look():
    rng = stream(1, "race")
    table = {
        "good": 3 + rng.normal(0, 0.2, 10),
        "same": rng.normal(0, 0.2, 10),
        "unclear": rng.normal(1, 2.5, 20),
    }
    early = by_block({name: d[:7] for name, d in table.items()})
    at_first = race(early, BLOCKS, 1.5, LOOKS)
    assert at_first.needs == {"good": 8, "same": 6, "unclear": 8}, (
        "equality shows before a difference can"
    )
    found = race(by_block(table), BLOCKS, 1.5, LOOKS)
    assert [look.n for look in found.looks] == list(LOOKS)
    assert set(found.looks[0].judged) == {"good", "same", "unclear"}
    assert set(found.looks[-1].judged) == {"unclear"}
    assert found.needs == {"good": 10, "same": 6, "unclear": 20}
    assert (found.over, at_first.over) == (True, False)
    assert found.looks[2].judged["good"].verdict == Verdict.BETTER


def test_a_look_is_about_the_first_blocks_and_no_other():
    """What comes after a decision changes nothing of it, and a hole puts a look off."""
    d = by_block({"a": 3 + 0.2 * stream(2, "race").standard_normal(10)})
    found = race({"a": dict(list(d["a"].items())[:8])}, BLOCKS, 1.5, (8, 10))
    later = {**d["a"], 8: -90.0, 9: -90.0}
    assert race({"a": later}, BLOCKS, 1.5, (8, 10)) == found
    assert (found.judged["a"].verdict, found.over) == (Verdict.BETTER, True)
    del later[3]
    holed = race({"a": later, **by_block({"b": [0.1] * 10})}, BLOCKS, 1.5, (8, 10))
    assert (holed.needs, holed.looks, holed.over) == ({"a": 8, "b": 8}, (), False)
    assert race(d, BLOCKS, 1.5, (8, 10), family=2).judged["a"].alpha == 0.05 / 2 / 2
    assert race({}, BLOCKS, 1.5, LOOKS).over


@pytest.mark.slow
def test_six_looks_together_keep_the_error():
    draws, wrong = 3_000 if FULL else 200, 0
    rng = stream(1, "looks")
    for _ in range(draws):
        runs = rng.normal(0, 2.5, (3, 20))
        found = race(by_block({n: runs[n] - runs[2] for n in range(2)}), BLOCKS, None, LOOKS)
        judged = [one for look in found.looks for one in look.judged.values()]
        wrong += any(one.verdict is not Verdict.UNDECIDED for one in judged)
    assert wrong / draws <= 0.055
