"""FixBN's second stage, `state.fixed-from`: clients train by statistics that no longer move."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fl.data import load, share
from fl.reproducibility.seeds import torch_stream
from fl.server.journal import Journal
from fl.simulation import run
from fl.training import parameters
from tests.callbacks import EachRound

GLOBAL = ("average", "pooled", "recalibrate")
"""The policies under which the server has statistics."""


@pytest.fixture
def fixbn(tiny):
    """Make BatchNorm experiments whose statistics are fixed from a round on."""

    def make(fixed_from, policy="average", **flat):
        flat = {"partition.alpha": 0.1, "state.bn": policy, **flat}
        return tiny({"recipe": "batchnorm", "state.fixed-from": fixed_from, **flat})

    return make


def model_after(knobs, folder, rounds) -> dict[str, np.ndarray]:
    journal = Journal(folder / f"{knobs.identity[:8]} {rounds}")
    run(knobs.replace({"rounds": rounds}), journal)
    return journal.checkpoint().model


def equal(first, second, names) -> list[bool]:
    return [np.array_equal(first[name], second[name]) for name in names]


def statistics(model) -> list[str]:
    return [name for name in model if name.endswith(("running_mean", "running_var"))]


@pytest.mark.parametrize("policy", GLOBAL)
def test_statistics_stay_from_that_round_on_and_everything_else_learns(fixbn, tmp_path, policy):
    knobs = fixbn(2, policy)
    first, second, third = (model_after(knobs, tmp_path, rounds) for rounds in (1, 2, 3))
    names = statistics(first)
    assert len(names) == 4
    assert all(equal(first, second, names) + equal(first, third, names))
    assert not any(equal(first, second, first.keys() - set(names)))


@pytest.mark.slow
@pytest.mark.parametrize("policy", [*GLOBAL, "local"])
def test_before_that_round_it_is_as_without(fixbn, tmp_path, policy):
    without, fixed = (
        [model_after(fixbn(start, policy), tmp_path, rounds) for rounds in (1, 2)]
        for start in (0, 2)
    )
    assert all(equal(without[0], fixed[0], without[0]))
    assert not any(equal(without[1], fixed[1], without[1]))


def test_a_client_s_step_is_that_of_the_network_as_it_is_evaluated(fixbn, tmp_path):
    """One step on all images of one client: w - lr·∇, with the statistics of round 1."""
    knobs = fixbn(2, **{"sampling.clients": 1, "client.batch-size": 5000, "client.clip": "none"})
    before, after = (model_after(knobs, tmp_path, rounds) for rounds in (1, 2))
    journal = Journal(tmp_path / f"{knobs.identity[:8]} 2")
    (client,) = [line["partition"] for line in journal.clients() if line["round"] == 2]
    data = load(knobs.data.name)
    mine = data.train.only(share({"partition-id": client}, knobs).train)
    network = parameters.build_network(knobs, torch_stream(1, "init"))
    network.load({name: torch.from_numpy(array) for name, array in before.items()})
    loss = F.cross_entropy(network.module.eval()(data.inputs(mine.images)), mine.labels)
    loss.backward()
    network.weights -= knobs.client.lr * network.gradient
    for name, expected in network.state().items():
        torch.testing.assert_close(torch.from_numpy(after[name]), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_local_statistics_stay_what_each_client_had(fixbn, tmp_path):
    knobs, kept = fixbn(2, "local", **{"sampling.clients": 5}), []
    for rounds in (1, 3):
        journal = Journal(tmp_path / str(rounds))
        run(knobs.replace({"rounds": rounds}), journal)
        written = journal.checkpoint().clients
        assert written == dict.fromkeys(range(5), rounds)
        kept.append([journal.client_state(p, rounds)[0] for p in range(5)])
    for own, later in zip(*kept, strict=True):
        assert len(own) == 4
        assert all(equal(own, later, own))


def test_a_client_first_asked_then_measures_statistics_and_keeps_them(fixbn, tmp_path):
    knobs, journal = fixbn(1, "local", **{"rounds": 1, "sampling.clients": 5}), Journal(tmp_path)
    run(knobs, journal)
    for partition in range(5):
        own = journal.client_state(partition, 1)[0]
        assert len(own) == 4
        assert not any(
            np.array_equal(array, np.full_like(array, array[0])) for array in own.values()
        )


def test_a_resumed_run_keeps_them_fixed(fixbn, tmp_path):
    knobs = fixbn(2).replace({"rounds": 4})

    def stop(line):
        if line["round"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(knobs, Journal(tmp_path / "parts"), callbacks=[EachRound(stop)])
    resumed = run(knobs, Journal(tmp_path / "parts"), resume=True)
    assert resumed["model_sha256"] == run(knobs, Journal(tmp_path / "whole"))["model_sha256"]


def test_a_step_with_one_value_a_channel_is_then_a_step_like_any_other(fixbn, tmp_path):
    knobs = fixbn(2, **{"network.kind": "ffnn", "client.batch-size": 1, "partition.clients": 200})
    journal = Journal(tmp_path)
    run(knobs, journal)
    first, second = journal.rounds()[1:]
    assert first["single_value_steps"] == first["images"] > 0
    assert second["single_value_steps"] == 0


def test_no_second_exchange_measures_what_is_fixed(fixbn, tmp_path):
    journal = Journal(tmp_path)
    run(fixbn(2, "recalibrate"), journal)
    first, second = journal.rounds()[1:]
    assert first["bytes_down"] == 2 * second["bytes_down"]
