"""HBN and FBN in whole rounds: what is shared, what stays, and what they are equal to."""

import numpy as np
import pytest

from fl.client.task import network_of
from fl.data import load
from fl.messages import client_state, records
from fl.nn import moments
from fl.server.journal import Journal
from fl.simulation import run
from tests.callbacks import EachRound

OURS = ("hbn", "fbn")
PAPER = {"recipe": "hbn", "state.bn": "recalibrate", "state.local": "*.mixture"}
"""HBN as its paper has it: a pass for the statistics, and mixtures that stay with clients."""

EAGER = {"vectorized.lanes": 2, "vectorized.level": "eager"}


@pytest.fixture
def skewed(tiny):
    """Make experiments of five clients with few steps and few classes each; flat keys change it."""

    def make(flat):
        few = {"sampling.clients": 3, "client.steps": 4, "client.batch-size": 8}
        return tiny({"partition.alpha": 0.1, **few, **flat})

    return make


def model_after(knobs, folder, **options) -> dict[str, np.ndarray]:
    journal = Journal(folder / f"{knobs.identity[:8]} {len(list(folder.iterdir()))}")
    run(knobs, journal, **options)
    return journal.checkpoint().model


def equal(one, other, names) -> list[bool]:
    return [np.array_equal(one[name], other[name]) for name in names]


def test_a_round_of_fbn_trains_as_fixbn_and_moves_the_statistics(skewed, tmp_path):
    shared = model_after(skewed({"recipe": "fbn", "rounds": 1}), tmp_path)
    fixed = model_after(
        skewed({"recipe": "batchnorm", "rounds": 1, "state.fixed-from": 1}), tmp_path
    )
    assert shared.keys() == fixed.keys()
    for name in shared.keys() - {n for n in shared if "running" in n}:
        np.testing.assert_allclose(shared[name], fixed[name], rtol=1e-4, atol=1e-6)
    moved = [name for name in shared if "running" in name]
    assert len(moved) == 4
    assert not any(equal(shared, fixed, moved))


def test_a_mixture_that_stays_with_clients_never_reaches_the_server(skewed, tmp_path):
    journal = Journal(tmp_path / "run")
    run(skewed(PAPER), journal)
    checkpoint = journal.checkpoint()
    mixtures = [name for name in checkpoint.model if name.endswith("mixture")]
    assert len(mixtures) == 2
    assert not any(checkpoint.model[name].any() for name in mixtures)
    kept = []
    for partition, written in checkpoint.clients.items():
        state = client_state.unpack_state(*journal.client_state(partition, written))
        kept.append(records.unpack_arrays(state["own"]))
    assert all(own.keys() == set(mixtures) for own in kept)
    assert all(own[name].all() for own in kept for name in mixtures)
    shared = model_after(skewed({"recipe": "hbn"}), tmp_path)
    assert all(shared[name].all() for name in mixtures), "they are averaged unless they stay"


@pytest.mark.parametrize("recipe", OURS)
def test_measured_statistics_are_what_the_next_round_trains_by(skewed, tmp_path, recipe):
    knobs = skewed({"recipe": recipe, "state.bn": "recalibrate", "rounds": 1})
    model = model_after(knobs, tmp_path)
    network = network_of(knobs, load(knobs).form)[0]
    network.load(model)
    for variance, mean in moments(network.module).items():
        layer = network.module.get_submodule(mean.removesuffix(".running_mean"))
        np.testing.assert_array_equal(layer.held_mean.numpy(), model[mean])
        np.testing.assert_array_equal(layer.held_var.numpy(), model[variance])
        assert model[variance].min() > 0
        assert not np.allclose(model[variance], 1)


@pytest.mark.parametrize("flat", [PAPER, {"recipe": "fbn", "state.bn": "pooled"}], ids=OURS)
def test_lanes_end_as_one_after_the_other(skewed, tmp_path, flat):
    alone, lanes = (
        model_after(skewed({**flat, **EAGER, "engine": engine, "rounds": 1}), tmp_path)
        for engine in ("sequential", "vectorized")
    )
    assert alone.keys() == lanes.keys()
    for name in alone:
        np.testing.assert_allclose(alone[name], lanes[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("flat", [PAPER, {"recipe": "fbn"}], ids=OURS)
def test_a_resumed_run_ends_as_the_whole_one(skewed, tmp_path, flat):
    knobs, parts = skewed({**flat, "rounds": 3}), Journal(tmp_path / "parts")

    def stop(line):
        if line["round"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(knobs, parts, callbacks=[EachRound(stop)])
    whole = run(knobs, Journal(tmp_path / "whole"))
    assert run(knobs, parts, resume=True)["model_sha256"] == whole["model_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("flat", [PAPER, {"recipe": "fbn"}], ids=OURS)
def test_two_workers_end_as_this_process(skewed, tmp_path, flat):
    knobs = skewed({**flat, "engine": "sequential"})
    found = [run(knobs, Journal(tmp_path / str(n)), workers=n)["model_sha256"] for n in (1, 2)]
    assert found[0] == found[1]


@pytest.mark.parametrize("recipe", OURS)
@pytest.mark.parametrize("policy", ["local", "drop"])
def test_without_shared_statistics_a_round_runs(skewed, tmp_path, recipe, policy):
    """Under `drop` both are BatchNorm, and FBN has its bytes; under `local` clients keep theirs."""
    knobs = skewed({"recipe": recipe, "state.bn": policy, "rounds": 1, "engine": "sequential"})
    model = model_after(knobs, tmp_path)
    assert not any("running" in name for name in model)
    assert all(np.isfinite(array).all() for array in model.values())
    if (recipe, policy) == ("fbn", "drop"):
        plain = model_after(knobs.replace({"recipe": "batchnorm"}), tmp_path)
        assert all(equal(model, plain, model.keys() | plain.keys()))
