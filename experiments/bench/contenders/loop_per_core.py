"""The bare loop in a process per core, which live as long as the job."""

from multiprocessing.connection import Connection

import torch
import torch.multiprocessing as multiprocessing
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from experiments.bench.contenders.loop import train
from experiments.bench.contenders.record import Record
from experiments.bench.contenders.workload import draws, workload
from fl.config import Experiment
from fl.reproducibility.provenance import cores
from fl.simulation.schedule import longest_first


def run(knobs: Experiment, record: Record) -> None:
    """Let workers train their clients and sum up; weights and sums are in shared memory."""
    job, processes = workload(knobs), multiprocessing.get_context("spawn")
    crew = min(cores(), knobs.sampling.clients)
    shared = parameters_to_vector(job.network.parameters()).detach().share_memory_()
    sums = torch.zeros(crew, len(shared)).share_memory_()
    pipes = []
    for worker in range(crew):
        mine, theirs = processes.Pipe()
        arguments = (theirs, knobs, shared, sums[worker])
        processes.Process(target=_work, args=arguments, daemon=True).start()
        theirs.close()
        pipes.append(mine)
    for drawn in draws(knobs):
        sizes = [job.sizes[client] for client in drawn]
        for pipe, hand in zip(pipes, longest_first(sizes, crew), strict=True):
            pipe.send(([drawn[place] for place in hand], sum(sizes)))
        total = sum(pipe.recv() for pipe in pipes)
        torch.sum(sums, 0, out=shared)
        record(sum(sizes), total / sum(sizes))


def _work(pipe: Connection, knobs: Experiment, shared: Tensor, mean: Tensor) -> None:
    """Train whom each order names, of a round of so many images, until the parent is gone."""
    torch.manual_seed(knobs.seed)
    job = workload(knobs)
    while True:
        try:
            clients, everything = pipe.recv()
        except EOFError:
            return
        mean.zero_()
        total = 0.0
        for images, labels in (job.clients[client] for client in clients):
            vector_to_parameters(shared.clone(), job.network.parameters())
            total += train(job.network, images, labels, knobs)
            after = parameters_to_vector(job.network.parameters()).detach()
            mean.add_(after, alpha=len(labels) / everything)
        pipe.send(total)
