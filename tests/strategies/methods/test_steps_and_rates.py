"""Rounds whose clients go by steps, by a schedule, and by what their optimizer remembers."""

import numpy as np
import pytest
import torch

from fl.client.task import network_of
from fl.config.parsing import ConfigError
from fl.data import load
from fl.fleet import rate
from fl.server.journal import Journal
from fl.server.watching.callback import CallbackFailed
from fl.simulation import run
from tests.callbacks import EachRound
from tests.conftest import ENGINES

SLOW = pytest.mark.slow
EVERYTHING = {
    "partition.kind": "iid",
    "partition.clients": 200,
    "sampling.clients": 2,
    "engine": "sequential",
    "rounds": 2,
    "client.batch-size": 2,
    "client.accumulate": 3,
    "client.steps": 7,
    "client.lr-schedule": "exp:0.9",
    "client.warmup": 1,
    "client.momentum": 0.9,
    "client.nesterov": True,
    "client.carry-momentum": True,
}


def stop(line) -> None:
    if line["round"] == 1:
        raise ValueError


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=SLOW)])
def test_a_run_goes_by_its_steps_and_rates_and_is_resumed_in_mid_schedule(tiny, tmp_path, workers):
    knobs, whole = tiny(EVERYTHING), Journal(tmp_path / "whole")
    result = run(knobs, whole)
    rates = [line["lr"] for line in whole.rounds()]
    assert rates == [None, *(rate(knobs, number) for number in (1, 2))]
    assert len(set(rates)) == 3
    assert list((tmp_path / "whole" / "clients").iterdir())  # their velocities
    accounts = whole.clients()
    assert {(a["steps"], a["examples"], a["batch_size"], a["epochs"]) for a in accounts} == {
        (7, 25 + 2 * 6, 2, 2)  # 25 images a client are five steps, and two more
    }
    assert result["refused"] == 0
    with pytest.raises(CallbackFailed):
        run(knobs, Journal(tmp_path / "part"), workers=workers, callbacks=[EachRound(stop)])
    part = run(knobs, Journal(tmp_path / "part"), workers=workers, resume=True)
    assert part["model_sha256"] == result["model_sha256"]


@SLOW
@pytest.mark.parametrize("changed", ["lr-schedule", "warmup", "nesterov", "carry-momentum"])
def test_each_of_them_matters(tiny, tmp_path, changed):
    flat = {**EVERYTHING, "sampling.clients": 2, "partition.clients": 2, "client.steps": 2}
    plain = {"lr-schedule": "constant", "warmup": 0, "nesterov": False, "carry-momentum": False}
    found = run(tiny(flat), Journal(tmp_path / "all"))["model_sha256"]
    less = tiny({**flat, f"client.{changed}": plain[changed]})
    assert run(less, Journal(tmp_path / "less"))["model_sha256"] != found


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["scaffold", "feddyn"])
def test_what_a_server_remembers_is_of_the_steps_and_the_rate_of_the_round(
    tiny, tmp_path, kind, engine
):
    """After one round from 0, c and h are a multiple of the mean's move, up to float32."""
    flat = {"strategy.kind": kind, "client.steps": 3, "client.warmup": 1, "rounds": 1}
    few = {"partition.kind": "iid", "partition.clients": 200, "client.batch-size": 4}
    knobs, journal = tiny({**few, **ENGINES[engine], **flat}), Journal(tmp_path)
    run(knobs, journal)
    network, before = network_of(knobs, load(knobs).form)
    (remembered,) = journal.checkpoint().strategy.values()
    names = [part.name for part in network.segments]
    after = journal.checkpoint().model
    moved = np.concatenate([(after[n] - before[n].numpy()).ravel() for n in names])
    part, rate_of_1 = 2 / 200, knobs.client.lr / 2
    factors = {"scaffold": part / (3 * rate_of_1), "feddyn": 0.1 * part / (1 + part)}
    expected = -factors[kind] * moved
    assert np.abs(expected).max() > 1e-5
    np.testing.assert_allclose(remembered, expected, atol=1e-4 * np.abs(expected).max())


@SLOW
def test_lanes_end_near_clients_trained_alone(tiny, tmp_path):
    models = []
    for engine in ("sequential", "vectorized"):
        flat = {**EVERYTHING, "engine": engine, "rounds": 2, "partition.clients": 3}
        journal = Journal(tmp_path / engine)
        run(tiny({**flat, "vectorized.level": "eager", "vectorized.lanes": 2}), journal)
        models.append(journal.checkpoint().model)
    for name, array in models[0].items():
        torch.testing.assert_close(
            torch.tensor(models[1][name]), torch.tensor(array), rtol=1e-3, atol=1e-4
        )


def test_a_rate_that_is_planned_ahead_is_not_for_another_number_of_rounds(tiny, tmp_path):
    flat = {**EVERYTHING, "client.steps": 1, "rounds": 1, "client.lr-schedule": "cosine"}
    run(tiny(flat), Journal(tmp_path))
    with pytest.raises(ConfigError, match="rounds"):
        run(tiny({**flat, "rounds": 2}), Journal(tmp_path), resume=True)
