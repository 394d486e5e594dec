"""The gradients of many clients in one forward and backward pass."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from fl.nn import padded
from fl.tasks import PLAIN
from fl.tasks.task import Loss
from fl.training.parameters import FlatNetwork
from fl.training.step import by_norm
from fl.vectorized.operators import Operators, unavailable_reason

Rows = Float[Tensor, "lanes weights"]
PerLane = Float[Tensor, " lanes"]


class Examples(NamedTuple):
    """A batch for every lane."""

    inputs: Float[Tensor, "lanes batch channels *space"]
    labels: Shaped[Tensor, "lanes batch ..."]
    example_weights: Float[Tensor, "lanes batch"]
    """The weight of each example in its lane's loss: 1 over the size of the lane's batch, and 0 for
    an example that only pads the batch."""
    real: Float[Tensor, " lanes"]
    """How many examples of each lane are real. They come first, and the others pad the batch."""
    own: Shaped[Tensor, "lanes ..."] | None = None
    """What the loss has to know of each lane's client, see `fl.tasks.Task.own`."""

    def tensors(self) -> tuple[Tensor, ...]:
        """Return those that there are."""
        return self[:4] if self.own is None else tuple(self)  # pyrefly: ignore


@runtime_checkable
class LaneGradients(Protocol):
    """Differentiates the losses of lanes by their weights: `Gradients` and `TracedGradients`."""

    def rows(self, busy: int) -> int:
        """Return over how many lanes a pass is made where so many of them are busy."""
        ...

    def __call__(
        self, weights: Rows, buffers: Mapping[str, Tensor], examples: Examples
    ) -> tuple[PerLane, Rows]:
        """Return losses and gradients; moves the buffers, a row for each lane, in place."""
        ...


class Gradients:
    """Differentiates the losses of K lanes by their weights, for any network that vmap can take.

    For lane k, ``L_k = Σ_b share_kb · loss(f(x_kb; w_k), y_kb)`` and ``dL_k/dw_k``, where share_kb
    is the example's weight. BatchNorm takes its statistics from a lane's real examples. The
    network's own weights are neither read nor changed.

    Args:
        network: f, and where in a row of weights its parameters lie.
        native: whether our operators replace PyTorch's, see `fl.vectorized.operators`.
        loss: of each example, for `torch.vmap`.

    Raises:
        RuntimeError: our operators can't be built here.
    """

    def __init__(self, network: FlatNetwork, native: bool = False, loss: Loss = PLAIN.loss) -> None:
        self.loss = loss
        self.module, self.segments = network.module, network.segments
        self.norms = network.norms
        if native and (reason := unavailable_reason()):
            raise RuntimeError(reason)
        self.operators = Operators if native else nullcontext

    def rows(self, busy: int) -> int:
        """Return the number of busy lanes: any number can be passed over."""
        return busy

    def __call__(
        self, weights: Rows, buffers: Mapping[str, Tensor], examples: Examples
    ) -> tuple[PerLane, Rows]:
        """Return losses and gradients; moves the buffers, a row for each lane, in place."""
        parts = {s.name: s.of(weights.detach()).requires_grad_() for s in self.segments}
        # Fused kernels of attention have no rule for vmap, so attention is plain products.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), self.operators():
            losses = torch.vmap(self._loss)(parts, dict(buffers), *examples.tensors())
            # A lane's loss depends on its own weights only, so the gradient of the sum of losses
            # has every lane's own gradient in its row. Parameters that no loss depends on get 0.
            found = torch.autograd.grad(losses.sum(), list(parts.values()), materialize_grads=True)
        return losses.detach(), torch.cat([part.reshape(len(part), -1) for part in found], dim=1)

    def _loss(
        self,
        weights: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        inputs: Tensor,
        *others: Tensor,
    ) -> Tensor:
        """Return the loss of one lane; `torch.vmap` adds the dimension of lanes."""
        labels, example_weights, real, *own = others
        with padded(self.norms, real, len(inputs)):
            outputs = functional_call(self.module, (weights, buffers), (inputs,))  # pyrefly: ignore
        return self.loss(outputs, labels, *own) @ example_weights


def without_side_effects(
    gradients: LaneGradients, names: Sequence[str]
) -> Callable[..., tuple[Tensor, ...]]:
    """Return a pass that changes none of its arguments: moved buffers are returned, last.

    Args:
        gradients: does the pass.
        names: of the buffers.

    Returns:
        (weights, *examples, *buffers) -> losses, gradients, *new buffers; see `Examples.tensors`.
    """

    def run(*arguments: Tensor) -> tuple[Tensor, ...]:
        first = len(arguments) - len(names)
        moved = {name: b.clone() for name, b in zip(names, arguments[first:], strict=True)}
        weights, *examples = arguments[:first]
        return *gradients(weights, moved, Examples(*examples)), *moved.values()

    return run


class ClippedGradients:
    """Differentiates lanes as `fl.training.per_example`, without the noise, which is each client's.

    For lane k, ``Σ_b share_kb · clip(dL_kb/dw_k, C)``. Each example gets a row of weights, as if it
    were a lane with a batch of one, so memory has B rows of weights a lane.

    Args:
        gradients: differentiates the rows; of a network that moves no buffers.
        clip: C.
    """

    def __init__(self, gradients: Gradients, clip: float) -> None:
        self.gradients, self.clip = gradients, clip

    def rows(self, busy: int) -> int:
        """Return the number of busy lanes, as `Gradients` does."""
        return self.gradients.rows(busy)

    def __call__(
        self, weights: Rows, buffers: Mapping[str, Tensor], examples: Examples
    ) -> tuple[PerLane, Rows]:
        """Return losses and clipped gradients; the buffers stay as they are."""
        shares = examples.example_weights
        lanes, size = shares.shape
        each = Examples(
            examples.inputs.flatten(0, 1).unsqueeze(1),
            examples.labels.flatten(0, 1).unsqueeze(1),
            torch.ones_like(shares).view(-1, 1),
            torch.ones_like(shares).view(-1),
            None if examples.own is None else examples.own.repeat_interleave(size, 0),
        )
        noted = {name: buffer.repeat_interleave(size, 0) for name, buffer in buffers.items()}
        losses, found = self.gradients(weights.repeat_interleave(size, 0), noted, each)
        by_norm(found, self.clip)
        mean = torch.einsum("kbw,kb->kw", found.view(lanes, size, -1), shares)
        return (losses.view(lanes, size) * shares).sum(1), mean
