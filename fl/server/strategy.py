"""What plays an experiment's strategy on the server."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from flwr.serverapp import strategy as flower

from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.messages.local import staying
from fl.messages.strategy import clients_of, kind_of, strategy_of
from fl.nn import logarithms, moments, standardized_weights
from fl.reproducibility.seeds import stream
from fl.server.nodes import Nodes
from fl.training.parameters import FlatNetwork, Segment
from strategies.flower import Facade, flowers
from strategies.serving.forms import SCALARS, Form, standardized
from strategies.serving.gathering import Gathering, Layout, looks_at_replies
from strategies.serving.private import Noise, Private
from strategies.serving.server import Averaging, Sampler, Server


def server_of(knobs: Experiment, nodes: Nodes, network: FlatNetwork) -> Server:
    """Return what plays the strategy that the knobs name, as private as they want it.

    Raises:
        ConfigError: the strategy is none, or not private; or the noise could be repeated by devices
            that hold images of their own.
    """
    privacy, strategy = knobs.privacy, strategy_of(knobs)
    noisy = privacy.noise or privacy.per_example_noise
    if privacy.noise_from == "seed" and noisy and not nodes.simulated:
        raise ConfigError(
            "privacy.noise-from=seed: all devices know the seed and could take the noise off; set "
            "privacy.noise-from=system"
        )
    sampler = Sampler(
        clients=knobs.sampling.clients,
        nodes=nodes.nodes,
        available=nodes.available,
        stream=partial(stream, knobs.seeds["sampling"], "sampling", "round"),
    )
    pooled = moments(network.module) if knobs.state.bn == "pooled" else {}
    if strategy is None:
        names = [part.name for part in _shared(knobs, nodes, network)]
        return _facade(knobs, sampler, names, pooled)
    forms = dict[str, Form]()
    if knobs.state.scalars != "log":
        forms |= dict.fromkeys(logarithms(network.module), SCALARS[knobs.state.scalars])
    if knobs.state.weights == "standardized":
        forms |= {
            name: standardized(eps) for name, eps in standardized_weights(network.module).items()
        }
    average = Averaging(sampler, pooled, privacy.kind != "none", forms)
    mean = _private(knobs, network, average) if average.uniform else average
    if strategy.is_mean:
        return mean
    segments = _shared(knobs, nodes, network)
    names, shapes = zip(*((part.name, part.shape) for part in segments), strict=True)
    layout = Layout(names, shapes, network.weights[:0].cpu().numpy().dtype)
    try:
        taking_part = knobs.partition.clients - knobs.partition.unseen_clients
        return Gathering(strategy, mean, layout, taking_part)
    except ValueError as error:
        raise ConfigError(f"strategy.kind={knobs.strategy.kind}: {error}") from None


def _shared(knobs: Experiment, nodes: Nodes, network: FlatNetwork) -> list[Segment]:
    """Return the parameters that clients share."""
    assert nodes.form is not None
    kept = staying(knobs, network.module, nodes.form.classes)
    return [part for part in network.segments if part.name not in kept]


def flower_of(knobs: Experiment) -> flower.Strategy | None:
    """Return a new strategy of Flower's, if that is what the knobs name; None for one of ours.

    Raises:
        ConfigError: the strategy is none, or not private, or not for clients that train so, or not
            for what is averaged so.
    """
    strategy, kind = strategy_of(knobs), knobs.strategy.kind
    for key, value in (("scalars", "log"), ("weights", "raw")):
        if (asked := getattr(knobs.state, key)) != value:
            more = strategy is None or bool(looks_at_replies(strategy))
            _check_form(knobs, f"state.{key}", asked, more)
    if strategy is not None:
        return None
    if knobs.privacy.kind != "none":
        raise ConfigError(
            f"privacy.kind={knobs.privacy.kind} is for strategies of ours and subclasses of "
            f"fl.Strategy, and strategy.kind={kind} is Flower's; set privacy.kind=none"
        )
    try:
        return flowers(kind_of(knobs), knobs.strategy.given, clients_of(knobs))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"strategy.kind={kind}: {error}") from None


def _check_form(knobs: Experiment, key: str, value: str, more: bool) -> None:
    """Refuse what does not go by the mean alone, `more` of a strategy, or adds noise for it."""
    if more:
        found = f"strategy.kind={knobs.strategy.kind}"
    elif knobs.privacy.kind != "none":
        found = f"privacy.kind={knobs.privacy.kind}"
    else:
        return
    raise ConfigError(
        f"{key}={value} is for strategies of ours that see the clients' mean only, without noise, "
        f"found {found}; leave {key} out"
    )


def _facade(
    knobs: Experiment, sampler: Sampler, parameters: Sequence[str], pooled: Mapping[str, str]
) -> Facade:
    """Return what plays a strategy of Flower's."""
    kind, strategy = knobs.strategy.kind, flower_of(knobs)
    assert strategy is not None
    try:
        random = partial(stream, knobs.seed, "strategy", "round")
        return Facade(strategy, sampler, random, parameters, pooled)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"strategy.kind={kind}: {error}") from None


def _private(knobs: Experiment, network: FlatNetwork, average: Averaging) -> Private:
    """Return an average that is as private as the knobs want it."""
    privacy = knobs.privacy

    def noise(number: int) -> np.random.Generator:
        if privacy.noise_from == "system":
            return np.random.default_rng()
        return stream(knobs.seed, "privacy", "round", number)

    covered = {part.name for part in network.segments}
    kind = privacy.kind
    assert kind != "none"
    return Private(average, Noise(privacy.noise, privacy.clip, covered, noise), kind)
