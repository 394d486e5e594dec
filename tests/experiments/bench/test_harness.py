"""Turns and figures, with contenders whose times are known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.bench.harness import Spread, in_turns, summaries
from experiments.bench.repetition import Failed, Repetition

seconds = st.lists(st.floats(0.001, 1000), min_size=1, max_size=6)


def took(seconds: float, startup: float = 1.0, peak: int | None = None) -> Repetition:
    """Return a repetition of two rounds of 50 images."""
    losses, accuracies = (2.0, 1.5, 1.0), (0.1, 0.2, 0.3)
    return Repetition(startup, seconds, 2, 100, losses, startup + seconds, accuracies, peak)


def turns(*times: float) -> list[Repetition]:
    """Return a first turn that must not count, and those that took some seconds each."""
    return [took(1e-6, startup=99, peak=7), *map(took, times)]


def test_contenders_take_turns_and_the_first_turn_looks_at_memory() -> None:
    called, watched = [], []

    def repeat(name: str, memory: bool) -> Repetition:
        called.append((name, memory))
        return took(len(called))

    done, failed = in_turns(["a", "b", "c"], 2, repeat, lambda: watched.append(len(called)))
    order = [(name, turn == 0) for turn in range(3) for name in "abc"]
    assert (called, failed, watched) == (order, {}, list(range(1, 10)))
    assert [r.seconds for r in done["b"]] == [2, 5, 8]


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_who_fails_is_left_out_and_costs_nobody_else_anything(turn: int) -> None:
    called, watched = [], []

    def repeat(name: str, memory: bool) -> Repetition:
        called.append(name)
        if name == "b" and called.count("b") == turn + 1:
            raise Failed("no luck")
        return took(1.0)

    done, failed = in_turns(["a", "b"], 2, repeat, lambda: watched.append(1))
    assert failed == {"b": "no luck"}
    assert {name: len(found) for name, found in done.items()} == {"a": 3}
    assert (called.count("b"), len(watched)) == (turn + 1, 6)


def test_figures_by_pencil() -> None:
    found = summaries({"slow": turns(1, 2, 40), "fast": turns(0.5, 2, 10)}, "slow")
    fast, slow = found["fast"], found["slow"]
    assert fast.images_per_second == Spread(50, 10, 200)
    assert fast.seconds_per_round == Spread(1, 0.25, 5)
    # Turn by turn 2, 1 and 4 times as fast; that of medians would be 1.
    assert fast.ratio == Spread(2, 1, 4)
    assert slow.ratio == Spread(1, 1, 1)
    assert fast.startup == Spread(1, 1, 1)
    assert fast.whole == Spread(3, 1.5, 11)
    assert fast.whole_ratio == Spread(4 / 3, 1, 41 / 11)
    assert fast.accuracy == 0.3
    assert (fast.peak_bytes, fast.losses) == (7, (2.0, 1.5, 1.0))


def test_no_ratio_to_who_failed() -> None:
    assert summaries({"a": turns(1)}, "b")["a"].ratio is None


@given(mine=seconds, theirs=seconds)
def test_laws_of_ratios(mine: list[float], theirs: list[float]) -> None:
    n = min(len(mine), len(theirs))
    done = {"a": turns(*mine[:n]), "b": turns(*theirs[:n])}
    to_b, to_a = summaries(done, "b")["a"].ratio, summaries(done, "a")["b"].ratio
    assert to_b is not None
    assert to_a is not None
    assert to_b.least <= to_b.median <= to_b.most
    assert to_b.most == pytest.approx(1 / to_a.least)
    assert summaries(done, "a")["a"].ratio == Spread(1, 1, 1)
