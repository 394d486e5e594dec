"""Callbacks: what is told of a run while it is under way, to who watches it and changes nothing."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from fl.config import Experiment, components
from fl.config.parsing import ConfigError
from fl.reproducibility.errors import in_words
from fl.server.failures import Failure, RunFailed
from fl.server.journal import Journal


@dataclass(frozen=True)
class RunInfo:
    """The run that a callback is told of."""

    folder: Path
    """Where it is written; every line that is told is in a file there."""
    knobs: Experiment
    conditions: Mapping[str, object]
    """All of `experiment.json`: engine, versions, hashes of data, deal and code."""
    resumed_after: int | None
    """The last round that was finished when the run was opened; None where it is new."""


class Line(dict):
    """A line of `rounds.jsonl` or `clients.jsonl`, as a dict of its own.

    Args:
        figures: what the line holds.
        replayed: whether the round was finished before the run was resumed.
    """

    def __init__(self, figures: Mapping[str, object], *, replayed: bool = False) -> None:
        super().__init__(deepcopy(dict(figures)))
        self.replayed = replayed
        """Whether the round was finished before the run was resumed."""


class Callback:
    """Is told of a run while it is under way. Override what you want to hear of.

    Only what is permanent is told: a round after its checkpoint is on the disk. So a run that is
    killed may have told less than its folder holds, and never more. The calls come in this order,
    in the process of the server:

    1. `run_begun`, once;
    2. of every round, from round 0, which is the evaluation before the first: `client_done` for
       each client whose reply was used, in the order of their partitions, and then `round_done`.
       A resumed run tells its former rounds first; their lines have ``replayed=True``;
    3. `run_ended` or `run_stopped`, once.

    A callback changes no result, since it gets copies. An exception in one is a bug: it ends the
    run with status 1, no finished round is lost, and the run can be resumed.

    Examples:
        >>> class Best(Callback):
        ...     loss = float("inf")
        ...
        ...     def round_done(self, line):
        ...         self.loss = min(self.loss, line["test_loss"])
        >>> best = Best()
        >>> best.round_done({"round": 0, "test_loss": 2.5})
        >>> best.loss
        2.5
    """

    def run_begun(self, run: RunInfo) -> None:
        """Hear that a run begins or goes on; its folder has `experiment.json`."""

    def client_done(self, line: Line) -> None:
        """Hear of a client's training in a round: a line of `clients.jsonl`."""

    def round_done(self, line: Line) -> None:
        """Hear of a finished round: a line of `rounds.jsonl`."""

    def run_ended(self, result: Mapping[str, object]) -> None:
        """Hear that all rounds are done; `result` is what `result.json` holds."""

    def run_stopped(self, reason: str) -> None:
        """Hear that the run ends before its last round, and why, in one line; it can be resumed."""


def found(text: str) -> type[Callback] | Callback:
    """Return the callback that a name stands for: a class, or an object that is there already.

    Args:
        text: ``path/file.py:Name`` or ``package.module:Name``.

    Raises:
        ConfigError: it is no such name, its file raises an exception, or it is no callback.
    """
    key = "callback"
    if not components.is_component(text):
        raise ConfigError(f"{key}={text}: expected path/file.py:Name or package.module:Name")
    names, sources = components.gather({key: text}, "")
    thing = components.find(key, names[key], sources)
    if not issubclass(thing if isinstance(thing, type) else type(thing), Callback):
        raise ConfigError(f"{key}={text}: this is no fl.Callback; let the class inherit from it")
    return thing


def make(text: str) -> Callback:
    """Make the callback that a name stands for, without arguments; see `found`."""
    thing = found(text)
    return thing() if isinstance(thing, type) else thing


class CallbackFailed(RunFailed):
    """A callback raised an exception."""


RoundCallback = Callable[[Mapping, Sequence[Mapping]], None]
"""Is called with a round's line and those of its clients as soon as they are permanent."""


class Audience:
    """Tells callbacks of one run, and whoever has heard of its beginning also of its end.

    Args:
        callbacks: are told in this order.
        as_is: raise what they raise as it is, for a debugger.
    """

    def __init__(self, callbacks: Sequence[Callback] = (), *, as_is: bool = False) -> None:
        self._callbacks, self._as_is = callbacks, as_is
        self._begun: list[Callback] = []

    def __enter__(self) -> "Audience":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        reason = in_words(error) if isinstance(error, Exception) else "interrupted"
        for callback in self._begun:
            with suppress(Exception):  # what went wrong first is what is to be told
                callback.run_stopped(reason)

    def begin(self, journal: Journal, knobs: Experiment) -> None:
        """Tell of a run whose folder is open, and of the rounds that it has finished."""
        if not self._callbacks:
            return
        lines = journal.rounds()
        last = lines[-1]["round"] if lines else None
        info = RunInfo(journal.folder, knobs, journal.header(), last)
        for callback in self._callbacks:
            self._tell(callback, "run_begun", deepcopy(info))
            self._begun.append(callback)
        clients: dict[int, list[dict]] = {}
        if lines and any(_listens(callback, "client_done") for callback in self._callbacks):
            by_round = groupby(journal.clients(), key=lambda line: line["round"])
            clients = {number: list(group) for number, group in by_round}
        for line in lines:
            self._round(line, clients.get(line["round"], ()), replayed=True)

    @property
    def round(self) -> RoundCallback | None:
        """What is to be called after every round; None where nobody listens."""
        return self._round if self._callbacks else None

    def end(self, result: Mapping[str, object]) -> None:
        """Tell of a run's result; to be called once it is on the disk."""
        begun, self._begun, failed = self._begun, [], list[CallbackFailed]()
        for callback in begun:
            try:
                self._tell(callback, "run_ended", deepcopy(result))
            except CallbackFailed as error:
                failed.append(error)
        if failed:
            raise failed[0]

    def _round(self, line: Mapping, clients: Sequence[Mapping], replayed: bool = False) -> None:
        for callback in self._callbacks:
            if _listens(callback, "client_done"):
                for client in clients:
                    self._tell(callback, "client_done", Line(client, replayed=replayed))
            self._tell(callback, "round_done", Line(line, replayed=replayed))

    def _tell(self, callback: Callback, hook: str, told: object) -> None:
        try:
            getattr(callback, hook)(told)
        except Exception as error:
            if self._as_is:
                raise
            failure = Failure.of(error)
            raise CallbackFailed(
                f"callback {type(callback).__name__}.{hook}: {failure.reason} ({failure.place}); "
                "every finished round is kept, and --resume goes on",
                failure.short,
            ) from error


def _listens(callback: Callback, hook: str) -> bool:
    """Return whether a callback does anything when it is told."""
    return getattr(getattr(callback, hook), "__func__", None) is not getattr(Callback, hook)
