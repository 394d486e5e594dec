"""The strategy of an experiment, on which both ends of a message agree."""

import inspect
from functools import lru_cache

from fl.config import Experiment
from fl.config.parsing import ConfigError
from strategies import STRATEGIES, Strategy
from strategies.making import is_flowers, made


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
        kind = STRATEGIES[knobs.strategy.kind]
        own = {name: getattr(knobs.strategy, name) for name in inspect.signature(kind).parameters}
    try:
        return made(kind, own)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"strategy.kind={knobs.strategy.kind}: {error}") from None
