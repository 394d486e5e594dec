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
    found: dict[nn.Module, tuple[int, Tensor, Tensor]] = {}

    def add(norm: nn.Module, arrived: tuple[Tensor]) -> None:
        values = arrived[0].to(torch.promote_types(arrived[0].dtype, torch.float32))
        but_channels = [dim for dim in range(values.dim()) if dim != 1]
        mean = values.mean(but_channels, keepdim=True)
        var = (values - mean).square().mean(but_channels).cpu().double()
        new = values.numel() // mean.numel(), mean.flatten().cpu().double(), var
        found[norm] = _joined(found[norm], new) if norm in found else new

    hooks = [norm.register_forward_pre_hook(add) for norm in network.norms]
    try:
        train_without_noise(network.module)
        with network.alone():
            for inputs, _ in batches:
                network.module(inputs.to(network.weights.device))
    finally:
        for hook in hooks:
            hook.remove()
    for norm in network.norms:
        if norm in found:  # else no example comes by it
            _, mean, var = found[norm]
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(var)
        norm.hold_statistics()


def _joined(
    one: tuple[int, Tensor, Tensor], other: tuple[int, Tensor, Tensor]
) -> tuple[int, Tensor, Tensor]:
    """Return number, mean and variance of two groups of values together, given those of each.

    With a share s in the second group: v = (1 - s) v₁ + s v₂ + s (1 - s) (m₂ - m₁)². Sums of
    squares would lose a small variance far from 0.
    """
    (count, mean, var), (more, mean_of_more, var_of_more) = one, other
    share, apart = more / (count + more), mean_of_more - mean
    joined = (1 - share) * var + share * var_of_more + share * (1 - share) * apart**2
    return count + more, mean + share * apart, joined
