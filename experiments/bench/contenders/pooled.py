"""No federation at all: a round's images in one place, in batches that keep kernels busy."""

import torch

from experiments.bench.contenders.loop import train
from experiments.bench.contenders.record import Record
from experiments.bench.contenders.workload import draws, right, workload
from fl.config import Experiment

BATCH = 128


def run(knobs: Experiment, record: Record) -> None:
    """Train on the images of each round's clients, shuffled."""
    torch.manual_seed(knobs.seed)
    job, wide = workload(knobs), knobs.replace({"client.batch-size": BATCH})
    right(job.network, *job.test)
    for drawn in draws(knobs):
        pictures, classes = zip(*(job.clients[client] for client in drawn), strict=True)
        images, labels = torch.cat(pictures), torch.cat(classes)
        total = train(job.network, images, labels, wide)
        tested = right(job.network, *job.test) / len(job.test[1])
        record(len(labels), total / len(labels), tested)
