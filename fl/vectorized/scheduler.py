"""Many clients trained as one program: lanes hold their weights, and every call steps all lanes.

At micro-batches a step is mostly overhead, and the overhead of one client is as large as that of
many. So K lanes hold K clients' weights as rows, and one forward and backward pass, vectorized
over lanes, serves them all. A lane whose client is done takes the next one. Each client's result
matches training it alone by `fl.training.loop.train`, but for the rounding of single operations.
What becomes of that in later steps depends on the network: see docs/design/engines.md.
"""

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic

from fl.config import Experiment
from fl.data import Batch, Form
from fl.nn import fixed_statistics
from fl.reproducibility.errors import in_words
from fl.tasks import Objective
from fl.training.loop import Training, train_task, without_exit
from fl.training.parameters import FlatNetwork
from fl.training.step import Steps
from fl.training.task import Begun, Outcome, Result, Task
from fl.vectorized.gradients import ClippedGradients, Gradients, LaneGradients
from fl.vectorized.lanes import Lanes
from fl.vectorized.padding import padded_sizes


def train_together(
    network: FlatNetwork,
    tasks: Mapping[int, Task[Result]],
    how: Training,
    knobs: Experiment,
    form: Form,
    size: int,
) -> dict[int, Result]:
    """Train clients of one kind in lanes, and return their results under their places.

    Args:
        network: the one of this process.
        tasks: by place.
        how: they all train.
        knobs: of the experiment; `vectorized.lanes` is a number.
        form: of the examples.
        size: of a batch; a client's last may be smaller.
    """
    places, waiting = list(tasks), list(tasks.values())
    lanes = int(knobs.vectorized.lanes)
    name = f"{knobs.network}, {knobs.recipe}, {form}, fixed={how.fixed}, {knobs.task}"
    name += knobs.components  # whose text is part of the names of the modules made of it
    level, clip = knobs.vectorized.level, how.privacy.per_example_clip
    gradients = _gradients(network, name, lanes, level, how.objective, clip)
    padded = padded_sizes(knobs, size)
    done = train_in_lanes(network, waiting, how, gradients, lanes, padded)
    return {places[place]: result for place, result in done}


@lru_cache(maxsize=2)
def _gradients(
    network: FlatNetwork, name: str, lanes: int, level: str, objective: Objective, clip: float
) -> LaneGradients:
    """Return what differentiates lanes of a network, of which a name says all that it may bake in.

    It is made of the network as it is, so statistics that are fixed from a round on take another.
    """
    if clip:
        return ClippedGradients(Gradients(network, loss=objective.loss), clip)
    if level in ("auto", "eager"):
        return Gradients(network, loss=objective.loss)
    from fl.vectorized.tracing import TracedGradients  # loads a compiler; eager lanes need none

    native, compiled = level in ("native", "compiled"), level == "compiled"
    kept = name if objective.ours else ""  # of other code nobody knows when it changes
    return TracedGradients(network, native, lanes, compiled, kept, objective.loss)


def train_in_lanes(
    network: FlatNetwork,
    tasks: Sequence[Task[Result]],
    how: Training,
    gradients: LaneGradients,
    lanes: int,
    padded_sizes: tuple[int, ...],
) -> Iterator[tuple[int, Result]]:
    """Train clients in lanes; yield (index of a task, its result) as soon as each is done.

    An error in a pass can't be attributed to one client. The clients in lanes are then trained
    one by one, with a warning.

    Args:
        network: holds one client at a time, while it begins and ends.
        tasks: the clients. Those with most steps begin first, so that at the end few lanes idle.
        how: how all of them train.
        gradients: the program of this network.
        lanes: K.
        padded_sizes: the sizes to which batches are padded, see `fl.vectorized.padding`.
    """
    waiting = sorted(range(len(tasks)), key=lambda index: -tasks[index].steps)
    rows = _make_lanes(network, how, gradients, lanes, padded_sizes)
    occupied = _OccupiedLanes[Result](network, how.fixed, rows)
    while waiting or occupied.seats:
        while waiting and occupied.free:
            index = waiting.pop(0)
            try:
                with without_exit():
                    occupied.take(index, tasks[index])
            except Exception as error:
                yield index, tasks[index].fail(error)
        if not occupied.seats:  # none of those that waited could begin
            return
        done, reason = [], ""
        try:
            with without_exit():
                done = occupied.train_until_one_is_done()
        except Exception as error:
            reason = in_words(error)
        for lane in done:
            yield occupied.end(lane)
        if reason:  # no longer in the exception: each client's own would be chained to it
            alone = [seat.index for seat in occupied.seats.values()]
            warnings.warn(f"{len(alone)} clients train one by one: {reason}", stacklevel=2)
            occupied.seats.clear()
            for index in alone:
                yield index, _train_alone(network, tasks[index], how)


def _train_alone(network: FlatNetwork, task: Task[Result], how: Training) -> Result:
    try:
        return train_task(network, task, how)
    except Exception as error:
        return task.fail(error)


@dataclass
class _Seat(Generic[Result]):
    """A client in a lane."""

    index: int
    """The client's place among the tasks."""
    task: Task[Result]
    begun: Begun
    batch: Batch | None
    """The batch of the next step; None where there are no more."""
    steps: Steps
    examples: int = 0
    single_value_steps: int = 0
    seconds: float = 0.0
    """The client's share of the time of its steps: a step's time, divided by the clients in it."""


# Lanes are used again by the next call, because making them takes as long as a step. That is safe:
# `Lanes.load` overwrites all that the last client has left in a lane.
_make_lanes = lru_cache(maxsize=1)(Lanes)


class _OccupiedLanes(Generic[Result]):
    """Lanes, and which client is in which of them."""

    def __init__(self, network: FlatNetwork, fixed: bool, lanes: Lanes) -> None:
        self.network, self.fixed = network, fixed
        self.lanes, self.count = lanes, len(lanes.weights)
        self.seats: dict[int, _Seat[Result]] = {}

    @property
    def free(self) -> list[int]:
        """The empty lanes."""
        return [lane for lane in range(self.count) if lane not in self.seats]

    def take(self, index: int, task: Task[Result]) -> None:
        """Begin a client in an empty lane."""
        lane, begun = self.free[0], task.begin(self.network)
        self.lanes.load(lane, begun.vectors, begun.own, begun.noise)
        self.seats[lane] = _Seat(index, task, begun, next(begun.batches, None), Steps(lane))

    def train_until_one_is_done(self) -> list[int]:
        """Step all occupied lanes until some have no more batches; return those."""
        self.network.module.train()
        with fixed_statistics(self.network.module, self.fixed):
            while not (done := [n for n, seat in self.seats.items() if seat.batch is None]):
                self._step()
        return done

    def _step(self) -> None:
        begun = time.perf_counter()
        taken = dict(sorted((n, seat.batch) for n, seat in self.seats.items()))
        clipping, single_value = self.lanes.step(taken)  # pyrefly: ignore
        for lane, seat in self.seats.items():
            seat.steps.taken.append(clipping)
            seat.examples += taken[lane][1].shape[0]  # pyrefly: ignore
            seat.single_value_steps += lane in single_value
            seat.batch = next(seat.begun.batches, None)
        share = (time.perf_counter() - begun) / len(self.seats)
        for seat in self.seats.values():
            seat.seconds += share

    def end(self, lane: int) -> tuple[int, Result]:
        """Empty a lane, and return its client's index and result."""
        seat = self.seats.pop(lane)
        try:
            sums = self.lanes.save(lane, seat.begun.vectors)
            outcome = Outcome(
                examples=seat.examples,
                loss=sums.loss / max(seat.examples, 1),
                **seat.steps.figures(),
                update_norm=sums.update_norm,
                single_value_steps=seat.single_value_steps,
                seconds=seat.seconds,
            )
            with without_exit():
                return seat.index, seat.task.end(self.network, seat.begun, outcome)
        except Exception as error:
            return seat.index, seat.task.fail(error)
