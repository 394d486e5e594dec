"""No federation at all: a round's images in one place, in batches that keep kernels busy."""

import torch

from experiments.bench.contenders.loop import train
from experiments.bench.contenders.record import Record
from experiments.bench.contenders.workload import workload
from fl.config import Experiment

BATCH = 128


def run(knobs: Experiment, record: Record) -> None:
    """Train on as many clients' images as a round has, the first ones', shuffled every round."""
    torch.manual_seed(knobs.seed)
    job, wide = workload(knobs), knobs.replace({"client.batch-size": BATCH})
    pictures, classes = zip(*job.clients[: knobs.sampling.clients], strict=True)
    images, labels = torch.cat(pictures), torch.cat(classes)
    for _ in range(knobs.rounds):
        record(len(labels), train(job.network, images, labels, wide) / len(labels))
