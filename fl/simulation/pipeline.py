"""Work that is put off until workers are busy: a round is finished while they are at the next."""

from collections.abc import Callable


class Pipeline:
    """Keeps what finishes a round until this process has time for it.

    A round is evaluated and committed in this process, and clients train in others. So `when_busy`
    only keeps what is to be done, and the pool of workers calls `flush` as soon as all of them have
    work. Until then the round is not permanent. If this process dies, only a round that was never
    reported is lost.
    """

    def __init__(self) -> None:
        self._unfinished: Callable[[], None] | None = None

    def when_busy(self, finish: Callable[[], None]) -> None:
        """Keep what finishes a round until workers are busy; the round before is finished first."""
        self.flush()
        self._unfinished = finish

    def flush(self) -> None:
        """Finish the round that is not finished yet, if there is one."""
        finish, self._unfinished = self._unfinished, None
        if finish:
            finish()
