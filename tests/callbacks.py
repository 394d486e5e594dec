"""Callbacks for tests."""

from collections.abc import Callable

from fl.server.watching.callback import Callback, Line


class EachRound(Callback):
    """Calls a function with every round's line."""

    def __init__(self, call: Callable[[Line], object]) -> None:
        self.call = call

    def round_done(self, line: Line) -> None:
        self.call(line)
