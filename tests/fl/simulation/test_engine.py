"""Both engines give the same run, and which one is taken follows from the experiment alone."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl.config.parsing import ConfigError
from fl.server.app import prepare
from fl.server.journal import Journal
from fl.server.opening import check
from fl.simulation import engine as engines
from fl.simulation import run
from fl.simulation.schedule import cost
from fl.vectorized.padding import fewest_rows
from tests.callbacks import EachRound

pytestmark = pytest.mark.checked


def choose(knobs, workers=1) -> engines.Choice:
    return engines.choose(prepare(knobs), workers)


REASON = "fl.vectorized.operators.unavailable_reason"

SMALL_STEPS = {"client.lr": 0.001, "sampling.clients": 5, "vectorized.level": "eager"}
STEPS = st.lists(st.integers(1, 50), min_size=1, max_size=20)


def passes(steps, lanes):
    return cost(steps, lanes, lambda busy: 1)


@given(STEPS, st.integers(1, 20))
def test_passes_are_at_least_the_longest_and_a_fair_share(steps, lanes):
    found = passes(steps, lanes)
    assert max(steps) <= found <= sum(steps)
    assert found * lanes >= sum(steps)
    # List scheduling is never worse than that (Graham, 1966).
    assert found <= math.ceil(sum(steps) / lanes + (1 - 1 / lanes) * max(steps))


@given(STEPS)
def test_one_lane_does_all_steps_and_a_lane_each_waits_for_the_longest(steps):
    assert passes(steps, 1) == sum(steps)
    assert passes(steps, len(steps)) == max(steps)


@given(STEPS, st.integers(1, 20))
def test_passes_over_busy_lanes_alone_cost_all_steps_and_halves_less_than_all_lanes(steps, lanes):
    assert cost(steps, lanes, lambda busy: busy) == sum(steps)
    halved = cost(steps, lanes, lambda busy: fewest_rows(lanes, busy))
    assert sum(steps) <= halved <= min(2 * sum(steps), lanes * passes(steps, lanes))


@pytest.mark.parametrize(
    ("knobs", "engine", "why"),
    [
        ({}, "vectorized", "5 lanes"),
        ({"vectorized.lanes": 7, "vectorized.level": "eager"}, "vectorized", "7 lanes, eager"),
        ({"vectorized.level": "compiled"}, "vectorized", "5 lanes, compiled"),
        ({"rounds": 60}, "vectorized", "5 lanes, compiled"),
        ({"rounds": 60, "recipe": "batchnorm"}, "vectorized", "5 lanes, compiled"),
        ({"rounds": 60, "fleet.memory": "2:0.5,4:0.5"}, "vectorized", "lanes, native"),
        ({"client.batch-size": 32}, "sequential", "about 25,000 images"),
        # All clients hold equally many: two padded sizes. Of these unequal ones there are three.
        ({"client.batch-size": 32, "rounds": 39}, "vectorized", "lanes, native"),
        ({"client.batch-size": 32, "rounds": 40}, "vectorized", "lanes, compiled"),
        (
            {"client.batch-size": 32, "rounds": 59, "partition.kind": "dirichlet"},
            "vectorized",
            "native",
        ),
        (
            {"client.batch-size": 32, "rounds": 60, "partition.kind": "dirichlet"},
            "vectorized",
            "compiled",
        ),
        ({"client.batch-size": 32, "rounds": 39, "recipe": "batchnorm"}, "vectorized", "native"),
        ({"client.batch-size": 33, "rounds": 99}, "sequential", "batches of 33"),
        ({"client.batch-size": 32, "engine": "vectorized"}, "vectorized", "5 lanes"),
        ({"engine": "sequential"}, "sequential", "asked for"),
        ({"rounds": 4}, "sequential", "about 20,000 images"),
        ({"rounds": 4, "engine": "vectorized"}, "vectorized", "5 lanes"),
        ({"network.dropout": 0.1}, "sequential", "dropout"),
        ({"network.dropout": 0.1, "engine": "vectorized"}, "sequential", "dropout"),
        ({"sampling.clients": 1, "rounds": 99}, "sequential", "one client a round"),
        ({"sampling.clients": 2, "rounds": 99}, "vectorized", "2 lanes"),
        ({"vectorized.lanes": 1}, "sequential", "one client trains at a time"),
        ({"network.depth": 8, "network.width": 200}, "sequential", "weights keep a core busy"),
        ({"partition.kind": "quantity", "partition.alpha": 0.01}, "vectorized", "lanes, native"),
    ],
)
def test_the_engine_follows_from_the_experiment(tiny, monkeypatch, knobs, engine, why):
    monkeypatch.setattr(REASON, lambda: None)
    choice = choose(
        tiny(
            {
                "partition.kind": "iid",
                "partition.min-size": 1,
                "client.batch-size": 4,
                "sampling.clients": 5,
                "rounds": 5,
                **knobs,
            }
        )
    )
    assert choice.knobs.engine == engine
    assert why in choice.why
    assert choose(choice.knobs).knobs == choice.knobs


@pytest.mark.parametrize(
    ("flat", "forks", "workers"),
    [
        ({"rounds": 2}, True, 4),
        ({"rounds": 2}, False, 1),
        ({"rounds": 2, "sampling.clients": 3}, True, 3),
        ({"rounds": 1, "sampling.clients": 4}, True, 1),  # 4,000 images
        ({"rounds": 2, "engine": "vectorized", "vectorized.level": "eager"}, True, 1),
        ({"rounds": 9, "client.batch-size": 33}, False, 4),
    ],
)
def test_short_runs_have_forks_where_no_result_depends_on_them(
    tiny, monkeypatch, flat, forks, workers
):
    monkeypatch.setattr(engines, "cores", lambda: 4)
    monkeypatch.setattr(engines, "can_fork", lambda: forks)
    usual = {"partition.kind": "iid", "sampling.clients": 5, "client.batch-size": 4}
    assert choose(tiny({**usual, **flat}), None).workers == workers


def test_nobody_s_child_and_no_thread_begins_forks_unasked(tiny, monkeypatch):
    """A pool's daemon may have no children, a thread no signals, and one of many runs no cores."""
    monkeypatch.setattr(engines, "cores", lambda: 4)
    monkeypatch.setattr(engines, "can_fork", lambda: True)
    knobs = tiny({"rounds": 2, "partition.kind": "iid", "sampling.clients": 5})
    assert choose(knobs, None).workers == 4
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(choose, knobs, None).result().workers == 1
    monkeypatch.setattr(engines.multiprocessing, "parent_process", lambda: "somebody")
    assert choose(knobs, None).workers == 1


@pytest.mark.parametrize(("missing", "level"), [(None, "native"), ("no C++", "traced")])
def test_without_a_compiler_convolutions_are_pytorch_s(tiny, monkeypatch, missing, level):
    monkeypatch.setattr(REASON, lambda: missing)
    assert choose(tiny({"engine": "vectorized"})).knobs.vectorized.level == level


def test_a_level_that_cannot_be_had_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(REASON, lambda: "no C++ compiler was found")
    with pytest.raises(ConfigError, match=r"vectorized\.level=native: no C"):
        choose(tiny({"engine": "vectorized", "vectorized.level": "native"}))


@pytest.mark.parametrize(
    "knobs",
    [
        pytest.param(
            {
                "client.batch-size": 8,
                "strategy.kind": "fedprox",
                "strategy.mu": 0.5,
                "vectorized.level": "auto",
            },
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"client.clip": "agc:0.1", "client.momentum": 0.9, "vectorized.level": "traced"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"client.optimizer": "adam", "client.epochs": 2, "data.augment": "crop-flip"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"partition.kind": "feature-noise", "partition.held-out": 0.2, "signals.every": 1},
            marks=pytest.mark.slow,
        ),
        pytest.param({"fleet.memory": "16:0.5,32:0.5"}, marks=pytest.mark.slow),
        pytest.param({"recipe": "batchnorm"}, marks=pytest.mark.slow),
        {"recipe": "batchnorm", "state.bn": "local"},
        pytest.param({"recipe": "batchnorm", "state.bn": "recalibrate"}, marks=pytest.mark.slow),
        pytest.param({"recipe": "batchnorm", "state.bn": "drop"}, marks=pytest.mark.slow),
        pytest.param({"recipe": "batchnorm", "state.fixed-from": 2}, marks=pytest.mark.slow),
    ],
    ids=lambda knobs: " ".join(str(value) for value in knobs.values()),
)
def test_both_engines_give_the_same_run(tiny, tmp_path, knobs):
    runs = {}
    for engine in ("sequential", "vectorized"):
        chosen = tiny({**SMALL_STEPS, **knobs, "engine": engine})
        runs[engine] = journal = Journal(tmp_path / engine)
        run(chosen, journal)
    alone, together = runs.values()
    for mine, theirs in zip(alone.clients(), together.clients(), strict=True):
        for figure in ("partition", "steps", "examples", "held", "batch_size", "held_out"):
            assert mine[figure] == theirs[figure]
        for figure in ("loss", "update_norm", "gradient_norm"):
            assert theirs[figure] == pytest.approx(mine[figure], rel=1e-3)
    models = [journal.checkpoint().model for journal in (alone, together)]
    assert models[0].keys() == models[1].keys()
    for name, mine in models[0].items():
        np.testing.assert_allclose(models[1][name], mine, rtol=1e-3, atol=1e-5, err_msg=name)
    assert any((models[0][name] != models[1][name]).any() for name in models[0])


@pytest.mark.slow
def test_a_cohort_goes_on_where_it_was_interrupted(tiny, tmp_path):
    knobs = tiny(
        {
            "recipe": "batchnorm",
            "state.bn": "local",
            "engine": "vectorized",
            "vectorized.level": "eager",
        }
    )
    whole = run(knobs, Journal(tmp_path / "whole"))

    def stop(line: dict) -> None:
        if line["round"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(knobs, Journal(tmp_path / "cut"), callbacks=[EachRound(stop)])
    resumed = run(knobs, Journal(tmp_path / "cut"), resume=True)
    assert resumed["model_sha256"] == whole["model_sha256"]


def test_a_run_goes_on_with_the_engine_that_it_began_with(tiny, tmp_path, monkeypatch):
    knobs = tiny({"engine": "vectorized", "rounds": 1})
    monkeypatch.setattr(REASON, lambda: "no C++ compiler was found")
    journal = Journal(tmp_path / "run")
    finished = run(knobs, journal)
    taken = {
        "engine": "vectorized",
        "vectorized.lanes": 2,
        "vectorized.level": "traced",
        "workers": 1,
    }
    assert journal.header()["engine"] == {**taken, "why": "2 lanes, traced"}
    assert check(journal, knobs, resume=True).engine == taken
    monkeypatch.setattr(REASON, lambda: pytest.fail("no compiler is asked for"))
    assert run(knobs, journal, resume=True) == finished
    (journal.folder / "result.json").unlink()
    assert run(knobs, journal, resume=True)["model_sha256"] == finished["model_sha256"]
