"""The bare loop in a process per core, which live as long as the job."""

from multiprocessing.connection import Connection

import torch
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn

from experiments.bench.contenders.loop import train
from experiments.bench.contenders.record import Record
from experiments.bench.contenders.workload import draws, right, workload
from fl.config import Experiment
from fl.reproducibility.provenance import cores
from fl.simulation.schedule import longest_first


def run(knobs: Experiment, record: Record) -> None:
    """Let workers train their clients, sum up and test; weights and sums are in shared memory."""
    job, processes = workload(knobs), multiprocessing.get_context("spawn")
    crew = min(cores(), knobs.sampling.clients)
    shared = torch.cat([part.flatten() for part in _floats(job.network)]).share_memory_()
    sums = torch.zeros(crew, len(shared)).share_memory_()
    pipes = []
    for worker in range(crew):
        mine, theirs = processes.Pipe()
        arguments = (theirs, knobs, shared, sums[worker], (worker, crew))
        processes.Process(target=_work, args=arguments, daemon=True).start()
        theirs.close()
        pipes.append(mine)
    _ask(pipes, [None] * crew)
    for drawn in draws(knobs):
        sizes = [job.sizes[client] for client in drawn]
        hands = longest_first(sizes, crew)
        total = _ask(pipes, [([drawn[place] for place in hand], sum(sizes)) for hand in hands])
        torch.sum(sums, 0, out=shared)
        tested = _ask(pipes, [None] * crew) / len(job.test[1])
        record(sum(sizes), total / sum(sizes), tested)


def _ask(pipes: list[Connection], orders: list[tuple[list[int], int] | None]) -> float:
    """Give every worker an order, and return the sum of their answers."""
    for pipe, order in zip(pipes, orders, strict=True):
        pipe.send(order)
    return sum(pipe.recv() for pipe in pipes)


def _floats(network: nn.Module) -> list[Tensor]:
    """Return what is averaged of a network: parameters, and statistics if there are any."""
    return [part for part in network.state_dict().values() if part.is_floating_point()]


def _work(
    pipe: Connection, knobs: Experiment, shared: Tensor, mean: Tensor, mine: tuple[int, int]
) -> None:
    """Train whom each order names, of a round of so many images, until the parent is gone.

    Without an order, test the shared network on every n-th image from the m-th on, `mine` = (m, n).
    """
    torch.manual_seed(knobs.seed)
    job = workload(knobs)
    parts = _floats(job.network)
    images, labels = (part[mine[0] :: mine[1]] for part in job.test)
    start = [part.view_as(like) for part, like in _cut(shared, parts)]
    sums = [part.view_as(like) for part, like in _cut(mean, parts)]
    while True:
        try:
            order = pipe.recv()
        except EOFError:
            return
        if order is None:
            _take(parts, start)
            pipe.send(right(job.network, images, labels))
            continue
        clients, everything = order
        mean.zero_()
        total = 0.0
        for pictures, classes in (job.clients[client] for client in clients):
            _take(parts, start)
            total += train(job.network, pictures, classes, knobs)
            for into, part in zip(sums, parts, strict=True):
                into.add_(part, alpha=len(classes) / everything)
        pipe.send(total)


def _cut(vector: Tensor, parts: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return the pieces of a vector that belong to tensors, each beside its tensor."""
    return list(zip(vector.split([part.numel() for part in parts]), parts, strict=True))


def _take(parts: list[Tensor], values: list[Tensor]) -> None:
    """Write values into a network's tensors."""
    for part, value in zip(parts, values, strict=True):
        part.copy_(value)
