"""A network that memory does not hold is refused before it is built; all others are built."""

import shutil
import time

import pytest
import torch

from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.data import Form
from fl.nn.networks import SKELETONS
from fl.nn.size import MOST_LAYERS
from fl.server.journal import Journal
from fl.simulation import run
from fl.training.checks.estimate import (
    check_batches,
    check_lanes,
    check_networks,
    check_workers,
)
from fl.training.parameters import build_network

FORM = Form((1, 28, 28), 10)


def built(flat):
    return build_network(Experiment.from_flat(flat), torch.Generator().manual_seed(1), FORM)


@pytest.mark.parametrize(
    ("flat", "said"),
    [
        ({"network.width": 10**24}, "weights of at least 4 YB"),
        ({"network.width": 200_000}, "width=200000: weights of 18.7 TB"),
        ({"network.width": 2 * 10**9}, "weights of at least"),
        ({"network.depth": 10**7}, f"more than {MOST_LAYERS:,} layers"),
        ({"network.kind": "ffnn", "network.width": 200_000}, "TB"),
        ({"network.kind": "vit", "network.width": 192_000}, "TB"),
        ({"network.kind": "cnn", "network.width": 10**7}, "PB"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_within_a_second(flat, said):
    begun = time.process_time()
    with pytest.raises(ConfigError) as error:
        built(flat)
    assert said in str(error.value)
    assert "this machine has" in str(error.value) or "layers" in said
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("kind", SKELETONS)
def test_every_network_counts_its_weights_without_memory(kind, monkeypatch):
    flat = {"network.kind": kind, "network.width": 32, "device": "cpu"}
    flat |= {"recipe": "nf"} if kind == "nfnet" else {}
    held = len(built(flat).weights) * 4
    monkeypatch.setenv("FEDNF_MEMORY", str(2 * held))
    built(flat)
    monkeypatch.setenv("FEDNF_MEMORY", str(2 * held - 1))
    with pytest.raises(ConfigError, match="and with their gradients"):
        built(flat)


def test_batches_that_do_not_fit_are_refused_with_what_the_first_layers_keep(monkeypatch):
    knobs = Experiment.from_flat({"network.kind": "ffnn", "network.depth": 2, "network.width": 8})
    knobs = knobs.replace({"client.batch-size": 10**9, "device": "cpu"})
    network, parts = built(knobs.to_flat()), [torch.arange(1_000)]
    kept = 4 * 1_000 * (28 * 28 + 8)  # of each example, its pixels and the hidden units
    monkeypatch.setenv("FEDNF_MEMORY", str(kept))
    check_batches(knobs, network, FORM, parts)
    monkeypatch.setenv("FEDNF_MEMORY", str(kept - 1))
    with pytest.raises(ConfigError, match=r"client\.batch-size=1000000000: a batch of 1,000 exam"):
        check_batches(knobs, network, FORM, parts)


def test_more_processes_than_memory_holds_are_refused():
    assert check_workers(None) is None
    assert check_workers(4) == 4
    with pytest.raises(ConfigError, match=r"--workers=1000000000: processes .* 10\.5 PB; this mac"):
        check_workers(10**9)


WIDE = {"network.kind": "ffnn", "network.depth": 2, "device": "cpu", "sampling.clients": 5}


def test_lanes_that_memory_does_not_hold_are_refused_before_the_run(tiny, tmp_path, monkeypatch):
    knobs = tiny({**WIDE, "network.width": 1024, "engine": "vectorized", "vectorized.lanes": 64})
    network = built(knobs.to_flat())
    at_once = 5 * 2 * network.weights.nbytes  # five clients fill no more than five lanes
    monkeypatch.setenv("FEDNF_MEMORY", str(at_once))
    check_lanes(64, 5, 2, network)
    monkeypatch.setenv("FEDNF_MEMORY", str(at_once - 1))
    with pytest.raises(ConfigError, match=r"vectorized\.lanes=64: weights and .*; lower it"):
        run(knobs, Journal(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_what_clients_keep_is_refused_where_memory_does_not_hold_it(tiny, tmp_path, monkeypatch):
    flat = {**WIDE, "network.width": 1024, "strategy.kind": "scaffold", "engine": "sequential"}
    knobs = tiny(flat)
    held = 5 * built(knobs.to_flat()).weights.nbytes
    monkeypatch.setenv("FEDNF_MEMORY", str(held - 1))
    with pytest.raises(ConfigError, match=r"sampling\.clients=5: what clients keep \(c_i\)"):
        run(knobs, Journal(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_no_disk_holds_is_refused_before_round_0(tiny, tmp_path, monkeypatch):
    knobs = tiny(WIDE)
    network = built(knobs.to_flat())
    needed = 3 * sum(tensor.nbytes for tensor in network.tensors().values())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed))
    check_networks(knobs, network, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(ConfigError, match=r"network\.kind=ffnn: checkpoint, best and last network"):
        run(knobs, Journal(tmp_path / "run"))
    assert not list(tmp_path.iterdir())
