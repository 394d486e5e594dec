"""Parameters that stay with a client: identities, corrections, lanes, resume, workers, weights.

`FEDNF_FULL=1` tries all kinds of them in whole runs, otherwise two.
"""

import os

import numpy as np
import pytest
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

import fl.client.app
from fl.client.local import Ownership
from fl.config import Client, Experiment
from fl.config.parsing import ConfigError
from fl.messages import client_state, records
from fl.server.app import serve
from fl.server.journal import MODEL, Journal
from fl.server.watching.callback import CallbackFailed
from fl.simulation import InlineGrid, run
from fl.training.loop import Training
from strategies import find
from strategies.making import made
from tests.callbacks import EachRound
from tests.conftest import ENGINES
from tests.fl.client.conftest import SHORT
from tests.fl.vectorized import test_scheduler as lanes
from tests.strategies.methods.test_optimizers import stop

SLOW = pytest.mark.slow
KINDS = {"norm": "batchnorm", "activations": "salunet", "head": "none", "layers.*": "groupnorm"}
"""What stays, and a recipe with some of it."""
WHOLE = KINDS if os.environ.get("FEDNF_FULL") else ("norm", "head")
"""What whole runs are tried with, under workers and in lanes."""


@pytest.fixture
def short(few):
    """Make experiments of a few examples; flat keys change them."""

    def make(local: str, flat: dict | None = None) -> Experiment:
        told = {**SHORT, "data.name": few, "rounds": 2, "network.depth": 4, "state.local": local}
        return Experiment.from_flat({**told, "recipe": KINDS.get(local, "none"), **(flat or {})})

    return make


def model(journal: Journal) -> dict[str, np.ndarray]:
    return journal.network(MODEL)[0]


def own(journal: Journal) -> list[dict[str, np.ndarray]]:
    """Return what each client has kept of the network, in the order of partitions."""
    written = journal.checkpoint().clients
    states = [client_state.unpack_state(*journal.client_state(p, written[p])) for p in written]
    return [records.unpack_arrays(state["own"]) for state in states if "own" in state]


def noting(knobs: Experiment, folder) -> tuple[Journal, list[tuple[Message, Message]]]:
    """Run an experiment, and return each request to train with its reply."""
    app, seen = ClientApp(), []

    def noted(message: Message, context: Context) -> Message:
        reply = fl.client.app.train(message, context)
        seen.append((message, reply))
        return reply

    app.train()(noted)
    app.query("who_are_you")(fl.client.app.who_are_you)
    journal = Journal(folder)
    serve(InlineGrid(knobs, app), knobs, journal, started_by={})
    return journal, seen


@pytest.mark.parametrize(
    "local", [p if p == "norm" else pytest.param(p, marks=SLOW) for p in KINDS]
)
def test_one_client_has_what_fedavg_makes_of_it_in_two_places(short, tmp_path, local):
    """The mean of one client is that client, wherever its parameters are between rounds."""
    alone = {"partition.clients": 1, "sampling.clients": 1, "client.momentum": 0.9}
    shared = {**alone, "state.local": "none", "state.bn": "local" if local == "norm" else "average"}
    run(short(local, shared), Journal(tmp_path / "shared"))
    journal, seen = noting(short(local, alone), tmp_path / "local")
    (kept,) = own(journal)
    before, after = model(Journal(tmp_path / "shared")), model(journal)
    for request, reply in seen:
        arrays = [set(message.content["arrays"]) for message in (request, reply)]
        assert arrays[0] == arrays[1] == before.keys() - kept.keys()
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert np.array_equal(array, {**after, **kept}[name]), name
        assert np.array_equal(array, after[name]) == (name not in kept)


@pytest.mark.parametrize("local", ["norm", pytest.param("activations", marks=SLOW)])
@pytest.mark.parametrize("engine", ENGINES)
def test_without_what_would_stay_it_is_fedavg_to_the_byte(short, tmp_path, local, engine):
    flat = {**ENGINES[engine], "recipe": "none", "rounds": 1}
    plain, kept = (short(how, flat) for how in ("none", local))
    results = [run(knobs, Journal(tmp_path / knobs.state.local)) for knobs in (plain, kept)]
    assert results[0]["model_sha256"] == results[1]["model_sha256"]
    assert plain.identity != kept.identity
    assert plain.identity == plain.replace({"state.local": "none"}).identity


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "local", [p if p == "head" else pytest.param(p, marks=SLOW) for p in KINDS]
)
def test_after_one_round_the_rest_is_fedavg_s_and_so_is_the_mean_of_what_stayed(
    short, tmp_path, local, engine
):
    """All begin with the same weights and hold as many examples."""
    flat = {**ENGINES[engine], "rounds": 1}
    shared = {**flat, "state.local": "none", "recipe": KINDS[local]}
    journals = [Journal(tmp_path / "shared"), Journal(tmp_path / "local")]
    for journal, knobs in zip(journals, (short(local, shared), short(local, flat)), strict=True):
        run(knobs, journal)
    (plain, found), kept = map(model, journals), own(journals[1])
    assert len(kept) == 4
    for name, array in plain.items():
        if "running" in name:  # which a client measures before it first trains
            assert name in kept[0]
        elif name in kept[0]:
            mean = np.mean([state[name] for state in kept], axis=0, dtype=np.float64)
            np.testing.assert_allclose(mean, array, rtol=1e-6, atol=1e-7)
        else:
            assert np.array_equal(found[name], array), name


def test_a_pattern_of_nothing_writes_nothing(short, tmp_path):
    with pytest.raises(ConfigError, match="no parameter's name matches boddy"):
        run(short("boddy"), Journal(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_corrections_touch_shared_weights_only():
    network = lanes.flat_network("plainnet", "zc-swish")
    kept = frozenset(name for name in network.state() if name.startswith("classifier"))
    owned = Ownership(network, kept)
    g = torch.Generator().manual_seed(1)
    rows = [torch.randn(3, len(network.weights), generator=g).double() for _ in range(4)]
    gradient, weights, start, h_i = rows
    correct = made(find("feddyn"), {}).correct
    expected, found = gradient.clone(), gradient.clone()
    correct(expected, weights, start, {"h_i": h_i})
    assert owned.only_shared(correct) is owned.only_shared(correct)
    owned.only_shared(correct)(found, weights, start, {"h_i": h_i})
    touched = (found != gradient).all(0)
    assert torch.equal(found[:, touched], expected[:, touched])
    assert torch.equal(found[:, ~touched], gradient[:, ~touched])
    names = {part.name for part in network.segments if not part.of(touched.double()).any()}
    assert names == kept
    assert torch.equal(owned.part(owned.whole(owned.part(h_i[0]))), owned.part(h_i[0]))
    assert not owned.whole(owned.part(h_i[0]))[~touched].any()


@pytest.mark.parametrize("kind", ["scaffold", "feddyn"])
def test_lanes_correct_shared_weights_as_alone(kind):
    from tests.strategies.methods.test_corrections import OWN, Remembering

    network = lanes.flat_network("plainnet", "zc-swish")
    tasks = [Remembering(k, size, 2) for k, size in enumerate([3, 1])]
    for task in tasks:
        task.start = network.weights.clone()
    kept = frozenset(name for name in network.state() if name.startswith("layers.0"))
    correct = Ownership(network, kept).only_shared(made(find(kind), OWN[kind]).correct)
    how = Training(Client(lr=0.01), correct)
    lanes.assert_same(*lanes.both_ways(network, tasks, how, 2), tolerance=1e-10)


@SLOW
def test_scaffold_s_vectors_are_of_shared_weights(short, tmp_path):
    journal, seen = noting(short("head", {"strategy.kind": "scaffold"}), tmp_path / "run")
    total = sum(array.size for array in model(journal).values())
    shared = total - sum(array.size for array in own(journal)[0].values())
    state = journal.checkpoint().strategy["c"]
    assert state.shape == (shared,)
    assert np.abs(state).max() > 0
    for request, reply in seen:
        (c,), (change,) = (m.content["vectors"].values() for m in (request, reply))
        assert c.numpy().size == change.numpy().size == shared < total
    assert all(line["refused"] == [] for line in journal.rounds())


@SLOW
def test_clients_begin_with_given_weights_and_keep_their_own(short, tmp_path):
    """A device can't know given weights, so requests have them."""
    run(short("none", {"recipe": "salunet", "rounds": 1}), Journal(tmp_path / "first"))
    given = model(Journal(tmp_path / "first"))
    knobs = short("activations", {"run.start-from": str(tmp_path / "first"), "client.lr": 1e-12})
    journal, seen = noting(knobs, tmp_path / "run")
    for kept in own(journal):
        assert kept
        assert all(np.allclose(array, given[name], atol=1e-6) for name, array in kept.items())
    assert all(set(kept) == set(request.content["initial"]) for request, _ in seen)
    untrained = short("activations").replace({"rounds": 1})
    assert "initial" not in noting(untrained, tmp_path / "untrained")[1][0][0].content
    after = model(journal)
    assert all(np.array_equal(after[name], given[name]) for name in kept)


METHODS = {"strategy.kind": "scaffold", "client.momentum": 0.5, "client.carry-momentum": True}


@SLOW
@pytest.mark.parametrize("local", WHOLE)
def test_resumed_on_two_workers_it_ends_with_the_same_bytes(short, tmp_path, local):
    flat = {"rounds": 4, "partition.held-out": 0.2, "signals.every": 2, "signals.images": 8}
    knobs = short(local, {**flat, **(METHODS if local == "head" else {})})
    whole = run(knobs, Journal(tmp_path / "whole"))
    with pytest.raises(CallbackFailed):
        run(knobs, Journal(tmp_path / "part"), callbacks=[EachRound(stop)])
    part = run(knobs, Journal(tmp_path / "part"), workers=2, resume=True)
    assert part["model_sha256"] == whole["model_sha256"]
    states = [own(Journal(tmp_path / name)) for name in ("whole", "part")]
    assert len(states[0]) == len(states[1]) > 1
    for mine, theirs in zip(*states, strict=True):
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine | theirs)
    assert len({next(iter(kept.values())).tobytes() for kept in states[0]}) == len(states[0])
    assert whole["refused"] == 0


@SLOW
@pytest.mark.parametrize("local", WHOLE)
def test_lanes_end_with_what_one_after_another_ends_with(short, tmp_path, local):
    flat = {"network.width": 4, "client.batch-size": 4, "client.lr": 0.01}
    flat |= {"strategy.kind": "feddyn"} if local == "head" else {}
    lanes = {"engine": "vectorized", "vectorized.lanes": 3, "vectorized.level": "traced"}
    journals = [Journal(tmp_path / "alone"), Journal(tmp_path / "lanes")]
    for journal, more in zip(journals, [flat, flat | lanes], strict=True):
        run(short(local, more), journal)
    everything = [[model(journal), *own(journal)] for journal in journals]
    assert len(everything[0]) == len(everything[1]) > 2
    for alone, together in zip(*everything, strict=True):
        for name in alone:
            np.testing.assert_allclose(alone[name], together[name], rtol=1e-4, atol=1e-5)
