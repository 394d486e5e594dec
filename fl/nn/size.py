"""How large a network of ours would be, before any memory is taken for it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from fl.reproducibility.machine import check_fits, free_memory, size

MOST_LAYERS = 10_000
"""Layers of a network, at the most. As many were trained once (arXiv 1806.05393). Building takes a
millisecond a layer or more, so a slip of the pen would be silent for hours."""
_BYTES = 4
_HELD = 2
"""Vectors as long as a network: weights and gradients."""
_SECONDS = 0.3
_NFNET_BLOCKS = 12
"""Blocks of NFNet-F0; each later variant has as many more (arXiv 2102.06171, table 1)."""


def check_size(
    words: str, make: Callable[[], nn.Module], depth: int, width: int, ends: tuple[int, int]
) -> None:
    """Refuse a network of ours whose weights and gradients this machine's memory does not hold.

    Three looks, of which most networks need the first: a bound that no network of its depth and
    width exceeds; every unit of the first stage has a weight; the network itself, built without
    memory.

    Args:
        words: the knobs that say how large it is.
        make: builds it.
        depth: layers.
        width: channels of the first stage.
        ends: values of an example, and classes.

    Raises:
        ConfigError: it does not fit, or has more than `MOST_LAYERS` layers.
    """
    if depth > MOST_LAYERS:
        raise ValueError(
            f"{words}: networks of more than {MOST_LAYERS:,} layers are not built; lower "
            "network.depth"
        )
    # The last stage has at most 8 times the channels of the first, and kernels at most 27 places.
    most = (64 * 27 * depth * width + 64 * sum(ends) + prod(ends)) * width * _BYTES
    if _HELD * most <= free_memory() // 4:
        return
    check_fits(f"{words}: weights of at least", width * _BYTES, "lower network.width")
    found, whole = _weights(make)
    check_held(f"{words}: ", found, "" if whole else "at least ")


def check_held(words: str, weights: int, least: str = "") -> None:
    """Refuse a network with so many weights that a run can't hold them and their gradients.

    Args:
        words: begin the line.
        weights: how many it has.
        least: says so where it has more.

    Raises:
        ConfigError: memory does not hold them.
    """
    needed = weights * _BYTES
    what = f"{words}weights of {least}{size(needed)}, and with their gradients"
    check_fits(what, _HELD * needed, "take a smaller network")


def layers(kind: str, number: int) -> int:
    """Return the layers of a network, given its kind and its depth as a number."""
    return _NFNET_BLOCKS * (number + 1) if kind == "nfnet" else number


class _EnoughError(Exception):
    """As many weights as need be known, or as much time as there is."""


def _weights(make: Callable[[], nn.Module]) -> tuple[int, bool]:
    """Return the weights of a network that is built without memory, and whether that is all."""
    end, found = time.process_time() + _SECONDS, dict[tuple[nn.Module, str], int]()

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        found[module, name] = prod(parameter.shape)  # a layer may be given another in its place
        if time.process_time() > end:
            raise _EnoughError

    try:
        with _told_of_parameters(count), torch.device("meta"):
            return sum(p.numel() for p in make().parameters()), True
    except _EnoughError:
        return sum(found.values()), False
    except (RuntimeError, TypeError, OverflowError):  # more than tensors can have
        return max(sum(found.values()), 2**61), False


@contextmanager
def _told_of_parameters(hook: Callable[[nn.Module, str, nn.Parameter], None]) -> Iterator[None]:
    handle = register_module_parameter_registration_hook(hook)
    try:
        yield
    finally:
        handle.remove()
