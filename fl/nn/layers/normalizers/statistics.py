"""The running statistics of a network's BatchNorm layers: forgotten, fixed, and by name."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from fl.config import State
from fl.nn.layers.normalizers.batch_norm import BatchNorm


def forget_statistics(module: nn.Module) -> None:
    """Remove the running statistics of every BatchNorm layer of a network."""
    for norm in _batch_norms(module).values():
        norm.forget_statistics()


@contextmanager
def fixed_statistics(module: nn.Module, fixed: bool = True) -> Iterator[None]:
    """Let every BatchNorm layer of a network train by its running statistics, which don't move.

    Scale and shift keep learning. Source: FixBN, arXiv 2303.06530, its second stage.

    Args:
        module: a network.
        fixed: with False, nothing changes.
    """
    norms = list(_batch_norms(module).values())
    for norm in norms:
        norm.fixed = fixed
    try:
        yield
    finally:
        for norm in norms:
            norm.fixed = False


def fixed_in(state: State, number: int) -> bool:
    """Return whether BatchNorm's statistics are fixed in the round of that number, as in FixBN."""
    return 0 < state.fixed_from <= number


def moments(module: nn.Module) -> dict[str, str]:
    """Map the name of every running variance in a network's state to that of its running mean."""
    return {
        f"{name}running_var": f"{name}running_mean"
        for name, norm in _batch_norms(module).items()
        if norm.remembers
    }


def statistics(module: nn.Module) -> list[str]:
    """Return the names of all running means and variances in a network's state."""
    return [name for pair in moments(module).items() for name in pair]


def _batch_norms(module: nn.Module) -> dict[str, BatchNorm]:
    """Return the BatchNorm layers of a network by the prefix of their names in its state."""
    found = {name: layer for name, layer in module.named_modules() if isinstance(layer, BatchNorm)}
    return {f"{name}." if name else "": layer for name, layer in found.items()}
