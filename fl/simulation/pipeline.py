"""Work that is put off until workers are busy: a round is finished while they are at the next."""

from collections.abc import Callable


class Pipeline:
    """Holds what finishes a round until somebody has time for it.

    A round is evaluated and committed in this process, and clients train in others. So `when_busy`
    only takes note of what is to be done, and the pool of workers calls `flush` as soon as all of
    them have work. Until then the round is not permanent: all that is lost with this process is a
    round that nobody was told of.
    """

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []

    def when_busy(self, finish: Callable[[], None]) -> None:
        """Take note of what finishes a round; what was put off before is done first."""
        self.flush()
        self._waiting.append(finish)

    def flush(self) -> None:
        """Do what was put off."""
        while self._waiting:
            self._waiting.pop(0)()
