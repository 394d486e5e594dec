"""One step of a client: correct the gradient, clip it, decay, and move the weights.

A step works on one network's vector of weights, or on a row for each of several clients at once.
The optimizers do the arithmetic of torch.optim, whose import takes a second. A round of
micro-batches makes thousands of tiny steps, so the number of calls matters, not the number of
multiplications: on one vector an optimizer takes one to six calls, whatever the number of layers.
A clip changes the gradient in place, and says what it did. No value is read from the device, so the
processor never waits for a GPU.
"""

from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from fl.config import Client, parse_clip
from fl.nn.layers.convs import StandardizedConv
from fl.training.parameters import FlatNetwork, Vector

Vectors = MutableMapping[str, Tensor]
"""Named vectors of a strategy's, as long as the weights, or with a row for each client."""
MOMENTUM = "optimizer.momentum"
"""The name among a client's vectors of SGD's velocity, with `client.carry-momentum`."""
Correction = Callable[[Vector, Vector, Vector, Vectors], None]
"""A strategy's client half: ``correct(gradient, weights, start, vectors)`` changes the gradient in
place."""
Bound = Callable[[Vector, Vector, Vector], None]
"""A correction of clients whose vectors it has: ``correct(gradient, weights, start)``."""


class Clipping(NamedTuple):
    """What a clip did to a gradient, for each lane."""

    norm: Float[Tensor, "*lanes"]
    """The 2-norm that the whole gradient had before."""
    share: Shaped[Tensor, "*lanes"] | None
    """0 where nothing was scaled, 1 where all was; None for a clip that scales nothing."""


class Steps:
    """A client's steps so far: each gradient's norm, and how much of it was clipped.

    Args:
        lane: of which lane the client's are; None where there are no lanes.
    """

    def __init__(self, lane: int | None = None) -> None:
        self.lane = lane
        self.taken: list[Clipping] = []
        """One a step; of all lanes, since nothing is read from a device between steps."""

    def figures(self) -> dict[str, Any]:
        """Return the fields of an `Outcome` that tell of steps; norms of no steps are 0."""
        norms = self._column([step.norm for step in self.taken])
        shares = self._column([step.share for step in self.taken if step.share is not None])
        # Between two norms nothing is interpolated, since one of them may be infinite.
        places = norms.new_tensor([0.1, 0.5, 0.9])
        quantiles = torch.quantile(norms, places, interpolation="lower").tolist()
        names = [f"gradient_norm_p{place}" for place in (10, 50, 90)]
        told = {"gradient_norm": float(norms.mean()), **dict(zip(names, quantiles, strict=True))}
        return {"steps": len(self.taken), **told, "clipped_share": float(shares.mean())}

    def _column(self, values: Sequence[Tensor]) -> Tensor:
        """Return this client's values, in float64; a 0 where there are none."""
        found = torch.stack(list(values)) if values else torch.zeros(1)
        return (found if self.lane is None or not values else found[:, self.lane]).double().cpu()


def with_vectors(correct: Correction | None, vectors: Vectors) -> Bound | None:
    """Return a correction of clients with these vectors, which it may change; None for None."""
    if correct is None:
        return None
    return lambda gradient, weights, start: correct(gradient, weights, start, vectors)


class Update:
    """Moves weights by one step, given their gradient: w <- w - lr·d(clip(g + correction) + λw).

    Args:
        network: the network whose weights are moved.
        client: learning rate, optimizer, clipping, weight decay.
        correct: the strategy's client half, or None.
        weights: the network's own, or a row for each of several clients.
        velocity: SGD's, with which it begins, and which is moved in place; None: zeros.
    """

    def __init__(
        self,
        network: FlatNetwork,
        client: Client,
        correct: Bound | None,
        weights: Vector,
        velocity: Vector | None = None,
    ) -> None:
        self.weights = weights
        self.client, self.correct = client, correct
        self.factors = network.rate_factors(client.activation_lr)
        self.clip = make_clip(client, network, weights)
        self.optimizer = make_optimizer(client, weights, velocity)
        self.decoupled = client.optimizer == "adamw"

    @torch.inference_mode()  # because gradients of traced passes are inference tensors
    def __call__(self, gradient: Vector, start: Vector) -> Clipping:
        """Correct, clip, decay, and step; return what the clip did.

        The order is that of PyTorch for a loss with the penalty in it: clipping sees the corrected
        gradient, but not weight decay. AdamW decays after its optimizer (arXiv 1711.05101).

        Args:
            gradient: has the shape of the weights, and is overwritten.
            start: the weights at the beginning of the round.
        """
        if self.correct is not None:
            self.correct(gradient, self.weights, start)
        clipping = self.clip(gradient)
        decay = self.client.weight_decay
        if decay and not self.decoupled:
            gradient.add_(self.weights, alpha=decay)
        direction = self.optimizer.direction(gradient)
        if decay and self.decoupled:
            direction = direction.add(self.weights, alpha=decay)
        if self.factors is not None:
            direction = direction * self.factors
        self.weights.add_(direction, alpha=-self.client.lr)
        return clipping

    def forget(self, lane: int) -> None:
        """Reset the optimizer's state of one row, for another client."""
        self.optimizer.forget(lane)


class SGD:
    """Stochastic gradient descent with momentum m: v <- m v + g, d = v (as torch.optim.SGD).

    Nesterov's follows where that velocity leads: d = g + m v.

    Args:
        client: the knobs; m is its momentum.
        like: the weights.
        velocity: v, which is moved in place; None: zeros.
    """

    def __init__(self, client: Client, like: Vector, velocity: Vector | None = None) -> None:
        self.momentum, self.nesterov = client.momentum, client.nesterov
        new = torch.zeros_like(like) if self.momentum and velocity is None else None
        self.velocity = new if velocity is None else velocity

    def direction(self, gradient: Vector) -> Vector:
        """Return g, or with momentum where it leads; the result may be `gradient` itself."""
        if self.velocity is None:
            return gradient
        self.velocity.mul_(self.momentum).add_(gradient)
        if self.nesterov:
            return gradient.add_(self.velocity, alpha=self.momentum)
        return self.velocity

    def forget(self, lane: int) -> None:
        """Reset one row, for another client."""
        if self.velocity is not None:
            self.velocity[lane] = 0


class Adam:
    """Adam (arXiv 1412.6980, algorithm 1): d = m̂ / (√v̂ + ε), β = (0.9, 0.999), ε = 1e-8.

    Args:
        like: the weights.
    """

    BETA1, BETA2, EPS = 0.9, 0.999, 1e-8

    def __init__(self, like: Vector) -> None:
        self.mean, self.square = torch.zeros_like(like), torch.zeros_like(like)
        # Powers of β are computed in float64, whatever type the weights have.
        self.steps = torch.zeros(*like.shape[:-1], 1, dtype=torch.float64, device=like.device)

    def direction(self, gradient: Vector) -> Vector:
        """Return the bias-corrected first moment over the root of the second."""
        self.steps += 1
        self.mean.lerp_(gradient, 1 - self.BETA1)
        self.square.mul_(self.BETA2).addcmul_(gradient, gradient, value=1 - self.BETA2)
        wanted = ((1 - self.BETA2**self.steps) ** -0.5).to(gradient.dtype)
        root = self.square.sqrt().mul_(wanted).add_(self.EPS)
        return self.mean.div(root).mul_((1 / (1 - self.BETA1**self.steps)).to(gradient.dtype))

    def forget(self, lane: int) -> None:
        """Reset one row, for another client."""
        self.mean[lane], self.square[lane], self.steps[lane] = 0, 0, 0


Optimizer = SGD | Adam
"""An optimizer holds its state between steps. Every local round makes a new one."""


def make_optimizer(client: Client, like: Vector, velocity: Vector | None = None) -> Optimizer:
    """Return a fresh optimizer for weights as the knobs ask for it; see `SGD` for the velocity."""
    return SGD(client, like, velocity) if client.optimizer == "sgd" else Adam(like)


Clip = Callable[[Vector], Clipping]
"""Clips a gradient in place, each lane's by itself."""


def make_clip(client: Client, network: FlatNetwork, weights: Vector) -> Clip:
    """Return the clip that the knobs ask for.

    Args:
        client: the knobs.
        network: the network whose weights are moved.
        weights: the network's own, or a row for each of several clients; gradients have the same
            shape.
    """
    kind, bound = parse_clip(client.clip)
    if kind == "agc":
        return AdaptiveClip(network, weights, bound)
    return partial(by_norm, bound=bound if kind == "norm" else None)


def by_norm(gradient: Vector, bound: float | None) -> Clipping:
    """Scale a gradient in place so that its 2-norm is at most `bound` (arXiv 1211.5063, alg. 1).

    The norm is that of the whole vector; without a bound nothing is scaled.
    """
    norm = torch.linalg.vector_norm(gradient, dim=-1)
    if bound is None:
        return Clipping(norm, None)
    factor = (bound / (norm + 1e-6)).clamp_(max=1)
    gradient.mul_(factor.unsqueeze(-1))
    return Clipping(norm, factor < 1)


class AdaptiveClip:
    """Adaptive gradient clipping (AGC) bounds each unit's gradient relative to its weights.

    For every unit i: where ‖G_i‖ ≥ λ·max(‖W_i‖, 1e-3), G_i becomes
    λ·max(‖W_i‖, 1e-3)/max(‖G_i‖, 1e-6)·G_i. A unit is the weights of one output: a row of a linear
    layer, a filter of a convolution. Of a parameter that is a vector (a bias, the gains of
    standardized weights, an activation's scalars) the whole is one unit. The last layer,
    `classifier`, is left as it is, weights and bias; where there is none, nothing is.

    What starts at 0, as the last gain of an NF-ResNet's branch, moves by 1e-3·λ a step at most: at
    small learning rates such branches stay closed for long.

    Source: arXiv 2102.06171, section 4.1, with the constants and the vectors of its authors' code.
    Where a gain is stored as (outputs, 1, 1, 1), timm's code clips it element by element; the
    authors' code treats it as a vector, and so does this one.

    Args:
        network: says what the units are.
        weights: as `make_clip`.
        bound: λ.
    """

    WEIGHT_FLOOR, GRADIENT_FLOOR = 1e-3, 1e-6

    def __init__(self, network: FlatNetwork, weights: Vector, bound: float) -> None:
        self.bound = bound
        layers = network.module.named_modules()
        gains = {f"{name}.gain" for name, layer in layers if isinstance(layer, StandardizedConv)}
        self.clipped = [
            (segment, 1 if len(segment.shape) < 2 or segment.name in gains else segment.shape[0])
            for segment in network.segments
            if not segment.name.startswith("classifier.")
        ]
        self.units = [units for _, units in self.clipped]
        self.weights = self._matrices(weights)
        self._last: tuple[Vector | None, list[Tensor]] = None, []

    @torch.no_grad()
    def __call__(self, gradient: Vector) -> Clipping:
        """Clip a gradient in place; the share is that of units."""
        # The views are kept for the next step: a network's gradient is always the same tensor.
        if self._last[0] is not gradient:
            self._last = gradient, self._matrices(gradient)
        gradients = self._last[1]
        norm = torch.linalg.vector_norm(gradient, dim=-1)
        limits = _rows(self.weights).clamp_(min=self.WEIGHT_FLOOR).mul_(self.bound)
        norms = _rows(gradients)
        scaled = limits / norms.clamp(min=self.GRADIENT_FLOOR)
        within = norms < limits
        factors = torch.where(within, 1.0, scaled).unsqueeze(-1).split(self.units, -2)
        for matrix, factor in zip(gradients, factors, strict=True):
            matrix.mul_(factor)
        return Clipping(norm, 1 - within.to(norm.dtype).mean(-1))

    def _matrices(self, vector: Vector) -> list[Tensor]:
        """Return the memory of a vector as one matrix a parameter, with a row a unit."""
        return [
            segment.of(vector, units, prod(segment.shape) // units)
            for segment, units in self.clipped
        ]


def _rows(matrices: list[Tensor]) -> Float[Tensor, "*lanes units"]:
    """Return the 2-norms of all rows of all matrices, next to one another."""
    return torch.cat([torch.linalg.vector_norm(matrix, dim=-1) for matrix in matrices], dim=-1)
