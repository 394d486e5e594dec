"""Opponents with a normalizer end in lanes as they do alone, also where batches are unequal."""

from dataclasses import replace

import pytest
import torch

from fl.config import Client, Network
from fl.nn import build, forget_statistics
from fl.training.loop import Training
from fl.training.parameters import FlatNetwork
from fl.vectorized import operators
from fl.vectorized.tracing import TracedGradients
from tests.fl.vectorized.test_scheduler import CPU, assert_same, both_ways, clients

SIZES = [3, 7, 1, 5, 8]
"""Images of the clients, in batches of 4."""
HOW = Training(Client(lr=0.02, momentum=0.5))
NETWORKS = {
    "groups": (Network(kind="plainnet", depth=4, width=8, groups=8), "groupnorm"),
    "groups of standardized": (Network(kind="resnet", depth=8, width=4, groups=2), "ws-groupnorm"),
    "hbn": (Network(kind="plainnet", depth=4, width=4), "hbn"),
    "fbn": (Network(kind="resnet", depth=8, width=4), "fbn"),
    "features": (Network(kind="plainnet", depth=4, width=4, feature_norm=True), "none"),
    "squeezed": (Network(kind="resnet-v2", depth=8, width=4, squeeze=2), "nf"),
    "batch-renorm": (Network(kind="plainnet", depth=4, width=4), "batch-renorm"),
}


def flat(network: Network, recipe: str) -> FlatNetwork:
    module = build(network, recipe, (1, 8, 8), 3, torch.Generator().manual_seed(0))
    return FlatNetwork(module.double(), CPU)


@pytest.mark.parametrize("name", NETWORKS)
def test_clients_of_unequal_sizes_end_as_alone(name: str) -> None:
    network = flat(*NETWORKS[name])
    tasks = clients(network, SIZES, 4)
    assert_same(*both_ways(network, tasks, HOW, lanes=3, padded_sizes=(4,)), tolerance=1e-10)


@pytest.mark.parametrize("recipe", ["hbn", "fbn", "batch-renorm"])
@pytest.mark.parametrize("forgets", [False, True])
def test_maps_of_a_pixel_end_as_alone(recipe: str, forgets: bool) -> None:
    """A layer then sees one value a channel of a client whose batch is one image."""
    module = build(Network(depth=3, width=4), recipe, (1, 2, 2), 3, torch.Generator())
    if forgets:
        forget_statistics(module)
    network, sizes = FlatNetwork(module.double(), CPU), [3, 4, 1]
    tasks = clients(network, sizes, 2, side=2)
    alone, found = both_ways(network, tasks, HOW, lanes=3, padded_sizes=(2,))
    assert_same(alone, found, tolerance=1e-10)
    assert [outcome.single_value_steps for _, outcome in found] == [1, 0, 1]


def test_statistics_that_are_fixed_stay_and_clients_end_as_alone() -> None:
    network = flat(Network(kind="plainnet", depth=4, width=4), "batchnorm")
    tasks = clients(network, SIZES, 4)
    how = replace(HOW, fixed=True)
    alone, found = both_ways(network, tasks, how, lanes=3, padded_sizes=(4,))
    assert_same(alone, found, tolerance=1e-10)
    moving, _ = both_ways(network, tasks, HOW, lanes=3, padded_sizes=(4,))
    for task, (state, _), (other, _) in zip(tasks, found, moving, strict=True):
        task.begin(network)
        for name, began in network.buffers.items():
            assert torch.equal(state[name], began), name
            assert not torch.equal(other[name], began), name


@pytest.mark.slow
@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("recipe", ["hbn", "fbn", "batch-renorm"])
def test_traced_passes_are_used_and_end_as_alone(recipe: str, native: bool) -> None:
    if native and operators.unavailable_reason():
        pytest.skip("no C++ compiler")
    network = flat(Network(depth=3, width=4), recipe)
    graphs = TracedGradients(network, native, 2, False)
    tasks = clients(network, [3, 2], 2)
    assert_same(*both_ways(network, tasks, HOW, 2, graphs, (2,)))
    assert all(graphs.passes.values())
