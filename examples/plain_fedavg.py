"""FedAvg as it is written in a textbook: no Flower, no engine, no journal, one process.

This is the first page to read, and the reference for all others. A test holds it to the engine:
``python examples/plain_fedavg.py 3`` ends with the same network, bit for bit, as ``fednf run --set
rounds=3 --set engine=sequential --set device=cpu``. The engine adds speed, devices and resume.

The path of a round here: `sample` -> `train` for each client -> `average` -> `accuracy`. In the
engine `run_round` of fl/server/rounds.py calls strategies/serving/server.py to sample, sends
requests through a grid to fl/client/task.py, which calls fl/training/loop.py to train, and adds the
replies to `Mean` in strategies/serving/server.py; fl/training/loop.py evaluates.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import partitions
from fl.config import Network
from fl.data import Dataset, load
from fl.nn import build
from fl.reproducibility.files import fingerprint
from fl.reproducibility.seeds import stream, torch_stream

SEED, CLIENTS, SAMPLED = 1, 20, 10
ALPHA, MIN_SIZE = 0.3, 10  # Dirichlet's concentration, and the fewest images a client may hold
BATCH_SIZE, LR, CLIP = 4, 0.05, 5.0


def sample(number: int) -> list[int]:
    """Draw the clients of a round, as a function of the seed and the round alone."""
    rng = stream(SEED, "sampling", "round", number)
    return sorted(rng.choice(range(CLIENTS), SAMPLED, replace=False).tolist())


def train(network: nn.Module, data: Dataset, mine: Tensor, client: int, number: int) -> None:
    """Train a client's network in place: one epoch of SGD, w <- w - lr·clip(∇loss).

    Args:
        network: holds the global network, and afterwards the client's.
        data: the data set.
        mine: the places of the client's images in the training split.
        client: partition id.
        number: of the round.
    """
    weights = parameters_to_vector(network.parameters()).detach()
    rng = stream(SEED, "client", client, "round", number)
    network.train()
    for places in mine[torch.from_numpy(rng.permutation(len(mine)))].split(BATCH_SIZE):
        images, labels = data.inputs(data.train.images[places]), data.train.labels[places]
        loss = F.cross_entropy(network(images), labels)
        gradient = parameters_to_vector(torch.autograd.grad(loss, list(network.parameters())))
        norm = torch.linalg.vector_norm(gradient)
        gradient *= (CLIP / (norm + 1e-6)).clamp(max=1)
        weights.add_(gradient, alpha=-LR)
        vector_to_parameters(weights, network.parameters())


def average(networks: list[dict[str, Tensor]], examples: list[int]) -> dict[str, Tensor]:
    """Return the mean of networks, weighted by examples: w = Σ n_k w_k / Σ n_k, in float64."""
    mean = {}
    for name in networks[0]:
        total = torch.zeros_like(networks[0][name], dtype=torch.float64)
        for network, count in zip(networks, examples, strict=True):
            total += network[name].double() * count
        mean[name] = (total / sum(examples)).to(networks[0][name].dtype)
    return mean


@torch.no_grad()
def accuracy(network: nn.Module, data: Dataset) -> float:
    """Return the share of the test images that a network gets right."""
    network.eval()
    right = network(data.inputs(data.test.images)).argmax(1) == data.test.labels
    return float(right.float().mean())


def federate(rounds: int) -> dict[str, np.ndarray]:
    """Play rounds of FedAvg, print the accuracy after each, and return the network's tensors."""
    torch.set_num_threads(1)
    # For 4 images the engine takes PyTorch's own convolutions; others round differently.
    torch.backends.mkldnn.enabled = False  # pyrefly: ignore
    data = load("fashion-mnist-small")
    labels = data.train.labels.numpy()
    rng = stream(SEED, "deal")
    deal = partitions.dirichlet(labels, CLIENTS, ALPHA, MIN_SIZE, rng)
    shape, classes = data.form
    network = build(Network(), "zc-swish", shape, classes, torch_stream(SEED, "init"))
    model = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for number in range(1, rounds + 1):
        networks, examples = [], []
        for client in sample(number):
            network.load_state_dict(model)
            mine = torch.from_numpy(deal[client])
            train(network, data, mine, client, number)
            networks.append({name: t.clone() for name, t in network.state_dict().items()})
            examples.append(len(mine))
        model = average(networks, examples)
        network.load_state_dict(model)
        sys.stdout.write(f"round {number}: accuracy {accuracy(network, data):.3f}\n")
    return {name: tensor.numpy() for name, tensor in model.items()}


if __name__ == "__main__":
    final = federate(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    sys.stdout.write(f"model_sha256 {fingerprint(final)}\n")
