"""What each process of pfl-research runs, with a file of knobs and one to write rounds to."""

import json
import sys
from pathlib import Path

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.callback.central_evaluation import CentralEvaluationCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.internal.ops.pytorch_ops import distributed
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn

from experiments.bench.contenders.record import Record
from experiments.bench.contenders.workload import clip, draws, loss, right, workload
from fl.config import Experiment


class _Module(nn.Module):
    """The network with the methods that pfl asks for; it sums up losses and counts images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.seen, self.tested = network, torch.zeros(2), torch.zeros(2)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        mean = loss(self.network, images, labels)
        self.seen += torch.stack([mean.detach(), torch.ones(())]) * len(labels)
        return mean

    def metrics(self, images: Tensor, labels: Tensor) -> dict:
        self.tested += torch.tensor([right(self.network, images, labels), len(labels)])
        return {}


class _Timed(TrainingProcessCallback):
    def __init__(self, module: _Module, record: Record) -> None:
        self.module, self.record = module, record

    def after_central_iteration(self, *args: object, **options: object) -> tuple[bool, Metrics]:
        module = self.module
        seen, tested = distributed.all_reduce([module.seen.clone(), module.tested.clone()])
        module.seen.zero_()
        module.tested.zero_()
        if distributed.global_rank == 0:
            accuracy = float(tested[0] / tested[1])
            self.record(round(float(seen[1])), float(seen[0] / seen[1]), accuracy)
        return False, Metrics()


def _play(knobs: Experiment, record: Record) -> None:
    job = workload(knobs)
    users = [PyTorchTensorDataset(pair, user_id=str(i)) for i, pair in enumerate(job.clients)]
    every = (client for drawn in draws(knobs) for client in drawn)
    sizes, module = dict(enumerate(map(len, users))), _Module(job.network)
    data = FederatedDataset(users.__getitem__, lambda: next(every), sizes)
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    FederatedAveraging().run(
        # It evaluates in rounds 0, frequency, ...: in none but the first, which is not timed.
        NNAlgorithmParams(knobs.rounds, knobs.rounds, knobs.sampling.clients, None),
        SimulatedBackend(data, data, postprocessors=[WeightByDatapoints()]),
        model,
        NNTrainHyperParams(
            knobs.client.batch_size, 1, knobs.client.lr, local_max_grad_norm=clip(knobs)
        ),
        callbacks=[
            CentralEvaluationCallback(PyTorchTensorDataset(job.test), NNEvalHyperParams(250)),
            _Timed(module, record),
        ],
    )


if __name__ == "__main__":
    knobs_path, rounds_path = sys.argv[1:]
    flat = json.loads(Path(knobs_path).read_text())
    _play(Experiment.from_flat(flat), Record(Path(rounds_path)))
