"""A bare PyTorch loop in one process: what a good engineer writes without a framework."""

import torch
from torch import Tensor, nn

from experiments.bench.contenders.record import Record
from experiments.bench.contenders.workload import draws, loss, workload
from fl.config import Experiment


def train(net: nn.Module, images: Tensor, labels: Tensor, knobs: Experiment) -> float:
    """Train a client's epoch in place; returns the sum of its images' losses."""
    optimizer = torch.optim.SGD(net.parameters(), lr=knobs.client.lr)
    total = torch.zeros(())
    for batch in torch.randperm(len(labels)).split(knobs.client.batch_size):
        optimizer.zero_grad()
        mean = loss(net, images[batch], labels[batch])
        mean.backward()
        optimizer.step()
        total += mean.detach() * len(batch)
    return float(total)


def run(knobs: Experiment, record: Record) -> None:
    """Train one client after another from the shared weights, and average what comes of it."""
    torch.manual_seed(knobs.seed)
    job = workload(knobs)
    shared = {name: tensor.clone() for name, tensor in job.network.state_dict().items()}
    for drawn in draws(knobs):
        everything = sum(job.sizes[client] for client in drawn)
        mean = {name: torch.zeros_like(tensor) for name, tensor in shared.items()}
        total = 0.0
        for images, labels in (job.clients[client] for client in drawn):
            job.network.load_state_dict(shared)
            total += train(job.network, images, labels, knobs)
            for name, tensor in job.network.state_dict().items():
                mean[name].add_(tensor, alpha=len(labels) / everything)
        shared = mean
        record(everything, total / everything)
