"""The state of many clients in training, a row for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fl.data import Batch
from fl.training.accumulation import parts
from fl.training.loop import Training
from fl.training.parameters import FlatNetwork
from fl.training.per_example import noise_of
from fl.training.step import MOMENTUM, Clipping, Update, Vectors, with_vectors
from fl.vectorized.gradients import Examples, LaneGradients


@dataclass(frozen=True)
class Sums:
    """What has been summed up in a lane since its client began."""

    loss: float
    """The sum over batches of the batch's mean loss times its size."""
    update_norm: float
    """‖w - w_start‖₂."""


class Lanes:
    """K rows of weights, buffers and optimizer state.

    Args:
        network: the network whose weights the rows are; clients are loaded from it and saved to it.
        how: how all of them train.
        gradients: the program of this network.
        lanes: K.
        padded_sizes: the sizes to which batches are padded, ascending, see `fl.vectorized.padding`;
            the last is the batch size of all batches but a client's last one.
    """

    def __init__(
        self,
        network: FlatNetwork,
        how: Training,
        gradients: LaneGradients,
        lanes: int,
        padded_sizes: Sequence[int],
    ) -> None:
        self.network, self.gradients, self.padded_sizes = network, gradients, padded_sizes
        self.privacy = how.privacy
        self.noise: dict[int, torch.Generator] = {}
        """What draws the noise of each lane's client, where there is any."""
        self.weights = network.weights.expand(lanes, -1).clone()
        self.everyone = list(range(lanes))
        self.start = self.weights.clone()
        self.collected = torch.zeros_like(self.weights)
        self.buffers = {n: b.expand(lanes, *b.shape).clone() for n, b in network.buffers.items()}
        carried = [MOMENTUM] if how.client.carry_momentum else []
        self.vectors = {name: torch.zeros_like(self.weights) for name in carried}
        """Clients' vectors by name, with a row a lane."""
        self.size = how.client.batch_size if how.client.accumulate > 1 else None
        """Images of a pass, where a step is several passes."""
        correct = with_vectors(how.correct, self.vectors)
        velocity = self.vectors.get(MOMENTUM)
        self.update = Update(network, how.client, correct, self.weights, velocity)
        self.losses = torch.zeros(lanes, device=self.weights.device)
        self.own: Tensor | None = None
        """What the loss has to know of each lane's client, see `fl.tasks.Task.own`."""

    @torch.no_grad()
    def load(
        self,
        lane: int,
        vectors: Vectors,
        own: Tensor | None = None,
        noise: torch.Generator | None = None,
    ) -> None:
        """Begin a client in a lane, with the weights and buffers that the network holds.

        Args:
            lane: the client's.
            vectors: the strategy's, of this client.
            own: what the loss has to know of it; None for all clients, or for none.
            noise: draws its noise; None for all clients, or for none.
        """
        if noise is not None:
            self.noise[lane] = noise
        if own is not None:
            if self.own is None:
                self.own = own.to(self.weights.device).expand(len(self.weights), *own.shape).clone()
            self.own[lane] = own
        self.weights[lane] = self.start[lane] = self.network.weights
        self.losses[lane] = 0
        for name, buffer in self.network.buffers.items():
            self.buffers[name][lane] = buffer
        self.update.forget(lane)
        with torch.inference_mode():  # in which `update` may have made new rows
            for name, vector in vectors.items():
                if name not in self.vectors:
                    self.vectors[name] = torch.zeros_like(self.weights)
                self.vectors[name][lane] = vector

    @torch.no_grad()
    def save(self, lane: int, vectors: Vectors) -> Sums:
        """Write a lane's weights and buffers to the network, and return the lane's sums.

        The client's vectors become what they are in the lane.
        """
        for name in vectors:
            vectors[name] = self.vectors[name][lane].clone()
        self.network.weights.copy_(self.weights[lane])
        for name, buffer in self.network.buffers.items():
            buffer.copy_(self.buffers[name][lane])
        moved = torch.linalg.vector_norm(self.weights[lane] - self.start[lane])
        return Sums(float(self.losses[lane]), float(moved))

    def step(self, batches: Mapping[int, Batch]) -> tuple[Clipping, list[int]]:
        """Move some lanes by one step each.

        Args:
            batches: a batch for each of these lanes, in the order of lanes. The others are idle:
                what is in their rows changes and means nothing.

        Returns:
            What the clip did in each lane, and the lanes in which a BatchNorm layer saw one value a
            channel.
        """
        gradient, starved = self._pass(batches) if self.size is None else self._passes(batches)
        if self.noise:
            self._add_noise(gradient, batches)
        return self.update(gradient, self.start), starved

    def _pass(self, batches: Mapping[int, Batch]) -> tuple[Tensor, list[int]]:
        """Return gradients, and the lanes in which a BatchNorm layer saw one value a channel."""
        norms, lanes, taken = self.network.norms, list(batches), list(batches.values())
        for norm in norms:
            norm.single_value_steps = 0
        with self.network.convolving():
            if lanes == self.everyone:
                gradient = self._differentiate_all(taken)
            else:
                gradient = self._differentiate_some(lanes, taken)
        if not any(norm.single_value_steps for norm in norms):
            return gradient, []
        sizes = zip(lanes, _sizes(taken), strict=True)
        return gradient, [lane for lane, size in sizes if size == 1]

    def _passes(self, batches: Mapping[int, Batch]) -> tuple[Tensor, list[int]]:
        """Return what `_pass` does, of batches that take several passes, as `Accumulated`."""
        assert self.size is not None
        cut = {lane: parts(batch, self.size) for lane, batch in batches.items()}
        total, starved = torch.zeros_like(self.weights), set[int]()
        for turn in range(max(map(len, cut.values()))):
            now = {lane: found[turn] for lane, found in cut.items() if turn < len(found)}
            gradient, alone = self._pass(now)
            shares = torch.zeros(len(total), 1, dtype=total.dtype)
            for lane, (_, labels) in now.items():
                shares[lane] = labels.shape[0] / batches[lane][1].shape[0]
            with torch.inference_mode():  # because gradients of traced passes are inference tensors
                total += gradient * shares.to(total.device)
            starved.update(alone)
        return total, sorted(starved)

    @torch.inference_mode()
    def _add_noise(self, gradient: Tensor, batches: Mapping[int, Batch]) -> None:
        """Add to each lane's gradient what its client draws, over the size of its batch."""
        for lane, (_, labels) in batches.items():
            drawn = noise_of(self.privacy, self.noise[lane], gradient)
            gradient[lane] += drawn / labels.shape[0]

    def _differentiate_all(self, batches: Sequence[Batch]) -> Tensor:
        """Pass over all lanes: move their buffers, add to their losses, and return gradients.

        Nothing is copied: the pass reads `weights` and moves `buffers` where they are, and the
        gradients that are returned are in the pass's own memory, valid until the next pass. The
        update overwrites them there.
        """
        sizes = _sizes(batches)
        examples = _stack(batches, sizes, self._padded_size(sizes), self.weights)
        examples = examples._replace(own=self.own)
        losses, gradient = self.gradients(self.weights, self.buffers, examples)
        self.losses.addcmul_(losses, _counts(sizes, losses.dtype, losses.device))
        return gradient

    def _differentiate_some(self, lanes: list[int], batches: Sequence[Batch]) -> Tensor:
        """Pass over some lanes: move their buffers, add to their losses, and return gradients.

        A traced pass is for a number of lanes, so some idle ones may have to take part. Buffers of
        the pass are copies, because those of idle lanes must not move; those of `lanes` are copied
        back. Weights are copied where the pass has fewer rows than there are lanes. Gradients of
        `lanes` are copied to their rows of `collected`, because the update takes the rows of all
        lanes at once; those of idle lanes are 0, so only weight decay moves these.
        """
        sizes = _sizes(batches)
        padded_size = self._padded_size(sizes)
        idle = [lane for lane in self.everyone if lane not in lanes]
        rows = sorted(lanes + idle[: self.gradients.rows(len(lanes)) - len(lanes)])
        given = dict(zip(lanes, batches, strict=True))
        # An idle lane is given the batch of a busy one, and its results are dropped.
        filled = [given.get(lane, batches[0]) for lane in rows]
        examples = _stack(filled, _sizes(filled), padded_size, self.weights)
        buffers = {name: buffer[rows] for name, buffer in self.buffers.items()}
        weights = self.weights if rows == self.everyone else self.weights[rows]
        if self.own is not None:
            examples = examples._replace(own=self.own if rows == self.everyone else self.own[rows])
        losses, gradient = self.gradients(weights, buffers, examples)
        at = [rows.index(lane) for lane in lanes]
        self.collected.zero_()[lanes] = gradient[at]
        self.losses[lanes] += losses[at] * _counts(sizes, losses.dtype, losses.device)
        for name, buffer in buffers.items():
            self.buffers[name][lanes] = buffer[at]
        return self.collected

    def _padded_size(self, sizes: Sequence[int]) -> int:
        """Return the size to which batches of these sizes are padded."""
        largest = max(sizes)
        return next(size for size in self.padded_sizes if size >= largest)


def _sizes(batches: Sequence[Batch]) -> tuple[int, ...]:
    return tuple(labels.shape[0] for _, labels in batches)  # `len` of a tensor takes longer


def _stack(
    batches: Sequence[Batch], sizes: tuple[int, ...], padded_size: int, like: Tensor
) -> Examples:
    """Stack batches along a dimension of lanes, each padded with copies of its last example.

    Args:
        batches: one for every lane.
        sizes: of the batches.
        padded_size: of all of them in the result.
        like: a tensor of the type and on the device that the lanes' weights have.
    """

    def stack(parts: Sequence[Tensor]) -> Tensor:
        padded = [_pad(part, padded_size - size) for part, size in zip(parts, sizes, strict=True)]
        # Without waiting for a GPU. That is safe: from pageable memory, the source is read before
        # this returns.
        return torch.stack(padded).contiguous().to(like.device, non_blocking=True)

    inputs, labels = map(stack, zip(*batches, strict=True))
    weights = _example_weights(sizes, padded_size, like.dtype, like.device)
    return Examples(inputs, labels, weights, _counts(sizes, like.dtype, like.device))


def _pad(part: Tensor, missing: int) -> Tensor:
    return torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part


# Cached, because most passes of a run have the sizes of the one before.
@lru_cache(maxsize=64)
def _example_weights(
    sizes: tuple[int, ...], padded_size: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    rows = [[1 / size] * size + [0.0] * (padded_size - size) for size in sizes]
    return torch.tensor(rows, dtype=dtype, device=device)


@lru_cache(maxsize=64)
def _counts(sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(sizes, dtype=dtype, device=device)
