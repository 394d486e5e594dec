"""The strategy of an experiment, on which both ends of a message agree."""

import inspect
from functools import lru_cache, partial
from typing import Any

from fl import fleet
from fl.config import Experiment
from fl.config.parsing import ConfigError
from strategies import STRATEGIES, find
from strategies.making import is_flowers, made
from strategies.strategy import Clients, Strategy


@lru_cache(maxsize=4)
def strategy_of(knobs: Experiment) -> Strategy | None:
    """Return an experiment's strategy, the same object for equal ones; None for one of Flower's.

    Raises:
        ConfigError: it is a component that is no strategy, or is not for clients that train so.
    """
    kind, own, part = kind_of(knobs), knobs.strategy.given, knobs.strategy
    if is_flowers(kind):
        return None
    if part.kind in STRATEGIES:
        names = inspect.signature(kind).parameters.keys() & type(part).model_fields.keys()
        own = {name: getattr(part, name) for name in names} | own
    try:
        return made(kind, own, clients_of(knobs))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"strategy.kind={knobs.strategy.kind}: {error}") from None


def kind_of(knobs: Experiment) -> Any:
    """Return the class of an experiment's strategy: ours, Flower's, or a user's."""
    component = knobs.component("strategy.kind")
    return find(knobs.strategy.kind) if component is None else component


def clients_of(knobs: Experiment) -> Clients:
    """Return what a strategy may know of how an experiment's clients train."""
    client, sgd = knobs.client, knobs.client.optimizer == "sgd"
    return Clients(
        asked=knobs.sampling.clients,
        rounds=knobs.rounds,
        rate=partial(fleet.rate, knobs),
        optimizer=client.optimizer,
        momentum=client.momentum if sgd else 0.0,
        nesterov=client.nesterov,
        carried=client.carry_momentum,
    )
