"""The knobs of a client's step: the rate of each round, and what is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl.config import Experiment, relevant
from fl.config.parsing import ConfigError
from fl.fleet import in_round, rate, work

ROUNDS = 7


@pytest.mark.parametrize(
    ("schedule", "factor"),
    [
        ("constant", lambda t: 1.0),
        ("exp:0.998", lambda t: 0.998 ** (t - 1)),
        ("cosine", lambda t: (1 + math.cos(math.pi * (t - 1) / ROUNDS)) / 2),
        ("steps:3=0.1,5=0.5", lambda t: 1.0 if t < 3 else 0.1 if t < 5 else 0.1 * 0.5),
    ],
)
@given(st.integers(1, ROUNDS), st.integers(0, 3), st.floats(1e-3, 1))
def test_the_rate_of_a_round_is_the_formula(schedule, factor, number, warmup, lr):
    flat = {"client.lr": lr, "client.lr-schedule": schedule, "client.warmup": warmup}
    knobs = Experiment.from_flat({**flat, "rounds": ROUNDS})
    expected = lr * factor(number) * min(1, number / (warmup + 1))
    assert rate(knobs, number) == pytest.approx(expected, rel=1e-15)
    assert in_round(knobs, number, work(knobs, 0, number, 30)).lr == rate(knobs, number)


def test_without_a_schedule_a_round_trains_by_the_knobs_as_they_are():
    knobs = Experiment()
    assert in_round(knobs, 3, work(knobs, 0, 3, 30)) is knobs.client
    parted = knobs.replace({"client.accumulate": 2, "fleet.memory": "1:1.0"})
    found = in_round(parted, 3, work(parted, 0, 3, 30))
    assert found == parted.client.model_copy(update={"batch_size": 1})


REFUSED = {
    "exp:0": "exp:γ",
    "exp:1.5": "exp:γ",
    "exp": "exp:γ",
    "cosine:3": "cosine",
    "steps:": "steps:N=F",
    "steps:5=0.1,3=0.1": "ascending",
    "steps:3=-1": "positive",
    "steps:3=nan": "positive",
    "linear": "constant",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_schedule_that_is_spelt_otherwise_is_refused_in_one_line(text):
    with pytest.raises(ConfigError, match=REFUSED[text]) as refused:
        Experiment.from_flat({"client.lr-schedule": text})
    assert f"client.lr-schedule={text}" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("flat", "says"),
    [
        ({"client.nesterov": True}, "client.nesterov=true needs client.momentum"),
        (
            {"client.carry-momentum": True, "client.optimizer": "adamw", "client.momentum": 0.5},
            "client.carry-momentum=true needs client.optimizer=sgd",
        ),
        (
            {"client.accumulate": 2, "privacy.per-example-clip": 1.0},
            "client.accumulate=2: with privacy.per-example-clip",
        ),
    ],
)
def test_what_does_not_fit_is_refused(flat, says):
    with pytest.raises(ConfigError, match=says):
        Experiment.from_flat(flat)


def test_knobs_that_others_switch_off_do_not_bear_on_a_result():
    steps = relevant(Experiment.from_flat({"client.steps": 3}).to_flat())
    assert "client.steps" in steps
    assert "client.epochs" not in steps
    adam = relevant(Experiment.from_flat({"client.optimizer": "adamw"}).to_flat())
    assert not {"client.momentum", "client.nesterov", "client.carry-momentum"} & adam.keys()
