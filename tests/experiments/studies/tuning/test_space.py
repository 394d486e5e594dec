"""What is tried: lists, ranges, draws, and what lies beyond the edge of a grid."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.studies.tuning.space import axis, beyond, combined, drawn
from fl.config.parsing import ConfigError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("client.lr=.01,.02,.04", (0.01, 0.02, 0.04)),
        ("client.lr=0.005:0.64:log8", (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)),
        ("strategy.mu=0:1:lin5", (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("client.clip=norm:1, norm:5,none", ("norm:1", "norm:5", "none")),
        ('fleet.memory=["1:0.5,4:0.5", "none"]', ("1:0.5,4:0.5", "none")),
        ("client.nesterov=true,false", (True, False)),
        ("client.epochs=1,2,2", (1, 2)),
    ],
)
def test_an_axis_reads_as_a_person_writes_it(text, values):
    assert axis(text).values == values


def test_of_a_knob_with_whole_numbers_a_range_has_whole_numbers():
    values = axis("client.epochs=1:16:log5", whole=True).values
    assert values == (1, 2, 4, 8, 16)
    assert all(type(value) is int for value in values)


@settings(max_examples=30)
@given(st.floats(1e-4, 1), st.floats(1.5, 1e4), st.integers(2, 30))
def test_the_points_of_a_log_range_have_one_ratio(low, ratio, points):
    values = axis(f"client.lr={low!r}:{low * ratio!r}:log{points}").values
    found = [math.log(b / a) for a, b in itertools.pairwise(values)]
    assert len(values) == points
    assert found == pytest.approx([math.log(ratio) / (points - 1)] * (points - 1), abs=2e-3)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("client.lr", "should look like"),
        ("client.lr=1,,2", "between the commas"),
        ("client.lr=0:1:log4", "above 0"),
        ("client.lr=2:1:lin4", "from a smaller to a larger"),
        ("client.lr=1:2:lin1", "2 to 1000 points"),
        ("client.lr=[1,", "no list of TOML"),
    ],
)
def test_what_is_no_axis_is_told_in_one_line(text, told):
    with pytest.raises(ConfigError, match=told) as refused:
        axis(text)
    assert "\n" not in str(refused.value)


def test_a_grid_has_every_combination_once_and_no_knob_twice():
    grid = combined([axis("a=1,2"), axis("b=3,4,5")])
    assert len(grid) == len({tuple(one.items()) for one in grid}) == 6
    with pytest.raises(ConfigError, match="a is there twice"):
        combined([axis("a=1"), axis("a=2")])
    with pytest.raises(ConfigError, match="no number of points"):
        combined([axis("a=1:2:log")])


@settings(max_examples=10)
@given(st.integers(1, 40))
def test_draws_lie_in_their_range_and_more_draws_begin_with_the_same(number):
    over = [axis("client.lr=0.001:1:log"), axis("mu=-1:1:lin"), axis("client.clip=norm:1,none")]
    found = drawn(over, number, [False] * 3)
    assert all(0.001 <= one["client.lr"] <= 1 and -1 <= one["mu"] <= 1 for one in found)
    assert {one["client.clip"] for one in found} <= {"norm:1", "none"}
    assert drawn(over, 41, [False] * 3)[:number] == found


def test_a_log_range_is_drawn_evenly_in_its_logarithm():
    found = drawn([axis("client.lr=0.001:1:log")], 300, [False])
    share = sum(one["client.lr"] < 0.001**0.5 for one in found) / 300
    assert share == pytest.approx(0.5, abs=0.1)


def test_a_corner_has_a_candidate_beyond_each_of_its_edges():
    grid = combined([axis("lr=.1,.2,.4"), axis("clip=norm:1,norm:5"), axis("bn=average,local")])
    corner = {"lr": 0.4, "clip": "norm:1", "bn": "local"}
    assert beyond(grid, corner) == [{**corner, "lr": 0.8}, {**corner, "clip": "norm:0.2"}]
    assert beyond(grid, {**corner, "lr": 0.2}) == [{**corner, "lr": 0.2, "clip": "norm:0.2"}]


def test_whole_numbers_are_not_halved_into_fractions():
    grid = combined([axis("epochs=1,2")])
    assert beyond(grid, {"epochs": 1}) == []
    assert beyond(grid, {"epochs": 2}) == [{"epochs": 4}]
    assert type(beyond(grid, {"epochs": 2})[0]["epochs"]) is int
