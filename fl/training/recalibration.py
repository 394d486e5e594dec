"""BatchNorm's running statistics, measured anew."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fl.data import Batch
from fl.nn import train_without_noise
from fl.training.parameters import FlatNetwork


@torch.no_grad()
def recalibrate(network: FlatNetwork, batches: Iterable[Batch]) -> None:
    """Measure BatchNorm's running statistics anew, with the weights as they are.

    Each layer gets the mean and the (biased) variance of all values that reach it, while what is
    before it normalizes as in training, such as by the batch, but drops nothing. Derived (ours).

    Args:
        network: keeps its parameters, and gets new statistics.
        batches: at least one. Large ones, since evaluation stands in for all examples.
    """
    sums = {
        norm: torch.zeros(2, *norm.running_mean.shape, dtype=torch.float64)
        for norm in network.norms
    }

    def add(norm: nn.Module, arrived: tuple[Tensor]) -> None:
        values = arrived[0]
        but_channels = [dim for dim in range(values.dim()) if dim != 1]
        mean = values.mean(but_channels, keepdim=True)
        var = (values - mean).square().mean(but_channels).double().cpu()
        mean = mean.flatten().double().cpu()  # on its device 64 bits cost much, or are not there
        sums[norm] += len(values) * torch.stack([mean, var + mean**2])  # pyrefly: ignore

    hooks = [norm.register_forward_pre_hook(add) for norm in network.norms]
    examples = 0
    try:
        train_without_noise(network.module)
        with network.alone():
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
        norm.hold_statistics()
