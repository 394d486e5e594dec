"""Builds networks that are not ours: what a user's callable makes, with a recipe's layers."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fl.config import Network
from fl.config.parsing import ConfigError
from fl.nn.convert import convert
from fl.nn.criticality import begin, targeted
from fl.nn.foreign.observed import as_found
from fl.nn.layers.noise import train_without_noise
from fl.nn.recipe import Recipe
from fl.reproducibility.errors import placed

Make = Callable[..., Any]
"""(shape of an example, classes, **options) -> network."""


def build(
    make: Make,
    network: Network,
    recipe: Recipe | str,
    shape: Sequence[int],
    classes: int,
    generator: torch.Generator,
) -> nn.Module:
    """Return a user's network with a recipe's layers.

    Its own initial weights are drawn from PyTorch's global generator, which is seeded for that by
    the given one, and put back. Parameters that it freezes become buffers, so no engine trains
    them.

    Args:
        make: the user's.
        network: its options, and which initial weights it gets; `init` is not `auto`.
        recipe: a recipe or its name, as for `convert`.
        shape: (channels, *space) of an example.
        classes: the number of classes.
        generator: draws the weights, and moves on.

    Raises:
        ConfigError: the callable or its network fails, or is not what it should be.
    """
    module = _made(make, network, tuple(shape), classes, generator)
    _check_parameters(network.kind, module)
    module = convert(module, recipe, shape=shape)
    if network.init != "own":
        begin(module, network.init, generator, shape, targeted(network.gain))  # pyrefly: ignore
    _freeze(module)
    _check_outputs(network.kind, module, torch.zeros(2, *shape), classes)
    return module


def _made(
    make: Make,
    network: Network,
    shape: tuple[int, ...],
    classes: int,
    generator: torch.Generator,
) -> nn.Module:
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            module = make(shape, classes, **network.given)
        except Exception as error:
            said = str(error) if isinstance(error, ConfigError) else placed(error)
            raise ConfigError(f"network.kind={network.kind}: {said}") from error
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"network.kind={network.kind} returns {type(module).__name__}, expected torch.nn.Module"
        )
    return module


def _check_parameters(kind: str, module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if is_lazy(parameter):
            raise ConfigError(f"network.kind={kind}: {name} is lazy; give its layer all sizes")
        if parameter.dtype != torch.float32:
            raise ConfigError(f"network.kind={kind}: {name} is {parameter.dtype}, not float32")


def _freeze(module: nn.Module) -> None:
    for layer in module.modules():
        for name, parameter in list(layer.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                delattr(layer, name)
                layer.register_buffer(name, parameter.detach())
    if not any(True for _ in module.parameters()):
        raise ConfigError("this network has no parameters that can be trained")


def _check_outputs(kind: str, module: nn.Module, inputs: Tensor, classes: int) -> None:
    """Refuse a network that does not return logits, in training or in evaluation."""
    for prepare in (train_without_noise, nn.Module.eval):
        try:
            with as_found(module), torch.no_grad():
                prepare(module)
                found = module(inputs)
        except Exception as error:
            raise ConfigError(
                f"network.kind={kind} fails on zeros {tuple(inputs.shape)}: {placed(error)}"
            ) from error
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if shape[:2] != (len(inputs), classes):
            raise ConfigError(
                f"network.kind={kind} returns {shape} for inputs {tuple(inputs.shape)}, expected "
                f"logits (batch, classes) = ({len(inputs)}, {classes})"
            )
