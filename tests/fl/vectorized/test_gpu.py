"""On a GPU: lanes end as clients alone do, recorded passes are those that they replay, and all fit.

Skipped where there is none.
"""

import numpy as np
import pytest
import torch

from fl.config import Client
from fl.config.parsing import ConfigError
from fl.data import load
from fl.reproducibility.seeds import torch_stream
from fl.server.app import prepare
from fl.server.journal import Journal
from fl.simulation import engine as engines
from fl.simulation import run
from fl.training import parameters
from fl.training.loop import Training
from fl.training.parameters import FlatNetwork
from fl.vectorized import gpu_memory
from fl.vectorized.cuda_graphs import record
from fl.vectorized.gradients import Examples, Gradients
from fl.vectorized.tracing import TracedGradients
from strategies.fedprox import proximal
from tests.fl.vectorized.test_scheduler import (
    THREE,
    assert_same,
    both_ways,
    clients,
    flat_network,
    side,
)
from tests.smallest import PAIRS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

GPU = torch.device("cuda")


def on_gpu(kind: str, recipe: str, side: int = 8) -> FlatNetwork:
    return FlatNetwork(flat_network(kind, recipe, side=side).module, GPU)


@pytest.mark.parametrize(("kind", "recipe"), PAIRS)
def test_every_network_trains_in_lanes_as_alone(kind, recipe):
    network = on_gpu(kind, recipe, side(kind, recipe))
    tasks = clients(network, [3, 1, 5], 2, side=side(kind, recipe))
    how = Training(Client(lr=0.01, momentum=0.5))
    assert_same(*both_ways(network, tasks, how, 2))


@pytest.mark.parametrize(
    "client",
    [
        Client(lr=0.01, momentum=0.9, weight_decay=0.1, clip="norm:0.1"),
        Client(lr=0.01, optimizer="adam", clip="none", activation_lr=3),
        Client(lr=0.01, clip="agc:0.01"),
    ],
    ids=["momentum", "adam", "agc"],
)
@pytest.mark.parametrize(("kind", "recipe"), THREE)
def test_recorded_passes_give_the_same(kind, recipe, client, monkeypatch):
    calls = []
    monkeypatch.setattr("fl.vectorized.tracing.record", lambda *a: calls.append(1) or record(*a))
    network = on_gpu(kind, recipe, side=14)
    tasks = clients(network, [6, 5, 3, 1, 2], 2, side=14)
    graphs = TracedGradients(network, False, 2, False)
    assert_same(*both_ways(network, tasks, Training(client, proximal(0.1)), 2, graphs))
    assert graphs.passes
    assert None not in graphs.passes.values()
    assert len(calls) == len(graphs.passes)


def test_a_graph_is_traced_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network = on_gpu("resnet-v2", "nf", side=14)
    trace, traces = TracedGradients._trace, []
    monkeypatch.setattr(TracedGradients, "_trace", lambda *a: traces.append(1) or trace(*a))
    for _ in range(2):
        tasks, graphs = (
            clients(network, [4, 2], 2, side=14),
            TracedGradients(network, False, 2, False, "x"),
        )
        assert_same(*both_ways(network, tasks, Training(Client(lr=0.01)), 2, graphs))
    assert len(traces) == 1


@pytest.mark.parametrize("recipe", ["zc-swish", "batchnorm"])
def test_both_engines_give_the_same_run_and_each_the_same_bytes_again(tiny, tmp_path, recipe):
    models = {}
    for engine in ("sequential", "vectorized"):
        knobs = tiny(
            {
                "device": "cuda",
                "recipe": recipe,
                "client.batch-size": 8,
                "client.lr": 1e-3,
                "engine": engine,
            }
        )
        for turn in (1, 2):
            run(knobs, Journal(tmp_path / f"{engine}{turn}"))
            models[engine, turn] = Journal(tmp_path / f"{engine}{turn}").checkpoint().model
    for name, mine in models["sequential", 1].items():
        # PyTorch's convolutions round to 10 bits of fraction (TF32) on a GPU.
        np.testing.assert_allclose(models["vectorized", 1][name], mine, rtol=1e-2, atol=1e-3)
        for engine in ("sequential", "vectorized"):
            np.testing.assert_array_equal(models[engine, 1][name], models[engine, 2][name])


@pytest.mark.parametrize("images", [1, 8])
@pytest.mark.parametrize(("kind", "recipe"), THREE)
def test_a_lane_takes_no_more_memory_than_there_is_said_to_be_room_for(tiny, kind, recipe, images):
    knobs = tiny(
        {
            "device": "cuda",
            "recipe": recipe,
            "network.kind": kind,
            "network.depth": 18 if "resnet" in kind else 16,
            "network.width": 16,
        }
    )
    network, form = (
        parameters.build_network(knobs, torch_stream(1, "init")),
        load(knobs.data.name).form,
    )
    lanes, bytes_of_all = 64, 2 * 64 * 10**9
    bytes_of_lane = (
        bytes_of_all // 2 / gpu_memory.lanes_that_fit(network, form, images, 1, bytes_of_all)
    )
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    weights = network.weights.expand(lanes, -1).clone()
    rows = [torch.zeros_like(weights) for _ in range(5)]  # start, parts, velocity, and Adam's
    buffers = {n: b.expand(lanes, *b.shape).clone() for n, b in network.buffers.items()}
    examples = Examples(
        torch.rand(lanes, images, *form.shape, device=GPU),
        torch.zeros(lanes, images, dtype=torch.long, device=GPU),
        torch.full((lanes, images), 1 / images, device=GPU),
        torch.full((lanes,), float(images), device=GPU),
    )
    Gradients(network)(weights, buffers, examples)
    TracedGradients(network, False, lanes, False)(weights, buffers, examples)
    del rows
    taken = torch.cuda.max_memory_allocated() - before
    assert taken / lanes <= bytes_of_lane


def test_the_engine_and_its_lanes_follow_from_the_gpu(tiny):
    knobs = tiny({"device": "cuda", "partition.clients": 100, "sampling.clients": 50})
    choice = engines.choose(
        prepare(knobs.replace({"client.batch-size": 1, "partition.kind": "iid"}))
    )
    assert choice.told["engine"] == "vectorized"
    assert (choice.knobs.vectorized.lanes, choice.knobs.vectorized.level) == (50, "traced")
    with pytest.raises(ConfigError, match=r"vectorized\.level=native: its programs are for CPUs"):
        engines.choose(prepare(choice.knobs.replace({"vectorized.level": "native"})))
