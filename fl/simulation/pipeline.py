"""A round that is finished later: its network is evaluated while clients train in the next."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

from fl.tasks.metrics import Part
from fl.training.loop import Evaluation

_LONG = 10.0
"""Seconds of a round from which its workers evaluate the round before first, and train then."""


_SHARE = 8
"""Pieces that a worker has at least, if there are so many batches: it is to be free for clients."""


def pieces(batches: range, workers: int) -> Iterator[range]:
    """Cut batches into pieces, each half of a worker's part of what is left, one batch at least.

    A piece costs a worker a millisecond besides, in which it waits for the next; the last pieces
    are small, so that workers end together.
    """
    most = -(-len(batches) // (_SHARE * workers))
    while batches:
        size = min(most, max(1, len(batches) // (2 * workers)))
        yield batches[:size]
        batches = batches[size:]


class Pipeline:
    """Keeps a round that is not evaluated yet, and what finishes it.

    Workers evaluate its network in pieces, which are ranges of batches, when they have no clients
    to train: in the gaps that the next round leaves, and before a round after that begins. Whoever
    has evaluated a piece calls `take`, and the last `take` finishes the round: its line is written,
    and it is permanent. If this process dies before, only a round that was never reported is lost.
    What a round comes to is the same bytes as if this process had evaluated it alone.

    Where a round takes long, nobody is to wait for it until the one before is permanent, and the
    gaps are short beside it. Then pieces come first.

    Args:
        evaluating: what this process evaluates within, which is what its workers do.
        spare: whether this process has a core beside those of its workers, and evaluates pieces.
    """

    def __init__(
        self, evaluating: Callable[[], AbstractContextManager[object]], spare: bool = False
    ) -> None:
        self.evaluating, self.spare = evaluating, spare
        self.evaluation: Evaluation | None = None
        """Of the round that is not finished; None where all are."""
        self.waiting = deque[range]()
        """The pieces that nobody has."""
        self.first = False
        """Whether they come before clients."""
        self._found: dict[int, list[Part]] = {}
        self._finish: Callable[[Iterable[Part]], None] | None = None

    def begin(
        self, evaluation: Evaluation, finish: Callable[[Iterable[Part]], None], workers: int
    ) -> None:
        """Keep a round; the one before is finished.

        Args:
            evaluation: of its network.
            finish: is called with what all batches come to, in their order.
            workers: how many there are, of whom each gets several pieces.
        """
        assert self.evaluation is None
        self.evaluation, self._finish, self._found = evaluation, finish, {}
        self.waiting = deque(pieces(evaluation.batches, workers))

    def take_time(self, seconds: float) -> None:
        """Learn how long the clients of a round take."""
        self.first |= seconds > _LONG

    @property
    def is_small(self) -> bool:
        """Whether there is a round, and no use in handing its evaluation out."""
        return self.evaluation is not None and len(self.evaluation.batches) < 2

    def take(self, piece: range, parts: list[Part] | None) -> None:
        """Take what a piece comes to, and finish the round if that was the last.

        Args:
            piece: one that was waiting.
            parts: of its batches; None: a worker could not tell, so this process evaluates it.
        """
        assert self.evaluation is not None
        try:
            if not parts:
                with self.evaluating():
                    parts = list(self.evaluation.parts(piece))
            self._found[piece.start] = parts
        except BaseException:  # a bug in a metric: there is nothing that would finish the round
            self.evaluation = None
            self.waiting.clear()
            raise
        if sum(map(len, self._found.values())) == len(self.evaluation.batches):
            self._end()

    def flush(self) -> None:
        """Evaluate what is waiting in this process; nobody has other pieces."""
        while self.waiting:
            self.take(self.waiting.popleft(), None)
        if self.evaluation:  # there are no images to evaluate it on
            self._end()

    def _end(self) -> None:
        found, finish = self._found, self._finish
        self.evaluation, self._found, self._finish = None, {}, None
        assert finish is not None
        finish(part for start in sorted(found) for part in found[start])
