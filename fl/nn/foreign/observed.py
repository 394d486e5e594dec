"""One pass of an example through a network that we never saw: what its layers are and are given.

Layers are known by their class, or where a package has its own, as timm does, by their class's name
and attributes. Where a layer's input has its channels is not written anywhere, so it is looked at:
normalizers are tried, and an activation's input is laid out as the layer before it has it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fl.nn.initialization import WEIGHED

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leakyrelu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "rrelu": nn.RReLU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "gelutanh": nn.GELU,
    "quickgelu": nn.GELU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
    "softplus": nn.Softplus,
}
"""Activations by the names of classes and functions, without underscores. Gates, such as sigmoid,
are not among them: what stands for an activation does not stand for a gate."""
_NORMALIZERS = ("batchnorm", "groupnorm", "layernorm", "instancenorm", "rmsnorm")
"""Functions that normalize, likewise."""
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_BEHIND_A_NORM = frozenset({"drop", "act"})
"""Parts that timm's normalizers have, and apply in this order."""


def activation(module: nn.Module) -> type[nn.Module] | None:
    """Return PyTorch's class for an activation; None where a module is something else."""
    if any(True for _ in module.children()):
        return None
    return ACTIVATIONS.get(_plain(type(module).__name__))


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a normalizer whose shape is known."""
    known = isinstance(module, (*BATCH_NORMS, *_INSTANCE_NORMS, nn.GroupNorm, nn.LayerNorm))
    if not known and not (_says_norm(module) and hasattr(module, "normalized_shape")):
        return False
    return {name for name, _ in module.named_children()} <= _BEHIND_A_NORM


def is_strange_norm(module: nn.Module) -> bool:
    """Return whether a module seems to be a normalizer, but none that `is_norm` knows."""
    return _says_norm(module) and not is_norm(module) and not any(True for _ in module.children())


def _says_norm(module: nn.Module) -> bool:
    name = type(module).__name__.lower()
    return "norm" in name and "normaliz" not in name  # a layer that scales images is none


def standardizes(module: nn.Module) -> bool:
    """Return whether a module is a convolution that standardizes its own weights, as timm's do."""
    return isinstance(module, CONVOLUTIONS) and "StdConv" in type(module).__name__


@dataclass
class Seen:
    """What a pass has shown."""

    shapes: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    """The shapes of the inputs of each normalizer and activation, by its name, call by call."""
    axes: dict[str, int] = field(default_factory=dict)
    """Where these have their channels: 1, or -1."""
    functions: list[tuple[str, str, bool]] = field(default_factory=list)
    """Activations and normalizers that are functions, not modules: the name of the module that
    calls one, the function's name, and whether it normalizes."""
    activations: dict[str, type[nn.Module]] = field(default_factory=dict)
    """PyTorch's class for each activation that was called."""
    output: Any = None
    """What the network returned."""

    def channels(self, name: str) -> list[int]:
        """Return how many channels a layer has been given, each number once."""
        axis = self.axes[name]
        return list(dict.fromkeys(shape[axis] for shape in self.shapes[name]))


def observe(module: nn.Module, inputs: Tensor) -> Seen:
    """Pass inputs through a network in evaluation mode, and leave it unchanged.

    Raises:
        Exception: whatever the network raises.
    """
    seen = Seen()
    looking, names = _Looking(seen), dict(module.named_modules())
    with ExitStack() as stack:
        stack.enter_context(as_found(module))
        module.eval()
        for name, layer in names.items():
            stack.callback(layer.register_forward_pre_hook(looking.enter(name)).remove)
            stack.callback(layer.register_forward_hook(looking.leave(name)).remove)
        with torch.no_grad(), _Functions(looking):
            seen.output = module(inputs)
    return seen


class _Looking:
    """Notes down what layers are given, and which of them is at work."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.within: list[tuple[str, nn.Module]] = []
        self.layouts: dict[object, int] = {}
        """Where the last outputs of a shape, or of so many dimensions, had their channels."""

    def enter(self, name: str) -> Callable[[nn.Module, tuple], None]:
        def hook(layer: nn.Module, args: tuple) -> None:
            self.within.append((name, layer))
            if args and isinstance(args[0], Tensor):
                self.arrive(name, layer, args[0])

        return hook

    def arrive(self, name: str, layer: nn.Module, x: Tensor) -> None:
        if is_norm(layer):
            self.seen.axes[name] = _axis(layer, x)
        elif kind := activation(layer):
            self.seen.activations[name] = kind
            known = self.layouts.get(x.shape, self.layouts.get(x.ndim, 1))
            self.seen.axes[name] = 1 if x.ndim < 3 else known
        else:
            return
        self.seen.shapes.setdefault(name, []).append(tuple(x.shape))

    def leave(self, name: str) -> Callable[[nn.Module, tuple, object], None]:
        def hook(layer: nn.Module, args: tuple, output: object) -> None:
            self.within.pop()
            if isinstance(output, Tensor) and (is_norm(layer) or isinstance(layer, WEIGHED)):
                axis = -1 if isinstance(layer, nn.Linear) else self.seen.axes.get(name, 1)
                self.layouts[output.shape] = self.layouts[output.ndim] = axis

        return hook

    def call(self, function: str) -> None:
        """Note down a function, unless a layer that is to be replaced calls it."""
        name, layer = self.within[-1] if self.within else ("", nn.Identity())
        if is_norm(layer) or activation(layer) or standardizes(layer):
            return
        plain = _plain(function)
        normalizes = plain in _NORMALIZERS
        found = (name, function.rstrip("_"), normalizes)
        if (normalizes or plain in ACTIVATIONS) and found not in self.seen.functions:
            self.seen.functions.append(found)


class _Functions(TorchFunctionMode):
    """Sees every function of PyTorch that is called, in whatever way."""

    def __init__(self, looking: _Looking) -> None:
        super().__init__()
        self.looking = looking

    def __torch_function__(
        self,
        func: Callable,
        types: Sequence[type],
        args: tuple = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        self.looking.call(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


def _axis(norm: nn.Module, x: Tensor) -> int:
    """Return where a normalizer has its channels: 1, or -1.

    A layer normalization over one dimension is given an input whose second dimension alone has that
    size; if it takes that, the channels come second.
    """
    shape = getattr(norm, "normalized_shape", ())
    if len(shape) != 1 or x.ndim < 3 or x.shape[1] != shape[0]:
        return -1 if len(shape) == 1 and x.ndim > 2 else 1
    if x.shape[-1] != shape[0]:
        return 1
    other = 1 if shape[0] != 1 else 2
    try:
        norm.forward(x.new_zeros(1, shape[0], *[other] * (x.ndim - 2)))
    except (RuntimeError, ValueError, AssertionError):
        return -1
    return 1


@contextmanager
def as_found(network: nn.Module) -> Iterator[None]:
    """Restore afterwards what a pass changes: attributes, buffers, PyTorch's generators."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    with noted_down_nothing(network):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, found in buffers:
                    buffer.copy_(found)


@contextmanager
def noted_down_nothing(network: nn.Module) -> Iterator[None]:
    """Restore afterwards attributes and PyTorch's generators, but neither weights nor buffers."""
    attributes = [(module, dict(vars(module))) for module in network.modules()]
    devices = {p.device.index for p in network.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            for module, found in attributes:
                vars(module).clear()
                vars(module).update(found)
