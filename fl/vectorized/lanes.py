"""The state of many clients in training, a row for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fl.config import Client
from fl.data import Batch
from fl.training.parameters import FlatNetwork
from fl.training.step import Correction, Update
from fl.vectorized.gradients import Examples, Gradients


@dataclass(frozen=True)
class Sums:
    """What has come together in a lane since its client began."""

    loss: float
    """Of every batch's loss times its size."""
    gradient_norm: float
    """Of every step's."""
    update_norm: float
    """‖w - w_start‖₂."""


class Lanes:
    """K rows of weights, buffers and optimizer state.

    Args:
        network: of which they are; clients are loaded from it and saved to it.
        client: how all of them train.
        correct: the strategy's client half, or None.
        gradients: the program of this network.
        lanes: K.
        widths: to how many images batches are filled up, see `fl.vectorized.padding`; the last is the
            size of all batches but a client's last.
        by_batch: whether examples of a batch bear on each other, as with BatchNorm, so that only
            batches of one size can be taken together.
    """

    def __init__(
        self,
        network: FlatNetwork,
        client: Client,
        correct: Correction | None,
        gradients: Gradients,
        lanes: int,
        widths: Sequence[int],
        by_batch: bool,
    ) -> None:
        self.network, self.gradients = network, gradients
        self.widths, self.by_batch = widths, by_batch
        self.weights = network.weights.expand(lanes, -1).clone()
        self.start, self.parts = self.weights.clone(), torch.zeros_like(self.weights)
        self.buffers = {n: b.expand(lanes, *b.shape).clone() for n, b in network.buffers.items()}
        self.update = Update(network, client, correct, self.weights)
        self.losses = torch.zeros_like(self.update.norms)

    @torch.no_grad()
    def load(self, lane: int) -> None:
        """Begin with what the network holds."""
        self.weights[lane] = self.start[lane] = self.network.weights
        self.losses[lane] = 0
        for name, buffer in self.network.buffers.items():
            self.buffers[name][lane] = buffer
        self.update.forget(lane)

    @torch.no_grad()
    def save(self, lane: int) -> Sums:
        """Write a row to the network, and return what has come together in it."""
        self.network.weights.copy_(self.weights[lane])
        for name, buffer in self.network.buffers.items():
            buffer.copy_(self.buffers[name][lane])
        moved = torch.linalg.vector_norm(self.weights[lane] - self.start[lane])
        return Sums(float(self.losses[lane]), float(self.update.norms[lane]), float(moved))

    def step(self, batches: Mapping[int, Batch]) -> list[int]:
        """Move these lanes by one step each, and return those where BatchNorm saw single values."""
        starved: list[int] = []
        gradient = self.parts
        if len(batches) < len(self.weights):
            gradient.zero_()  # those of empty lanes, which mind weight decay alone
        for lanes in self._taken_together(batches):
            for norm in self.network.norms:
                norm.single_value_steps = 0
            with self.network.convolving():
                gradient = self._differentiate(lanes, [batches[lane] for lane in lanes])
            if any(norm.single_value_steps for norm in self.network.norms):
                starved += lanes
        self.update(gradient, self.start)
        return starved

    def _taken_together(self, batches: Mapping[int, Batch]) -> list[list[int]]:
        """Return the lanes of one pass each."""
        if not self.by_batch:
            return [list(batches)]
        sizes = {lane: labels.shape[0] for lane, (_, labels) in batches.items()}
        together = set(sizes.values())
        return [[lane for lane in batches if sizes[lane] == size] for size in together]

    def _differentiate(self, lanes: list[int], batches: Sequence[Batch]) -> Tensor:
        """Move the buffers of these lanes, add to their losses, and return where gradients are.

        Those of all lanes are where the pass left them; else those of these are now in `parts`.
        """
        sizes = tuple(labels.shape[0] for _, labels in batches)  # `len` of a tensor takes longer
        everyone = list(range(len(self.weights)))
        if lanes == everyone:  # the rule; what follows costs copies
            examples = _stacked(batches, sizes, self._width(sizes), self.weights)
            losses, gradient = self.gradients(self.weights, self.buffers, examples)
            self.losses.addcmul_(losses, _counts(sizes, losses.dtype, losses.device))
            return gradient
        smaller = self.by_batch and max(sizes) < self.widths[-1]
        rows = everyone if self.gradients.whole and not smaller else lanes
        taken = dict(zip(lanes, batches, strict=True))
        # An idle lane is given somebody's batch, and what comes of it is left alone.
        padded = [taken.get(lane, batches[0]) for lane in rows]
        filled = tuple(labels.shape[0] for _, labels in padded)
        examples = _stacked(padded, filled, self._width(sizes), self.weights)
        buffers = {name: buffer[rows] for name, buffer in self.buffers.items()}
        weights = self.weights if rows == everyone else self.weights[rows]
        losses, gradient = self.gradients(weights, buffers, examples)
        at = [rows.index(lane) for lane in lanes]
        self.parts[lanes] = gradient[at]
        self.losses[lanes] += losses[at] * _counts(sizes, losses.dtype, losses.device)
        for name, buffer in buffers.items():
            self.buffers[name][lanes] = buffer[at]
        return self.parts

    def _width(self, sizes: Sequence[int]) -> int:
        """Return to how many images batches of these sizes are filled up."""
        most = max(sizes)
        return most if self.by_batch else next(w for w in self.widths if w >= most)


def _stacked(batches: Sequence[Batch], sizes: tuple[int, ...], most: int, like: Tensor) -> Examples:
    """Put batches next to each other, each filled up with its last example to one size."""

    def together(parts: Sequence[Tensor]) -> Tensor:
        filled = [_filled(part, most - size) for part, size in zip(parts, sizes, strict=True)]
        # Without waiting for a GPU: what comes from ordinary memory is copied before this returns.
        return torch.stack(filled).contiguous().to(like.device, non_blocking=True)

    inputs, labels = map(together, zip(*batches, strict=True))
    return Examples(inputs, labels, _shares(sizes, most, like.dtype, like.device))


def _filled(part: Tensor, missing: int) -> Tensor:
    return torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part


# Most passes of a run have the sizes of the one before.
@lru_cache(maxsize=64)
def _shares(sizes: tuple[int, ...], most: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    rows = [[1 / size] * size + [0.0] * (most - size) for size in sizes]
    return torch.tensor(rows, dtype=dtype, device=device)


@lru_cache(maxsize=64)
def _counts(sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(sizes, dtype=dtype, device=device)
