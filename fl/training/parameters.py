"""A network as one vector of weights, on which training, penalties and norms work."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.data import Form, load
from fl.nn import (
    BatchNorm,
    Noise,
    breaks_onednn,
    build,
    chosen_recipe,
    forget_statistics,
    has_groups,
    scalars,
    seed_noise,
)
from fl.nn.foreign.observed import noted_down_nothing
from fl.nn.size import check_held
from fl.tasks import objective

Vector = Float[Tensor, "*lanes weights"]
"""All weights of a network, or one such row for each of several networks. Functions of a `Vector`
treat each row by itself."""


def build_network(
    knobs: Experiment, generator: torch.Generator, form: Form | None = None
) -> "FlatNetwork":
    """Build an experiment's network on its device, with initial weights from a generator.

    Args:
        knobs: the experiment.
        generator: draws the initial weights.
        form: shape and classes of the examples; None: those of the experiment's data set.

    Raises:
        ConfigError: the recipe, the skeleton's size or the device does not exist.
    """
    form = form or load(knobs).form
    try:
        recipe, make = chosen_recipe(knobs), knobs.component("network.kind")
        outputs = objective(knobs).task.outputs(form.classes)
        module = build(knobs.network, recipe, form.shape, outputs, generator, make)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    held = sum(p.numel() for p in module.parameters())
    check_held(f"network.kind={knobs.network.kind}: ", held)
    if knobs.state.bn == "drop":
        forget_statistics(module)
    return FlatNetwork(module, _device(knobs.device), foreign=make is not None)


def as_shared(knobs: Experiment) -> Experiment:
    """Return the experiment whose network is what clients share: without what stays with them."""
    without = {"state.bn": "drop", "state.fixed-from": 0}
    return knobs.replace(without) if knobs.state.keeps_statistics else knobs


def keeps(knobs: Experiment) -> bool:
    """Return whether anything of a network stays with each client."""
    return knobs.state.bn == "local" or knobs.state.local != "none"


@dataclass(frozen=True)
class Segment:
    """The part of a vector of weights that holds one parameter."""

    name: str
    start: int
    shape: tuple[int, ...]

    def of(self, vector: Vector, *shape: int) -> Tensor:
        """Return this part of every row, as a view of the parameter's shape or of a given one."""
        part = vector[..., self.start : self.start + prod(self.shape)]
        return part.view((*vector.shape[:-1], *(shape or self.shape)))


class FlatNetwork:
    """A network whose parameters live in one vector and whose gradients live in another.

    Args:
        module: any network; its parameters become views of `weights`, in the module's order.
        device: where it trains.
        foreign: whether the network is a user's, which may draw and note down what it wants.
    """

    def __init__(self, module: nn.Module, device: torch.device, *, foreign: bool = False) -> None:
        self.foreign = foreign
        self._noise: torch.Generator | None = None
        self._largest: dict[tuple[int, ...], int] = {}
        # The first backward pass on a GPU warns if it begins with a product of matrices, so one
        # of a single number goes before it.
        if device.type == "cuda":
            torch.ones((), device=device, requires_grad=True).exp().backward()
        self.module = module.to(device)
        self.weights = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
        self.gradient = torch.zeros_like(self.weights)
        self.segments: list[Segment] = []
        self.buffers = dict(module.named_buffers())
        """The network's buffers, such as running statistics, by name."""
        self._tensors: dict[str, Tensor] = dict(module.state_dict(keep_vars=True))
        start = 0
        for name, parameter in module.named_parameters():
            segment = Segment(name, start, tuple(parameter.shape))
            self.segments.append(segment)
            parameter.data = segment.of(self.weights)
            parameter.grad = segment.of(self.gradient)
            start += parameter.numel()

    @cached_property
    def _on_cpu(self) -> tuple[Vector, dict[str, Tensor]]:
        """Weights and tensors on the CPU: the network's own, or copies to load a GPU from."""
        if self.weights.device.type == "cpu":
            return self.weights, self._tensors
        weights = torch.empty_like(self.weights, device="cpu")
        return weights, self._tensors | {part.name: part.of(weights) for part in self.segments}

    @cached_property
    def _breaks_onednn(self) -> bool:
        return breaks_onednn(self.module)

    @contextmanager
    def convolving(self, onednn: bool = True) -> Iterator[None]:
        """Use oneDNN's convolutions, or PyTorch's own, as always where oneDNN has a bug."""
        before = torch.backends.mkldnn.enabled
        torch.backends.mkldnn.enabled = before and onednn and not self._breaks_onednn  # pyrefly: ignore
        try:
            yield
        finally:
            torch.backends.mkldnn.enabled = before

    @cached_property
    def drops(self) -> bool:
        """Whether training drops something at random."""
        return self.foreign or any(isinstance(part, Noise) for part in self.module.modules())

    def seed(self, generator: torch.Generator) -> None:
        """Let all that is dropped in training from here on be drawn from a generator."""
        seed_noise(self.module, generator)
        self._noise = generator

    @contextmanager
    def alone(self, *, training: bool = False) -> Iterator[None]:
        """Let a user's network draw from PyTorch's generator what does not depend on anyone else.

        In training it is seeded by the client's generator, else by 0. Afterwards it is as before,
        and so are the attributes of the network's layers.
        """
        if not self.foreign:
            yield
            return
        with noted_down_nothing(self.module):
            drawn = training and self._noise is not None
            seed = torch.randint(2**63 - 1, (), generator=self._noise) if drawn else 0
            torch.manual_seed(int(seed))
            yield

    @cached_property
    def norms(self) -> list[BatchNorm]:
        """The network's BatchNorm layers."""
        return [layer for layer in self.module.modules() if isinstance(layer, BatchNorm)]

    @cached_property
    def grouped(self) -> bool:
        """Whether a convolution of the network has groups."""
        return has_groups(self.module)

    @cached_property
    def mixes_examples(self) -> bool:
        """Whether evaluation normalizes by the batch, by BatchNorm without running statistics."""
        return any(
            (isinstance(layer, BatchNorm) or "batchnorm" in type(layer).__name__.lower())
            and getattr(layer, "running_mean", None) is None
            for layer in self.module.modules()
        )

    def largest_output(self, shape: Sequence[int]) -> int:
        """Return how many values the largest output of a layer has for an example of a shape.

        It is looked at once, on zeros. An example of which there is nothing to say counts itself.
        """
        if (found := self._largest.get(key := tuple(shape))) is None:
            found = self._largest[key] = max(1, prod(key), *self._output_sizes(key))
        return found

    def _output_sizes(self, shape: tuple[int, ...]) -> list[int]:
        sizes, was = [0], self.module.training

        def note(module: nn.Module, inputs: object, outputs: object) -> None:
            several = outputs if isinstance(outputs, tuple | list) else [outputs]
            sizes.extend(one.numel() for one in several if isinstance(one, Tensor))

        handles = [layer.register_forward_hook(note) for layer in self.module.modules()]
        try:
            with torch.no_grad(), self.alone(), suppress(Exception):  # it will be met in earnest
                self.module.eval()(torch.zeros(1, *shape, device=self.weights.device))
        finally:
            self.module.train(was)
            for handle in handles:
                handle.remove()
        return sizes

    def load(self, state: Mapping[str, Tensor | np.ndarray]) -> None:
        """Overwrite every parameter and buffer, so that nothing of the last client remains.

        Raises:
            ValueError: the names or shapes are not this network's.
        """
        if state.keys() != self._tensors.keys():
            odd = sorted(state.keys() ^ self._tensors.keys())
            raise ValueError(f"the state's tensors are not this network's; different: {odd[:3]}")
        weights, tensors = self._on_cpu
        with torch.no_grad():
            for name, tensor in tensors.items():
                found, wanted = tuple(state[name].shape), tuple(tensor.shape)
                if found != wanted:
                    raise ValueError(f"{name} has shape {found}, expected {wanted}")
                _fill(tensor, state[name])
            self.weights.copy_(weights)
        for norm in self.norms:
            norm.hold_statistics()

    def tensors(self) -> dict[str, Tensor]:
        """Return all parameters and buffers on the CPU; valid until the next call or change."""
        weights, tensors = self._on_cpu
        weights.copy_(self.weights)
        return {name: tensor.detach().cpu() for name, tensor in tensors.items()}

    def state(self) -> dict[str, Tensor]:
        """Return copies of all parameters and buffers, on the CPU."""
        return {name: tensor.clone() for name, tensor in self.tensors().items()}

    def rate_factors(self, activation_lr: float) -> Vector | None:
        """Return a factor per weight on the learning rate; None where all are 1."""
        if activation_lr == 1:
            return None
        chosen = scalars(self.module)
        return torch.cat(
            [
                torch.full((p.numel(),), activation_lr if name in chosen else 1.0)
                for name, p in self.module.named_parameters()
            ]
        ).to(self.weights.device)


def _fill(tensor: Tensor, values: Tensor | np.ndarray) -> None:
    """Overwrite a tensor by one copy, also where an array is read-only."""
    if isinstance(values, Tensor):
        tensor.copy_(values)
    elif tensor.device.type == "cpu":
        np.copyto(tensor.detach().numpy(), values, casting="unsafe")  # as `copy_` does
    else:
        tensor.copy_(torch.tensor(values))


def device_name(network: FlatNetwork) -> str:
    """Return the name of the device that a network trains on: `cpu`, or the name of the GPU."""
    device = network.weights.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch sees no CUDA device here; use device=cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
