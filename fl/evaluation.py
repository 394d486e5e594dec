"""What a network gets right, and BatchNorm's statistics measured for it."""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fl.data import Batch, Dataset, Split
from fl.flat import FlatNetwork
from fl.nn import train_without_noise


@torch.no_grad()
def evaluate(network: FlatNetwork, dataset: Dataset, split: Split) -> tuple[float, int]:
    """Return the mean cross-entropy in nats, and how many examples of a split come out right."""
    network.module.eval()
    loss, correct = 0.0, 0
    for inputs, labels in _spread(network, dataset, split):
        logits = network.module(inputs)
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        correct += int((logits.argmax(1) == labels).sum())
    return loss / len(split), correct


@torch.no_grad()
def recalibrate(network: FlatNetwork, batches: Iterable[Batch]) -> None:
    """Measure BatchNorm's running statistics anew, with the weights as they are.

    Each layer gets the mean and the (biased) variance of all values that reach it, while what is
    before it normalizes by the batch, as in training, but drops nothing. Derived (ours).

    Args:
        network: keeps its parameters, and gets new statistics.
        batches: at least one. Large ones, since evaluation stands in for all examples.
    """
    sums = {
        norm: torch.zeros(2, *norm.running_mean.shape, dtype=torch.float64)
        for norm in network.norms
    }

    def add(norm: nn.Module, arrived: tuple[Tensor]) -> None:
        values = arrived[0].transpose(0, 1).flatten(1).double().cpu()
        moments = torch.stack([values.mean(1), values.square().mean(1)])
        sums[norm] += len(arrived[0]) * moments  # pyrefly: ignore

    hooks = [norm.register_forward_pre_hook(add) for norm in network.norms]
    examples = 0
    try:
        train_without_noise(network.module)
        for inputs, labels in batches:
            network.module(inputs.to(network.weights.device))
            examples += len(labels)
    finally:
        for hook in hooks:
            hook.remove()
    for norm, total in sums.items():
        mean, square = total / examples
        norm.running_mean.copy_(mean)
        norm.running_var.copy_((square - mean**2).clamp_min(0))


def _spread(network: FlatNetwork, dataset: Dataset, split: Split) -> Iterator[Batch]:
    """Yield a split on a network's device in batches of up to 250, each spread over all of it.

    Where classes come one after another, a BatchNorm without running statistics would otherwise
    be told by the batch which class it is.
    """
    device, step = network.weights.device, -(-len(split) // 250)
    for start in range(step):
        images, labels = split.images[start::step], split.labels[start::step]
        yield dataset.inputs(images).to(device), labels.to(device)
