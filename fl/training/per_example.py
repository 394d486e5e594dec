"""Per-example clipping, as in DP-SGD (arXiv 1607.00133, algorithm 1).

The gradient of a batch of B examples is ``(Σ_b clip(g_b, C) + N(0, σ²C²)) / B``, where g_b is the
gradient of one example's loss and ``clip(g, C) = g · min(1, C / (‖g‖ + 1e-6))``: no example moves
the sum by more than C. That says something only of networks in which an example's output is a
function of that example alone, so others are refused.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fl.config import Experiment, Privacy
from fl.config.parsing import ConfigError
from fl.data import Form
from fl.reproducibility.seeds import Step, torch_stream
from fl.training.parameters import FlatNetwork, Vector
from fl.training.step import by_norm


def noise_stream(knobs: Experiment, path: Sequence[Step]) -> torch.Generator:
    """Return the generator of a client's noise in a round, from which its steps draw in turn.

    With `privacy.noise-from=system` nobody can repeat it.
    """
    if knobs.privacy.noise_from == "system":
        return torch.Generator().manual_seed(secrets.randbits(63))
    return torch_stream(knobs.seeds["order"], *path, "per-example")


def noise_of(privacy: Privacy, generator: torch.Generator, like: Vector) -> Tensor:
    """Return the noise of one client's step, N(0, σ²C²) for each weight: (weights,).

    It is drawn in float32, so that a network in float64 gets the same.
    """
    drawn = torch.randn(like.shape[-1], generator=generator, dtype=torch.float32)
    return drawn.to(like).mul_(privacy.per_example_noise * privacy.per_example_clip)


@dataclass(frozen=True)
class PerExample:
    """Differentiates a batch example by example, in as much memory as a batch of one takes."""

    mean_loss: Callable[..., Tensor]
    """(outputs, labels) -> the mean loss of a batch."""
    privacy: Privacy
    """C and σ."""
    noise: torch.Generator | None
    """None without noise."""

    def __call__(
        self, differentiate: Callable[..., Tensor], gradient: Vector, inputs: Tensor, labels: Tensor
    ) -> Tensor:
        """Write a batch's noisy mean of clipped gradients, and return its mean loss.

        Args:
            differentiate: (mean loss, inputs, labels) -> loss; writes the gradient.
            gradient: where that writes to, and this.
            inputs: of the batch.
            labels: of the batch.
        """
        total, loss = torch.zeros_like(gradient), torch.zeros((), device=gradient.device)
        for one in range(len(labels)):
            here = slice(one, one + 1)
            loss = loss + differentiate(self.mean_loss, inputs[here], labels[here])
            by_norm(gradient, self.privacy.per_example_clip)
            total.add_(gradient)
        if self.noise is not None:
            total.add_(noise_of(self.privacy, self.noise, gradient))
        gradient.copy_(total.div_(len(labels)))
        return loss / len(labels)


@torch.no_grad()
def check_examples_are_alone(network: FlatNetwork, form: Form) -> None:
    """Refuse a network in training whose examples see each other, by trying.

    Args:
        network: is left as it is.
        form: of its examples.

    Raises:
        ConfigError: an example's output changes with another one's values, or a buffer does.
    """
    inputs = torch.randn(3, *form.shape, generator=torch.Generator().manual_seed(0))
    before, first = network.state(), list[Tensor]()
    network.module.train()
    for other in (1, 2):
        if network.drops:
            network.seed(torch.Generator().manual_seed(0))
        with network.alone(training=True):
            first.append(network.module(inputs[[0, other]].to(network.weights))[0])
        after = network.state()
        network.load(before)
    noted = [name for name, tensor in after.items() if not torch.equal(tensor, before[name])]
    if torch.allclose(*first, rtol=1e-4, atol=1e-5, equal_nan=True) and not noted:
        return
    what = "an example's output depends on the others of its batch"
    if noted:
        what = f"the network notes down in {noted[0]} what examples pass, and that gets no noise"
    raise ConfigError(
        f"privacy.per-example-clip: {what}, so the gradient of one example does not bound what it "
        "changes; take a recipe without BatchNorm, such as zc-swish or groupnorm"
    )
