"""Many clients trained as one program: lanes hold their weights, and every call steps all lanes.

At micro-batches a step is mostly overhead, and the overhead of one client is as large as that of
many. So K lanes hold K clients' weights as rows, and one forward and backward pass, vectorized
over lanes, serves them all. A lane whose client is done takes the next one. What a client ends
with is what `fl.training.loop.train` would have given it, up to the rounding of sums.
"""

import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, Protocol, TypeVar, runtime_checkable

from fl.config import Client
from fl.data import Batch
from fl.nn import fixed_statistics
from fl.training.loop import Outcome, train
from fl.training.parameters import FlatNetwork
from fl.training.step import Correction
from fl.vectorized.gradients import Gradients
from fl.vectorized.lanes import Lanes
from fl.vectorized.padding import steps

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


@runtime_checkable
class Task(Protocol[Result_co]):
    """What is asked of one client: its start, its batches, and what is made of the outcome."""

    @property
    def steps(self) -> int:
        """How many batches there will be."""
        ...

    def begin(self, network: FlatNetwork) -> Iterable[Batch]:
        """Load the client's start into a network, and return its batches."""
        ...

    def end(self, network: FlatNetwork, outcome: Outcome) -> Result_co:
        """Make a result of what the network has become."""
        ...

    def fail(self, error: Exception) -> Result_co:
        """Make a result of an error."""
        ...


@dataclass(frozen=True)
class Training:
    """How all clients of a cohort train."""

    client: Client
    correct: Correction | None = None
    """The strategy's client half."""
    fixed: bool = False
    """Whether BatchNorm takes its running statistics, see `fl.nn.fixed_statistics`."""
    widths: tuple[int, ...] | None = None
    """To how many images their batches are filled up; None: by `fl.vectorized.padding.steps`."""


def by_batch(network: FlatNetwork) -> bool:
    """Return whether examples of a batch bear on each other, unless statistics are fixed."""
    return bool(network.norms)


def one_by_one(network: FlatNetwork, task: Task[Result], how: Training) -> Result:
    """Train one client by `fl.training.loop.train`, and return its result."""
    try:
        batches = task.begin(network)
        with fixed_statistics(network.module, how.fixed):
            outcome = train(network, batches, how.client, how.correct)
        return task.end(network, outcome)
    except Exception as error:
        return task.fail(error)


def together(
    network: FlatNetwork,
    tasks: Sequence[Task[Result]],
    how: Training,
    gradients: Gradients,
    lanes: int,
) -> Iterator[tuple[int, Result]]:
    """Train clients in lanes; yield (place of a task, its result) as soon as each is done.

    An error in a pass can't be laid to one client: those in lanes are then trained one by one,
    with a warning.

    Args:
        network: holds one client at a time, while it begins and ends.
        tasks: who has most steps is begun first, so that no one is left alone at the end.
        how: the same for all.
        gradients: the program of this network.
        lanes: K.
    """
    waiting = sorted(range(len(tasks)), key=lambda place: -tasks[place].steps)
    lanes = lanes if gradients.whole else min(lanes, len(tasks))
    cohort = _Cohort[Result](network, how, gradients, lanes)
    while waiting or cohort.seats:
        while waiting and cohort.free:
            place = waiting.pop(0)
            try:
                cohort.take(place, tasks[place])
            except Exception as error:
                yield place, tasks[place].fail(error)
        try:
            done = cohort.train_until_one_is_done()
        except Exception as error:
            alone = [seat.place for seat in cohort.seats.values()]
            reason = f"{type(error).__name__}: {error}"
            warnings.warn(f"{len(alone)} clients train one by one: {reason}", stacklevel=2)
            cohort.seats.clear()
            yield from ((place, one_by_one(network, tasks[place], how)) for place in alone)
            continue
        for lane in done:
            yield cohort.end(lane)


@dataclass
class _Seat(Generic[Result]):
    """A client in a lane."""

    place: int
    task: Task[Result]
    batches: Iterator[Batch]
    batch: Batch | None
    """That of the next step; None where there are no more."""
    steps: int = 0
    examples: int = 0
    single_value_steps: int = 0
    seconds: float = 0.0
    """Its share of the time that passes took."""


# Making them takes as long as a step; what is left in them is overwritten as clients are taken.
@lru_cache(maxsize=1)
def _lanes(network: FlatNetwork, how: Training, gradients: Gradients, count: int) -> Lanes:
    """Return lanes for clients that train like that; the last ones again where those do."""
    together = by_batch(network) and not how.fixed
    widths = how.widths or steps(how.client.batch_size)
    return Lanes(network, how.client, how.correct, gradients, count, widths, together)


class _Cohort(Generic[Result]):
    """Clients in lanes."""

    def __init__(
        self, network: FlatNetwork, how: Training, gradients: Gradients, lanes: int
    ) -> None:
        self.network, self.fixed = network, how.fixed
        self.lanes, self.count = _lanes(network, how, gradients, lanes), lanes
        self.seats: dict[int, _Seat[Result]] = {}

    @property
    def free(self) -> list[int]:
        """The empty lanes."""
        return [lane for lane in range(self.count) if lane not in self.seats]

    def take(self, place: int, task: Task[Result]) -> None:
        """Begin a client in an empty lane."""
        lane, batches = self.free[0], iter(task.begin(self.network))
        self.lanes.load(lane)
        self.seats[lane] = _Seat(place, task, batches, next(batches, None))

    def train_until_one_is_done(self) -> list[int]:
        """Step all lanes until some have no more batches; returns those."""
        self.network.module.train()
        with fixed_statistics(self.network.module, self.fixed):
            while not (done := [n for n, seat in self.seats.items() if seat.batch is None]):
                self._step()
        return done

    def _step(self) -> None:
        begun = time.perf_counter()
        taken = dict(sorted((n, seat.batch) for n, seat in self.seats.items()))
        starved = self.lanes.step(taken)  # pyrefly: ignore
        for lane, seat in self.seats.items():
            seat.steps += 1
            seat.examples += taken[lane][1].shape[0]  # pyrefly: ignore
            seat.single_value_steps += lane in starved
            seat.batch = next(seat.batches, None)
        share = (time.perf_counter() - begun) / len(self.seats)
        for seat in self.seats.values():
            seat.seconds += share

    def end(self, lane: int) -> tuple[int, Result]:
        """Empty a lane and return its client's place and result."""
        seat = self.seats.pop(lane)
        try:
            sums = self.lanes.save(lane)
            outcome = Outcome(
                steps=seat.steps,
                examples=seat.examples,
                loss=sums.loss / max(seat.examples, 1),
                gradient_norm=sums.gradient_norm / max(seat.steps, 1),
                update_norm=sums.update_norm,
                single_value_steps=seat.single_value_steps,
                seconds=seat.seconds,
            )
            return seat.place, seat.task.end(self.network, outcome)
        except Exception as error:
            return seat.place, seat.task.fail(error)
