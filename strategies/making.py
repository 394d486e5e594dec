"""Making a strategy from its class: a user's class is checked first, and its mistakes told."""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from flwr.serverapp import strategy as flower

from strategies.strategy import Clients, Strategy, overrides

_HOOKS = ("meet", "choose", "weight", "receive", "aggregate", "correct", "finish")
"""What a subclass overrides."""


def is_flowers(kind: object) -> bool:
    """Return whether a class is a strategy of Flower's, or made from one."""
    return isinstance(kind, type) and issubclass(kind, flower.Strategy)


def made(kind: Any, own: Mapping[str, Any], clients: Clients | None = None) -> Strategy:
    """Return a strategy of a class, which from here on does not change.

    Args:
        kind: a subclass of `Strategy`.
        own: arguments of its constructor.
        clients: those that it meets; None: it meets none.

    Raises:
        ValueError: the class is none, a method can't be called as it is going to be, or the
            strategy is not for these clients.
    """
    if not (isinstance(kind, type) and issubclass(kind, Strategy)):
        raise ValueError(f"{kind!r} is no subclass of fl.Strategy or of Flower's Strategy")
    _misspelt(kind)
    for name in ("shared", "kept", "sent"):
        names = getattr(kind, name)
        if not isinstance(names, tuple) or not all(isinstance(one, str) for one in names):
            raise ValueError(f"{_place(kind)}{name}={names!r} should be a tuple of names")
    if both := set(kind.shared) & set(kind.kept):
        raise ValueError(f"{_place(kind)}shared and kept both name {both.pop()!r}; rename one")
    found = kind(**own)
    for name in _HOOKS:
        if overrides(found, name):
            _fits(getattr(found, name), getattr(Strategy, name))
    if kind.sent and not overrides(found, "finish"):
        raise ValueError(f"{_place(kind)}sent={kind.sent} needs a method finish that returns them")
    if clients is not None:
        found.meet(clients)
    found.seal()
    return found


def _fits(own: Any, ours: Any) -> None:
    """Check that a method takes the arguments that it is going to be called with."""
    names = list(inspect.signature(ours).parameters)[1:]
    try:
        inspect.signature(own).bind(*names)
    except TypeError:
        found = inspect.signature(own)
        wanted = ", ".join(["self", *names])
        place = _place(own)
        raise ValueError(f"{place}{own.__name__}{found} should take ({wanted})") from None


def _misspelt(kind: type[Strategy]) -> None:
    """Refuse a method whose name is nearly one of those that a subclass overrides."""
    for name, value in vars(kind).items():
        if name.startswith("_") or hasattr(Strategy, name) or not callable(value):
            continue
        if near := difflib.get_close_matches(name, _HOOKS, n=1, cutoff=0.8):
            raise ValueError(f"{_place(value)}{name}: did you mean {near[0]}?")


def _place(thing: Any) -> str:
    """Return ``file:line: `` of a definition, where it is known."""
    try:
        return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]}: "
    except (TypeError, OSError):
        return ""
