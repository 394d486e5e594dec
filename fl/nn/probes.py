"""Signal propagation: statistics of all outputs and gradients of a network in one batch.

The figures are those of signal propagation plots (arXiv 2101.08692, section 3), with the gradients
that the poster adds to them (Dewyse, JKU Linz, 2025; code MT_Normalizer_free_Neural_Nets,
`signal_logger.py`). For a tensor x with channels c:

* ACSM, average channel squared mean: mean_c (mean x_c)²;
* ACV, average channel variance: mean_c var x_c, divided by the count and not by one less.

The means within a channel go over examples and space. Where there is no space, (batch, units),
each unit is a channel, as a map of one pixel has it. The poster takes the mean of squares there,
which is ACSM + ACV. Channels come second, as whatever fills a slot has them: (batch, channels,
*space). Only linear layers have them last, and what is in between, such as tokens, is their space.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from fl.nn.foreign.observed import activation, as_found
from fl.nn.layers import activations
from fl.nn.layers.activations import Activation
from fl.nn.layers.convs import StandardizedConv
from fl.nn.layers.gains import PUBLISHED
from fl.nn.layers.merges import Merge
from fl.nn.layers.noise import train_without_noise
from fl.nn.layers.normalizers.batch_norm import BatchNorm

Kind = Literal["weights", "norm", "activation", "merge"]
Figure = float | list[float]

_NORMS = (BatchNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm)
_KINDS: dict[Kind, tuple[type[nn.Module], ...]] = {
    "weights": (nn.Conv1d, nn.Conv2d, nn.Conv3d, StandardizedConv, nn.Linear),
    "norm": _NORMS,
    "activation": (Activation, *PUBLISHED),
    "merge": (Merge,),
}
_SLOTS: tuple[Kind, ...] = ("norm", "activation")


@dataclass(frozen=True)
class Layer:
    """Statistics of one layer's output in one batch, and of the gradient with regard to it."""

    name: str
    """Name of the module, as in `named_modules()`."""
    kind: Kind
    """Convolution or linear layer, norm, activation, or where a residual branch is merged."""
    acsm: float
    """ACSM of the output."""
    acv: float
    """ACV of the output."""
    gradient_acsm: float
    """ACSM of the gradient of the loss with regard to the output."""
    gradient_acv: float
    """ACV of that gradient."""
    branch_acv: float | None
    """ACV of the residual branch that goes into a merge; None for other kinds."""
    dead: float | None
    """Share of an activation's channels whose output is constant over the batch; None for other
    kinds, and where a channel has one value only."""


@dataclass(frozen=True)
class Signals:
    """The measurements of a network in one batch."""

    images: int
    """How many images the batch has."""
    figures: np.ndarray
    """The figures of `Layer`, in its order, for each layer in order of execution: (layers, 6), NaN
    where a layer has none."""


def measure(
    network: nn.Module,
    inputs: Float[Tensor, "batch ..."],
    labels: Shaped[Tensor, "batch ..."],
    mean_loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> list[Layer]:
    """Measure a network in one batch, and leave it unchanged.

    There is one forward and one backward pass in training mode, without `Noise`; a norm by batch
    statistics takes those of this batch. Parameters and their
    gradients, buffers, counters, modes, hooks and torch's generators are afterwards as before,
    also where the network raises.

    Args:
        network: from inputs to logits.
        inputs: a batch, on the network's device.
        labels: its labels.
        mean_loss: (outputs, labels) -> the mean loss of the batch.

    Returns:
        A row for each call of a convolution, linear layer, norm, activation or merge, in the order
        of execution. A module named `norm` or `activation` counts as such, whatever its class, as
        does what `fl.nn.convert` put in such a place, and its parts are not measured; an
        `nn.Identity` is not measured, either.
    """
    readings: list[_Reading] = []
    with torch.enable_grad(), as_found(network), ExitStack() as hooks:
        train_without_noise(network)
        for name, module, kind in _measured(network):
            hook = _Hook(name, kind, readings)
            hooks.callback(module.register_forward_hook(hook).remove)
        # A copy that needs a gradient: each output has one then, and the caller's batch is safe.
        outputs = network(inputs.detach().requires_grad_().clone())
        edges = [reading.edge for reading in readings]
        loss = mean_loss(outputs, labels)
        gradients = torch.autograd.grad(loss, edges, allow_unused=True) if edges else ()
    return _layers(readings, gradients)


def weights(network: nn.Module) -> dict[str, dict[str, float]]:
    """Return mean and standard deviation over all weights of every convolution and linear layer.

    They are those of the stored parameters, also where a layer standardizes them before use. The
    deviation is divided by the count.
    """
    found = {
        name: p.detach()
        for prefix, layer in network.named_modules()
        if isinstance(layer, _KINDS["weights"])
        for name, p in layer.named_parameters(prefix, recurse=False)
        if name.rpartition(".")[2] == "weight"
    }
    moments = [torch.stack([w.mean(), w.std(correction=0)]) for w in found.values()]
    rows = torch.stack(moments).tolist() if moments else []
    return {name: {"mean": m, "std": s} for name, (m, s) in zip(found, rows, strict=True)}


def scalars(network: nn.Module) -> dict[str, Figure]:
    """Return the learnable scalars of activations as they are stored; a list for one a channel."""
    names = activations.scalars(network)
    return {name: p.tolist() for name, p in network.named_parameters() if name in names}


@dataclass(frozen=True)
class _Reading:
    """The figures of a layer's forward pass, as tensors, so that all can be read at once."""

    name: str
    kind: Kind
    channels_last: bool
    figures: Tensor
    """ACSM, ACV, the branch's ACV and the dead share; NaN where a kind has no such figure."""
    edge: GradientEdge
    """The output's place in the graph of autograd, which does not move when a later layer changes
    the output in place."""


@dataclass(frozen=True)
class _Hook:
    """Measures a module's output after each call."""

    name: str
    kind: Kind
    readings: list[_Reading]

    def __call__(self, module: nn.Module, args: Sequence[Tensor], output: Tensor) -> None:
        last = isinstance(module, nn.Linear) or getattr(module, "channels_last", False)
        signal = output.detach()
        branch = _moments(args[1].detach(), last)[1] if self.kind == "merge" else _unknown(signal)
        dead = _dead(signal, last) if self.kind == "activation" else _unknown(signal)
        figures = torch.stack([*_moments(signal, last), branch, dead])
        edge = get_gradient_edge(output)
        self.readings.append(_Reading(self.name, self.kind, last, figures, edge))


def _layers(readings: Sequence[_Reading], gradients: Sequence[Tensor | None]) -> list[Layer]:
    """Join forward and backward figures."""
    rows = []
    for reading, gradient in zip(readings, gradients, strict=True):
        if gradient is None:  # the loss does not depend on this output
            back = reading.figures.new_zeros(2)
        else:
            back = torch.stack(_moments(gradient, reading.channels_last))
        rows.append(torch.cat([reading.figures, back]))
    found = torch.stack(rows).tolist() if rows else []
    return [
        Layer(
            name=reading.name,
            kind=reading.kind,
            acsm=acsm,
            acv=acv,
            gradient_acsm=gradient_acsm,
            gradient_acv=gradient_acv,
            branch_acv=branch if reading.kind == "merge" else None,
            dead=None if dead != dead else dead,
        )
        for reading, (acsm, acv, branch, dead, gradient_acsm, gradient_acv) in zip(
            readings, found, strict=True
        )
    ]


def _measured(network: nn.Module) -> Iterator[tuple[str, nn.Module, Kind]]:
    """Yield the modules that are measured, with their names and kinds: slots, but not their parts.

    What fills a slot says so by its name or, in networks that are not ours, by `fl.nn.convert`.
    """
    within = "\n"
    for name, module in network.named_modules():
        if name.startswith(within):
            continue
        last = name.rpartition(".")[2]
        slot = getattr(module, "slot", last.rstrip("0123456789"))
        if getattr(module, "slot", last) in _SLOTS:
            within = f"{name}."
        kind = slot if slot in _SLOTS else _kind(module)
        if kind and not isinstance(module, nn.Identity):
            yield name, module, kind


def _kind(module: nn.Module) -> Kind | None:
    known = next((k for k, classes in _KINDS.items() if isinstance(module, classes)), None)
    return known or ("activation" if activation(module) else None)  # also timm's own


def _within(x: Tensor, channels_last: bool) -> list[int]:
    """Return the dimensions of x that are not its channels."""
    channels = x.ndim - 1 if channels_last else 1
    return [dim for dim in range(x.ndim) if dim != channels]


def _moments(x: Tensor, channels_last: bool) -> tuple[Tensor, Tensor]:
    """Return ACSM and ACV, in a tenth of the time of `torch.var_mean`.

    Signals that vanish or explode with depth have squares beyond float32, so these are summed in
    float64.
    """
    mean = x.mean(_within(x, channels_last), keepdim=True)
    centered = (x - mean).reshape(-1)
    squares = torch.dot(centered, centered).double()
    if not 1e-30 < squares < 1e30:
        squares = centered.double().square().sum()
    return mean.double().square().mean(), squares / x.numel()


def _dead(x: Tensor, channels_last: bool) -> Tensor:
    """Return the share of channels that are constant; NaN where each has one value only."""
    within = _within(x, channels_last)
    if all(x.shape[dim] == 1 for dim in within):
        return _unknown(x)
    return (x.amin(within) == x.amax(within)).double().mean()


def _unknown(x: Tensor) -> Tensor:
    return x.new_full((), torch.nan, dtype=torch.float64)
