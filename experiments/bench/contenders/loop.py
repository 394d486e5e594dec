"""A bare PyTorch loop in one process: what a good engineer writes without a framework."""

import torch
from torch import Tensor, nn

from experiments.bench.contenders.record import Record
from experiments.bench.contenders.workload import clip, draws, loss, right, workload
from fl.config import Experiment


def train(net: nn.Module, images: Tensor, labels: Tensor, knobs: Experiment) -> float:
    """Train a client's epoch in place; returns the sum of its images' losses."""
    optimizer, bound = torch.optim.SGD(net.parameters(), lr=knobs.client.lr), clip(knobs)
    total = torch.zeros(())
    for batch in torch.randperm(len(labels)).split(knobs.client.batch_size):
        optimizer.zero_grad()
        mean = loss(net, images[batch], labels[batch])
        mean.backward()
        if bound is not None:
            nn.utils.clip_grad_norm_(net.parameters(), bound)
        optimizer.step()
        total += mean.detach() * len(batch)
    return float(total)


def run(knobs: Experiment, record: Record) -> None:
    """Train one client after another from the shared weights, and average what comes of it."""
    torch.manual_seed(knobs.seed)
    job = workload(knobs)
    shared = {name: tensor.clone() for name, tensor in job.network.state_dict().items()}
    right(job.network, *job.test)  # all others look at the network of the beginning, too
    for drawn in draws(knobs):
        everything = sum(job.sizes[client] for client in drawn)
        floats = (name for name, tensor in shared.items() if tensor.is_floating_point())
        mean = {name: torch.zeros_like(shared[name]) for name in floats}
        total = 0.0
        for images, labels in (job.clients[client] for client in drawn):
            job.network.load_state_dict(shared)
            total += train(job.network, images, labels, knobs)
            after = job.network.state_dict()
            for name, tensor in mean.items():
                tensor.add_(after[name], alpha=len(labels) / everything)
        shared |= mean
        job.network.load_state_dict(shared)
        tested = right(job.network, *job.test) / len(job.test[1])
        record(everything, total / everything, tested)
