"""Opponents with a normalizer end in lanes as they do alone, also where batches are unequal."""

import pytest
import torch

from fl.config import Client, Network
from fl.nn import build
from fl.training.loop import Training
from fl.training.parameters import FlatNetwork
from tests.fl.vectorized.test_scheduler import CPU, assert_same, both_ways, clients

SIZES = [3, 7, 1, 5, 8]
"""Images of the clients, in batches of 4."""
HOW = Training(Client(lr=0.02, momentum=0.5))
NETWORKS = {
    "groups": (Network(kind="plainnet", depth=4, width=8, groups=8), "groupnorm"),
    "groups of standardized": (Network(kind="resnet", depth=8, width=4, groups=2), "ws-groupnorm"),
}


def flat(network: Network, recipe: str) -> FlatNetwork:
    module = build(network, recipe, (1, 8, 8), 3, torch.Generator().manual_seed(0))
    return FlatNetwork(module.double(), CPU)


@pytest.mark.parametrize("name", NETWORKS)
def test_clients_of_unequal_sizes_end_as_alone(name: str) -> None:
    network = flat(*NETWORKS[name])
    assert_same(*both_ways(network, clients(network, SIZES, 4), HOW, lanes=3, padded_sizes=(4,)))
