"""Flower's wrappers for central differential privacy, made repeatable and streaming.

What is Flower's stays: clip every update to C, mean, add N(0, (z·C/K)²) (arXiv 1710.06963). What is
not: its noise is from NumPy's global generator, it holds all replies of a round, it takes for K the
clients asked rather than those in the mean, and it lets a client count by its images, for which
that noise is too small: the mean of K clipped updates moves by C/K at most only where all count the
same (`FedAvg(uniform=True)`).
"""

from collections.abc import Callable, Collection, Iterable, Iterator

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import strategy as flower

from strategies import arrays as npy
from strategies.bounds import clipped
from strategies.fedavg import FedAvg


class _Noisy:
    """Adds noise to what a strategy makes of a round's replies.

    Args:
        strategy: in which all clients count the same.
        noise_multiplier: z.
        clipping_norm: C.
        num_sampled_clients: how many are asked in a round.
        covered: names of the tensors that are clipped and get noise. BatchNorm's statistics are
            best not among them: noise would make variances negative.
        stream: round -> the generator of its noise.
    """

    def __init__(
        self,
        strategy: FedAvg,
        noise_multiplier: float,
        clipping_norm: float,
        num_sampled_clients: int,
        covered: Collection[str],
        stream: Callable[[int], np.random.Generator],
    ) -> None:
        super().__init__(strategy, noise_multiplier, clipping_norm, num_sampled_clients)  # pyrefly: ignore
        if not strategy.uniform:
            raise ValueError("the noise is for a mean in which all clients count the same")
        self.average, self.covered, self.noise = strategy, covered, stream
        self.bound, self.multiplier = clipping_norm, noise_multiplier

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Fold replies one at a time, and add the round's noise to their mean."""
        count = 0

        def counted() -> Iterator[Message]:
            nonlocal count
            for reply in replies:
                count += 1
                yield self.bounded(reply)

        mean, figures = self.average.aggregate_train(server_round, counted())
        if mean is None or not self.multiplier:
            return mean, figures
        rng, deviation = self.noise(server_round), self.multiplier * self.bound / count
        arrays = npy.arrays(mean)
        for name in sorted(set(self.covered) & arrays.keys()):
            exact = arrays[name].astype(np.float64)
            noisy = exact + rng.normal(0, deviation, exact.shape)
            arrays[name] = np.asarray(noisy, arrays[name].dtype)
        return npy.record(arrays), figures

    def bounded(self, reply: Message) -> Message:
        """Return a reply whose update is at most C from the network that was sent."""
        return reply


class ClientSide(_Noisy, flower.DifferentialPrivacyClientSideFixedClipping):
    """Clients clip, as the request tells them; the server adds the noise."""


class ServerSide(_Noisy, flower.DifferentialPrivacyServerSideFixedClipping):
    """The server clips and adds the noise; it sees updates as they are."""

    def bounded(self, reply: Message) -> Message:
        """Clip a reply in its place."""
        key = self.average.arrayrecord_key
        record = reply.content[key]
        assert isinstance(record, ArrayRecord)
        found, start = map(npy.arrays, (record, self.current_arrays))
        near = clipped(found, start, self.bound, self.covered)
        reply.content[key] = npy.record(near)
        return reply
