"""An experiment: all knobs together, and their forms outside of Python."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from fl.config.devices import Devices
from fl.config.fleet import Fleet
from fl.config.parsing import ConfigError, Knobs, Value, did_you_mean, flatten, one_line, unflatten
from fl.config.parts import (
    DEVICES,
    Client,
    Cohort,
    Data,
    Network,
    Partition,
    Positive,
    Run,
    Sampling,
    Signals,
    State,
    Strategy,
)
from fl.config.privacy import Privacy


class Experiment(Knobs):
    """All that determines a result on one kind of machine, byte for byte."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    """The one seed; all randomness is a function of it and of a path."""
    rounds: Positive = 10
    """Communication rounds."""
    recipe: str = "zc-swish"
    """A row of the recipes table (`fl/nn/recipes.py`): what fills the network's slots."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where clients train. `auto`: cuda where there is one."""
    engine: Literal["auto", "sequential", "cohort"] = "auto"
    """`sequential`: one client after another, the same bytes wherever it runs; `cohort`: many in
    one program, the same up to rounding. `auto`: `cohort` where this process simulates clients and
    they are short of work, else `sequential`; docs/engines.md."""
    network: Network = Network()
    data: Data = Data()
    partition: Partition = Partition()
    sampling: Sampling = Sampling()
    client: Client = Client()
    cohort: Cohort = Cohort()
    fleet: Fleet = Fleet()
    strategy: Strategy = Strategy()
    state: State = State()
    privacy: Privacy = Privacy()
    signals: Signals = Signals()
    devices: Devices = Devices()
    run: Run = Run()

    @model_validator(mode="after")
    def _enough_clients(self) -> "Experiment":
        if self.sampling.clients > self.partition.clients:
            raise ValueError(
                f"sampling.clients={self.sampling.clients} is more than "
                f"partition.clients={self.partition.clients}; lower it"
            )
        return self

    @model_validator(mode="after")
    def _images_are_where_they_are_asked_for(self) -> "Experiment":
        if self.data.name == DEVICES and (self.data.validation or self.signals.every):
            raise ValueError(
                f"data.name={DEVICES} leaves the server without images: set data.validation and "
                "signals.every to 0"
            )
        if self.devices.least > self.partition.clients:
            raise ValueError(
                f"devices.least={self.devices.least} is more than "
                f"partition.clients={self.partition.clients}; lower it"
            )
        return self

    def to_flat(self) -> dict[str, Value]:
        """Return the knobs as flat keys, in the order of this page."""
        return flatten(self.model_dump(by_alias=True))

    @classmethod
    def from_flat(cls, flat: Mapping[str, Value]) -> "Experiment":
        """Make an experiment from flat keys; a key that is left out keeps its default.

        Raises:
            ConfigError: an unknown key, a wrong type or an impossible combination.
        """
        known = Experiment().to_flat()
        for key in flat:
            if key not in known:
                raise ConfigError(f"unknown knob {key}; {did_you_mean(key, known)}")
        try:
            return cls.model_validate(unflatten(flat))
        except ValidationError as error:
            raise ConfigError(one_line(error, known)) from None

    def replace(self, flat: Mapping[str, Value]) -> "Experiment":
        """Return a copy in which the given flat keys have new values.

        Raises:
            ConfigError: as `from_flat`.
        """
        return self.from_flat({**self.to_flat(), **flat})

    @classmethod
    def describe(cls) -> dict[str, str]:
        """Return what this page says of every knob, by flat key."""
        said: dict[str, str] = {}
        for name, field in cls.model_fields.items():
            part = field.annotation
            if isinstance(part, type) and issubclass(part, Knobs):
                inner = part.model_fields.values()
                said |= {f"{name}.{f.alias}": str(f.description) for f in inner}
            else:
                said[str(field.alias)] = str(field.description)
        return said

    @property
    def identity(self) -> str:
        """SHA-256 over what may bear on a result: where it is equal, results have to be equal.

        That is all knobs but `signals.*`, `devices.*` and `run.*`.
        """
        knobs = {k: v for k, v in self.to_flat().items() if not k.startswith(_BYSTANDERS)}
        return hashlib.sha256(json.dumps(knobs, sort_keys=True).encode()).hexdigest()


_BYSTANDERS = ("signals.", "devices.", "run.")
"""Parts that bear on no result."""

_MINDED: dict[object, tuple[str, ...]] = {
    "iid": (),
    "dirichlet": ("alpha", "min-size"),
    "dirichlet-equal": ("alpha",),
    "dirichlet-balanced": ("alpha", "min-size"),
    "mixture": ("alpha", "quantity-alpha", "min-size"),
    "quantity": ("alpha", "min-size"),
    "shards": ("shards",),
    "label-count": ("labels",),
    "feature-noise": ("noise",),
    "natural": ("alpha", "min-size"),
}
"""Which knobs of a partition bear on which kind; all others of them bear on each."""


_UNMINDED: dict[object, tuple[str, ...]] = {
    "plainnet": ("stochastic-depth",),
    "cnn": ("stochastic-depth",),
    "ffnn": ("stem-stride", "stochastic-depth"),
}
"""Which knobs of a network don't bear on which kind."""


def has_batchnorm(recipe: object) -> bool:
    """Return whether networks of a recipe have BatchNorm layers, as its name then says first."""
    return str(recipe).startswith("batchnorm")


def relevant(knobs: Mapping[str, Value]) -> dict[str, Value]:
    """Return the flat keys that bear on a result.

    These are neither `signals.*`, `devices.*` nor `run.*`, nor those that others switch off.
    """
    idle = {key for key in knobs if key.startswith(_BYSTANDERS)}
    if (kind := knobs.get("partition.kind")) in _MINDED:
        particular = {name for names in _MINDED.values() for name in names}
        idle |= {f"partition.{name}" for name in particular.difference(_MINDED[kind])}
    idle |= {f"network.{name}" for name in _UNMINDED.get(knobs.get("network.kind"), ())}
    if not has_batchnorm(knobs.get("recipe")):
        idle |= {"state.bn", "state.fixed-from"}
    if knobs.get("strategy.kind") == "fedavg":
        idle.add("strategy.mu")
    if knobs.get("privacy.kind") == "none":
        idle |= {key for key in knobs if key.startswith("privacy.")} - {"privacy.kind"}
    if knobs.get("client.optimizer") == "adam":
        idle.add("client.momentum")
    if knobs.get("fleet.memory") not in (None, "none"):
        idle.add("client.batch-size")
    if knobs.get("fleet.availability") == 1:
        idle.add("fleet.day")
    return {key: value for key, value in knobs.items() if key not in idle}
