"""Normalizers that see one value a group, of which they leave nothing: found before training."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from math import prod

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fl.config.parsing import ConfigError
from fl.nn.foreign.observed import as_found


def check_groups(network: nn.Module, shape: Sequence[int], recipe: str) -> None:
    """Refuse a network in which a normalizer sees one value a group, whatever the batch is.

    One value is its own mean, so what is left of it is 0 (of a root mean square, its sign), and the
    layers behind it learn without what is in front. For an example (channels, *space) a group has

    * group normalization: channels / groups · pixels,
    * instance normalization: pixels,
    * layer and root-mean-square normalization: the values of their normalized shape.

    BatchNorm is not among them: its values depend on the batch, see `fl.nn.BatchNorm`. Layers are
    known by the functions of PyTorch that they call, so those of a user's network are found too.

    Args:
        network: in any mode, which it keeps.
        shape: (channels, *space) of an example.
        recipe: what the experiment calls its recipe.

    Raises:
        ConfigError: there is such a layer; the line names the first.
    """
    found = _passed(network, shape)
    if found is None:
        return
    name, given = found
    sides = "x".join(map(str, given[2:]))
    maps = f"{given[1]} channels, maps of {sides}" if sides else f"{given[1]} channels"
    size = "x".join(map(str, shape[1:]))
    raise ConfigError(
        f"recipe={recipe}: the normalizer {name or 'in forward'} sees one value a group ({maps}), "
        f"whose mean is itself, so nothing of an example is left; examples are {size}: take larger "
        "ones, a network that shrinks them less (network.stem-stride, network.depth), or another "
        "recipe"
    )


def _passed(network: nn.Module, shape: Sequence[int]) -> tuple[str, tuple[int, ...]] | None:
    """Return the first layer that is given single values in a pass, and the shape of its input."""
    within: list[str] = []

    def enter(name: str) -> Callable[[nn.Module, tuple], None]:
        return lambda layer, args: within.append(name)

    def leave(layer: nn.Module, args: tuple, output: object) -> None:
        within.pop()

    with ExitStack() as stack:
        stack.enter_context(as_found(network))
        network.eval()
        for name, layer in network.named_modules():
            stack.callback(layer.register_forward_pre_hook(enter(name)).remove)
            stack.callback(layer.register_forward_hook(leave).remove)
        stack.enter_context(torch.no_grad())
        stack.enter_context(_Looking())
        try:
            network(next(network.parameters()).new_zeros(1, *shape))
        except _SingleError as error:
            return within[-1], error.shape
        except Exception:  # a bug that the run itself will meet and tell, with the user's line
            return None
    return None


class _SingleError(Exception):
    """A normalizer is given single values. PyTorch itself refuses some of these."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape


class _Looking(TorchFunctionMode):
    """Sees every function of PyTorch that a network calls, and stops at one of single values."""

    def __torch_function__(
        self,
        func: Callable,
        types: Sequence[type],
        args: tuple = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        name, given = getattr(func, "__name__", ""), kwargs or {}
        if name in _GROUPS:
            values: list = [*args, *given.values()]
            x, second = values[:2]
            if _GROUPS[name](x, second) == 1:
                raise _SingleError(tuple(x.shape))
        return func(*args, **given)


def _by_shape(x: Tensor, shape: Sequence[int]) -> int:
    return prod(shape)


_GROUPS: Mapping[str, Callable] = {
    "group_norm": lambda x, groups: x[0].numel() // groups,
    "instance_norm": lambda x, _: x[0, 0].numel(),
    "layer_norm": _by_shape,
    "rms_norm": _by_shape,
}
"""Values a group of what a function of PyTorch gets, by the function's name."""
