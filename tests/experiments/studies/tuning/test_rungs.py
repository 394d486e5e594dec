"""Laws of tuning, on runs whose scores are a formula: who wins, what it costs, what it minds."""

import json
import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.studies.tuning.plan import Plan
from experiments.studies.tuning.rungs import TuningFailed, score, tune
from experiments.studies.tuning.space import axis, combined
from experiments.studies.tuning.table import rows
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.server.contents import EXPERIMENT, ROUNDS

BASE = Experiment.from_flat({"data.validation": 0.1, "rounds": 40})
RATES = axis("client.lr=0.005:0.64:log8")
TWO = ({"recipe": "zc-swish"}, {"recipe": "batchnorm"})
FULL = os.environ.get("FEDNF_FULL") == "1"
Formula = Callable[[Experiment, int], float | None]


def plan(**changes) -> Plan:
    usual = {
        "base": BASE,
        "contenders": TWO,
        "candidates": combined([RATES]),
        "rungs": (10, 20, 40),
    }
    return Plan(**{**usual, **changes})


class Played:
    """Plays a job by a formula, in the format of an early version, which has no seals."""

    def __init__(self, formula: Formula, order: int = 0, die_after: int | None = None) -> None:
        self.formula, self.order, self.left = formula, random.Random(order), die_after
        self.rounds = 0

    def __call__(self, jobs) -> dict[str, str]:
        jobs = list(jobs)
        self.order.shuffle(jobs)
        for job in jobs:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left = self.left and self.left - 1
            last = job.watchers[0]().last if job.watchers else job.experiment.rounds
            self.write(job.experiment, job.folder, last)
        return {}

    def write(self, experiment: Experiment, folder: Path, last: int) -> None:
        folder.mkdir(exist_ok=True)
        (folder / EXPERIMENT).write_text(json.dumps({"knobs": {"rounds": last}}))
        path = folder / ROUNDS
        done = len(path.read_text().splitlines()) if path.exists() else 0
        with path.open("a") as file:
            for number in range(done, last + 1):
                value = self.formula(experiment, number)
                line = {"round": number, "images": 3, "validation_accuracy": value}
                line |= {"test_accuracy": self.order.random(), "asked": 1}
                file.write(f"{json.dumps(line)}\n")
                self.rounds += number > 0


def best_at(rate: float) -> Formula:
    """Return a formula with one peak, which grows with rounds; it differs by seed."""

    def value(knobs: Experiment, number: int) -> float:
        return number * (1 - abs(knobs.client.lr - rate)) / 100 + knobs.seed * 1e-6

    return value


def table(asked: Plan, folder: Path, played: Played) -> list[dict]:
    return list(rows(tune(asked, folder, played)))


def test_each_contender_has_the_same_candidates_and_budget(tmp_path):
    played = Played(best_at(0.04))
    found = table(plan(seeds=2), tmp_path, played)
    of = {
        name: [
            (r["client.lr"], r["rung"], r["seed"], r["images"])
            for r in found
            if r["recipe"] == name
        ]
        for name in ("zc-swish", "batchnorm")
    }
    assert of["zc-swish"] == of["batchnorm"]
    assert played.rounds == 2 * 2 * (8 * 10 + 4 * 10 + 2 * 20)  # what was played goes on


@pytest.mark.parametrize("rate", RATES.values if FULL else RATES.values[::3])
def test_the_best_candidate_wins_and_others_end_where_they_lose(tmp_path, rate):
    races = tune(plan(), tmp_path, Played(best_at(rate)))
    assert [race.winner.knobs for race in races] == [{"client.lr": rate}] * 2
    assert [len(races[0].at(rung)) for rung in (10, 20, 40)] == [8, 4, 2]


def test_the_best_third_is_kept_where_that_is_asked(tmp_path):
    (race, _) = tune(plan(factor=3), tmp_path, Played(best_at(0.04)))
    assert [len(race.at(rung)) for rung in (10, 20, 40)] == [8, 3, 1]


@settings(max_examples=100 if FULL else 5, deadline=None)
@given(st.integers(0, 20), st.integers(0, 99))
def test_interruptions_and_the_order_of_jobs_change_nothing(after, order):
    over = combined([axis("client.lr=0.08:0.64:log4")])
    asked = plan(contenders=({},), candidates=over, rungs=(1, 2), seeds=2, extensions=1)
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        expected = table(asked, Path(one), Played(best_at(0.64)))
        with suppress(KeyboardInterrupt):
            tune(asked, Path(other), Played(best_at(0.64), order, die_after=after))
        assert table(asked, Path(other), Played(best_at(0.64), order + 1)) == expected
        again = Played(best_at(0.64))
        assert table(asked, Path(other), again) == expected
        assert again.rounds == 0  # nothing was missing


@pytest.mark.parametrize(("most", "rate", "edge"), [(0, 0.64, 1), (1, 1.28, 1), (3, 2.56, 0)])
def test_a_grid_is_extended_beyond_a_winning_edge_so_many_times(tmp_path, most, rate, edge):
    (race,) = tune(plan(contenders=({},), extensions=most), tmp_path, Played(best_at(2.6)))
    assert race.winner.knobs == {"client.lr": rate}
    assert race.extensions == len(race.added) == min(most, 3)
    assert len(race.edge) == edge


def test_an_edge_that_leads_at_a_later_rung_is_extended_then(tmp_path):
    late = lambda knobs, n: best_at(1.3 if n > 30 else 0.45)(knobs, n)  # noqa: E731
    (race,) = tune(plan(contenders=({},), extensions=2), tmp_path, Played(late))
    assert race.winner.knobs == {"client.lr": 1.28}
    assert [row.rung for row in race.table if row.added] == [40, 40]


def test_no_extension_leaves_what_a_knob_takes(tmp_path):
    over = combined([axis("client.momentum=0.5,0.9")])
    grow = lambda knobs, n: n * knobs.client.momentum  # noqa: E731
    (race,) = tune(plan(candidates=over, contenders=({},), extensions=2), tmp_path, Played(grow))
    assert (race.winner.knobs, race.extensions) == ({"client.momentum": 0.9}, 0)


def test_no_extension_is_one_that_its_strategy_refuses(tmp_path):
    nova = ({"strategy.kind": "fednova", "strategy.mu": 0.5},)  # whose ημ has to be below 1
    over, grow = combined([axis("client.lr=0.5,1")]), lambda knobs, n: n * knobs.client.lr
    (race,) = tune(plan(candidates=over, contenders=nova, extensions=2), tmp_path, Played(grow))
    assert (race.winner.knobs, race.extensions) == ({"client.lr": 1.0}, 0)


def test_a_candidate_that_diverges_loses_and_one_that_all_do_has_no_winner(tmp_path):
    broken = lambda knobs, n: None if knobs.client.lr > 0.01 else 0.001  # noqa: E731
    (race,) = tune(plan(contenders=TWO[:1]), tmp_path, Played(broken))
    assert race.winner.knobs == {"client.lr": 0.005}
    (race,) = tune(plan(contenders=TWO[1:]), tmp_path, Played(lambda knobs, n: None))
    assert race.winner is None


def test_of_a_metric_that_is_an_error_the_smallest_wins(tmp_path):
    base = BASE.replace({"task.kind": "regression"})
    assert not Plan(base, ({},), combined([RATES]), (10,)).metric.endswith("accuracy")

    class Errors(Played):
        def write(self, experiment, folder, last):
            super().write(experiment, folder, last)
            name = Plan(base, ({},), combined([RATES]), (10,)).metric
            text = (folder / ROUNDS).read_text().replace("validation_accuracy", name)
            (folder / ROUNDS).write_text(text)

    asked = Plan(base, ({},), combined([RATES]), (10, 40))
    (race,) = tune(asked, tmp_path, Errors(lambda knobs, n: abs(knobs.client.lr - 0.16)))
    assert race.winner.knobs == {"client.lr": 0.16}


def test_runs_that_fail_decide_nothing(tmp_path):
    def fails(jobs):
        Played(best_at(0.04))(jobs[1:])
        return {jobs[0].name: "ValueError: mine (my.py:3)"}

    with pytest.raises(TuningFailed, match=r"1 run failed, .*my.py:3"):
        tune(plan(), tmp_path, fails)


def lines(*values: float | None) -> list[dict]:
    return [{"round": n, "validation_accuracy": v} for n, v in enumerate(values, 1)]


def test_a_score_is_the_mean_over_the_last_tenth_of_evaluated_rounds():
    assert score(plan(), lines(*[0.0] * 36, 1, 2, 3, 4)) == pytest.approx(10 / 4)
    assert score(plan(), lines(0, 0, 1, 2, 3)) == pytest.approx(2)
    assert score(plan(), lines(0.5, 0.5, None)) is None
    every = plan(base=BASE.replace({"evaluation.every": 2}))
    assert score(every, lines(None, 1, None, 2, None, 3)) == pytest.approx(2)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rungs": (20, 10)}, "ascending"),
        ({"rungs": (10, 50)}, "rung 50 is beyond rounds=40"),
        ({"base": BASE.replace({"data.validation": 0.0})}, "set data.validation"),
        ({"base": BASE.replace({"evaluation.every": 3})}, "rung 10 is not evaluated"),
        ({"base": BASE.replace({"seed.deal": 3})}, "seed.deal: tuning has seeds of its own"),
        ({"base": BASE.replace({"run.patience": 3})}, "run.patience"),
        ({"candidates": ({"client.lrr": 0.1},)}, "did you mean client.lr"),
        ({"candidates": ({"seed": 4},)}, "seeds of its own"),
        ({"candidates": ({"rounds": 4},)}, "nothing to compare by"),
        ({"candidates": ({"partition.shards": 3},)}, "partition.shards changes nothing here"),
        ({"candidates": ({"recipe": "none"},)}, "names contenders"),
        ({"candidates": ()}, "nothing to tune"),
        ({"factor": 1}, "take 2 or 3"),
    ],
)
def test_what_can_t_be_tuned_is_told_in_one_line(changes, told):
    with pytest.raises(ConfigError, match=told) as refused:
        plan(**changes)
    assert "\n" not in str(refused.value)


def test_clients_held_out_images_score_where_the_server_keeps_none():
    asked = plan(base=Experiment.from_flat({"rounds": 40, "partition.held-out": 0.2}))
    assert asked.metric == "global_accuracy_held_out"
    told = [{"round": n, asked.metric: value} for n, value in enumerate((0.1, 0.4, None, 0.6), 1)]
    assert score(asked, told) == pytest.approx(0.5)
