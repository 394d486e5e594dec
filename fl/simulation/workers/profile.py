"""A profile: what each worker was at and when, and which share of a round it waited."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from fl.client.spans import Span
from fl.messages import records

SERVER = -1
"""The number of the process that hands work out, where others are the workers."""


def called(worker: int) -> str:
    """Return what a worker is called."""
    return "server" if worker == SERVER else f"worker {worker + 1}"


@dataclass(frozen=True)
class Shares:
    """What workers did in some time, as shares of the seconds that all of them had; they sum to 1.

    A round is from the beginning of its first client to that of the next round's; the last ends
    before clients score the final network. Where there are processes, the evaluation of the round
    before falls within it.
    """

    rounds: range
    seconds: float
    """From the beginning to the end."""
    train: float
    """With reading requests."""
    query: float
    """What clients are asked besides, as with `state.bn=recalibrate`."""
    evaluate: float
    wait: float
    """Or work that was lost with its worker, or at `round.deadline`."""
    lanes: float
    """How many clients a worker that trains has begun and not ended, on average."""


class Profile:
    """Spans of all workers, of the rounds that are played while they are noted."""

    def __init__(self) -> None:
        self.workers = 1
        """How many there are."""
        self.spans = defaultdict[int, list[Span]](list)
        """Worker -> what it was at, in the order in which that was reported."""

    def take(self, worker: int, spans: Iterable[Span]) -> None:
        """Take note of what a worker was at."""
        self.spans[worker].extend(spans)

    @contextmanager
    def within(self, worker: int, what: str) -> Iterator[list[Span]]:
        """Note the time of a block as a span of a worker, and what is put into the list."""
        begun, inner = monotonic(), list[Span]()
        yield inner
        self.take(worker, [Span(what, begun, monotonic()), *inner])

    @property
    def begins(self) -> dict[int, float]:
        """When each round began."""
        found: dict[int, float] = {}
        for span in self._of("client"):
            assert span.round is not None
            found[span.round] = min(span.begun, found.get(span.round, span.begun))
        return dict(sorted(found.items()))

    def end(self, number: int) -> float:
        """Return when a round ended: when the next began or, of the last, its last span ended."""
        later = (begun for other, begun in self.begins.items() if other > number)
        all_spans = (span for spans in self.spans.values() for span in spans)
        return next(later, max(s.ended for s in all_spans if s.what != records.SCORE))

    def shares(self, rounds: range) -> Shares:
        """Return the shares of some rounds; in the first of them clients trained."""
        begun, ended = self.begins[rounds.start], self.end(rounds.stop - 1)

        def within(what: str) -> float:
            spans = self._of(what)
            return sum(max(0.0, min(s.ended, ended) - max(s.begun, begun)) for s in spans)

        had, training = self.workers * (ended - begun), within("train")
        train, query, evaluate = training / had, within("query") / had, within("evaluate") / had
        wait = max(0.0, 1 - train - query - evaluate)
        lanes = within("client") / training if training else 0.0
        return Shares(rounds, ended - begun, train, query, evaluate, wait, lanes)

    def rows(self) -> list[dict[str, object]]:
        """Return a row for each span; seconds are from when the first round began."""
        first = min(self.begins.values(), default=0.0)
        return [
            {
                "worker": called(worker),
                "what": span.what,
                "round": span.round,
                "client": span.partition,
                "begun": round(span.begun - first, 6),
                "ended": round(span.ended - first, 6),
            }
            for worker, spans in sorted(self.spans.items())
            for span in spans
        ]

    def _of(self, what: str) -> Iterator[Span]:
        """Yield the spans of a kind, of all workers."""
        for worker, spans in self.spans.items():
            yield from (s for s in spans if s.what.startswith(what) and worker != SERVER)
