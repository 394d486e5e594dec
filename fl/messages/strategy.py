"""The strategy of an experiment, on which both ends of a message agree."""

import inspect
from functools import lru_cache

from fl.config import Experiment
from fl.config.parsing import ConfigError
from strategies import find
from strategies.making import is_flowers, made
from strategies.strategy import Strategy


@lru_cache(maxsize=4)
def strategy_of(knobs: Experiment) -> Strategy | None:
    """Return an experiment's strategy, the same object for equal ones; None for one of Flower's.

    Raises:
        ConfigError: it is a component that is no strategy.
    """
    kind, own = knobs.component("strategy.kind"), knobs.strategy.given
    if is_flowers(kind):
        return None
    if kind is None:
        kind, part = find(knobs.strategy.kind), knobs.strategy
        names = inspect.signature(kind).parameters.keys() & type(part).model_fields.keys()
        own = {name: getattr(part, name) for name in names} | own
    try:
        return made(kind, own)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"strategy.kind={knobs.strategy.kind}: {error}") from None
