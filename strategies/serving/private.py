"""Central differential privacy around a strategy (arXiv 1710.06963), repeatable and streaming.

Every update is clipped to the norm C, the mean is taken, and N(0, (z·C/K)²) is added to it, where K
is the number of clients in the mean. Flower's own wrappers draw the noise from NumPy's global
generator, hold all replies of a round, take for K the clients that were asked, and let a client
count by its images, for which that noise is too small: the mean of K clipped updates moves by C/K
at most only where all clients count the same (`Averaging(uniform=True)`).
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from strategies import arrays as npy
from strategies.arrays import Arrays
from strategies.bounds import clipped
from strategies.serving.server import ARRAYS, Averaging, Fold, Server

CLIP = "clipping_norm"
"""The key of C in a request; Flower's own client-side wrapper uses the same."""


@dataclass(frozen=True)
class Noise:
    """How much noise a mean gets, and where it is from."""

    multiplier: float
    """z."""
    clip: float
    """C, the norm to which every update is clipped."""
    covered: Collection[str]
    """Names of the tensors that are clipped and get noise. BatchNorm's statistics are best not
    among them: noise would make variances negative."""
    stream: Callable[[int], np.random.Generator]
    """Round -> the generator of its noise."""


class Private(Server):
    """An average whose updates are clipped and whose mean is noisy.

    Args:
        average: what is made private; all clients must count the same in it.
        noise: how much.
        clips: who clips: the `client`, as the request tells it to, or the `server`, which then
            sees updates as they are.

    Raises:
        ValueError: clients count differently.
    """

    def __init__(
        self, average: Averaging, noise: Noise, clips: Literal["client", "server"]
    ) -> None:
        if not average.uniform:
            raise ValueError("the noise is for a mean in which all clients count the same")
        self.average, self.noise, self.clips = average, noise, clips

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as the average within does; with the norm in the request where clients clip."""
        self.sent = arrays
        if self.clips == "client":
            config[CLIP] = self.noise.clip
        return self.average.configure_train(server_round, arrays, config, grid)

    def fold(self, server_round: int, start: Arrays) -> Fold:
        """Begin a noisy mean over a round's replies."""
        clipped_from = start if self.clips == "server" else None
        mean = self.average.fold(server_round, start)
        return _Noisy(mean, self.noise, server_round, clipped_from)


class _Noisy:
    """Clips replies where the server does that, and adds the round's noise to their mean."""

    def __init__(self, fold: Fold, noise: Noise, number: int, start: Arrays | None) -> None:
        self.fold, self.noise, self.number, self.start = fold, noise, number, start
        self.count = 0

    def add(self, reply: Message) -> None:
        """Add a reply; its network is at most C from the start by then."""
        self.count += 1
        if self.start is not None:
            record = reply.content[ARRAYS]
            assert isinstance(record, ArrayRecord)
            near = clipped(npy.arrays(record), self.start, self.noise.clip, self.noise.covered)
            reply.content[ARRAYS] = npy.record(near)
        self.fold.add(reply)

    def result(self) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the noisy mean, and the figures as they are."""
        mean, figures = self.fold.result()
        if mean is None or not self.noise.multiplier:
            return mean, figures
        rng = self.noise.stream(self.number)
        deviation = self.noise.multiplier * self.noise.clip / self.count
        arrays = npy.arrays(mean)
        for name in sorted(set(self.noise.covered) & arrays.keys()):
            exact = arrays[name].astype(np.float64)
            noisy = exact + rng.normal(0, deviation, exact.shape)
            arrays[name] = np.asarray(noisy, arrays[name].dtype)
        return npy.record(arrays), figures
