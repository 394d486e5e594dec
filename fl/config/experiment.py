"""An experiment: all knobs together, and their forms outside of Python."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError, model_validator

from fl.config import components
from fl.config.devices import Devices
from fl.config.faults import Faults, idle_faults
from fl.config.fleet import Fleet
from fl.config.parsing import (
    ConfigError,
    Knobs,
    Value,
    did_you_mean,
    flatten,
    one_line,
    read_toml,
    unflatten,
)
from fl.config.parts import (
    DEVICES,
    PULLING,
    RECIPE,
    Client,
    Data,
    Network,
    Partition,
    Positive,
    Sampling,
    Signals,
    State,
    Strategy,
    Vectorized,
)
from fl.config.parts import client as _client
from fl.config.parts import network as _network
from fl.config.parts import state as _state
from fl.config.privacy import Privacy, idle_privacy
from fl.config.renamed import first_spelling, modernize
from fl.config.round import Evaluation, Round
from fl.config.run import Governed, Run, Seeds
from fl.config.task import Task


class Experiment(Seeds):
    """All that determines a result on one kind of machine, byte for byte."""

    rounds: Positive = 10
    """Communication rounds."""
    recipe: str = RECIPE
    """The recipe fills the network's slots: a row of the table in `fl/nn/recipes/`, or a recipe
    of your own, `path/file.py:name`. `auto`, as none: zc-swish, or `own` for your own network."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device that clients train on. `auto` takes cuda where there is one, else cpu."""
    engine: Literal["auto", "sequential", "vectorized"] = "auto"
    """How clients train. `sequential` trains one client after another and gives the same bytes
    wherever it runs. `vectorized` trains many clients in one program; each client's result matches
    `sequential` but for rounding, which BatchNorm at batch 1 carries far in a few rounds. `auto`
    takes `vectorized` where this machine simulates the clients and a step leaves a core idle, else
    `sequential`; see docs/guide/engines.md."""
    components: str = ""
    """The source of all that is your own, as JSON. It is read from the files that other knobs
    name; leave it out."""
    network: Network = Network()
    task: Task = Task()
    data: Data = Data()
    partition: Partition = Partition()
    sampling: Sampling = Sampling()
    client: Client = Client()
    vectorized: Vectorized = Vectorized()
    fleet: Fleet = Fleet()
    faults: Faults = Faults()
    round: Round = Round()
    strategy: Strategy = Strategy()
    state: State = State()
    privacy: Privacy = Privacy()
    evaluation: Evaluation = Evaluation()
    signals: Signals = Signals()
    devices: Devices = Devices()
    run: Run = Run()

    @model_validator(mode="before")
    @classmethod
    def _old_spellings_are_read(cls, tables: object) -> object:
        """Rename what a caller in Python spells in the old way; flat keys are new by then."""
        if not isinstance(tables, Mapping):
            return tables
        parts = {key: value for key, value in tables.items() if not isinstance(value, Value)}
        single = {key: value for key, value in tables.items() if isinstance(value, Value)}
        return {**parts, **modernize(single)}

    @model_validator(mode="before")
    @classmethod
    def _components_are_read(cls, tables: object) -> object:
        """Put the source of components into the knobs, unless it is there already."""
        if not isinstance(tables, Mapping):
            return tables
        given = {key: components.get(tables, key) for key in components.KEYS}
        given = {key: components.named(found) for key, found in given.items() if found is not None}
        known = str(tables.get("components") or "")
        if given.get("recipe", "auto") == "auto":
            given["recipe"] = "own" if components.names(given.get("network.kind", "")) else RECIPE
        if not (known or any(map(components.names, given.values()))):
            return components.put(tables, given)
        given, text = components.gather(given, known)
        return {**components.put(tables, given), "components": text}

    @model_validator(mode="after")
    def _options_fit(self) -> "Experiment":
        for part, key in components.PARTS.items():
            asked = getattr(self, part)
            components.check_options(key, self.component(key) or asked.ours, asked.given)
        return self

    @model_validator(mode="after")
    def _enough_clients(self) -> "Experiment":
        sampled, clients = self.sampling.clients, self.partition.clients
        for key, n in {"sampling.clients": sampled, "devices.least": self.devices.least}.items():
            if n > clients:
                raise ValueError(f"{key}={n} is more than partition.clients={clients}; lower it")
        self.faults.check(clients, self.task.kind, self.round.deadline)
        self.round.check(sampled)
        self.partition.check(sampled, self.evaluation.clients, self.data.name == DEVICES)
        self.client.check(self.privacy.per_example_clip)
        return self

    @model_validator(mode="after")
    def _images_are_where_they_are_asked_for(self) -> "Experiment":
        if self.data.name == DEVICES and (self.data.validation or self.signals.every):
            raise ValueError(
                f"data.name={DEVICES} leaves the server without images: set data.validation and "
                "signals.every to 0"
            )
        if self.run.patience and not self.data.validation:
            rounds = f"run.patience={self.run.patience}"
            raise ValueError(f"{rounds} goes by validation images: set data.validation, as to 0.1")
        return self

    def component(self, key: str) -> Any:
        """Return the user's own object that a knob names, None where it names one of ours.

        Args:
            key: one of `fl.config.components.KEYS` with a single component.

        Raises:
            ConfigError: its file raises an exception, or has nothing of that name.
        """
        part, _, name = key.rpartition(".")
        value = getattr(getattr(self, part) if part else self, name)
        found = components.names(value)
        return components.find(key, found[0], self.components) if found else None

    def to_flat(self) -> dict[str, Value]:
        """Return the knobs as flat keys, in the order in which the parts declare them."""
        return flatten(self.model_dump(by_alias=True))

    @classmethod
    def from_flat(cls, flat: Mapping[str, object]) -> "Experiment":
        """Make an experiment from flat keys; a key that is left out keeps its default.

        Where a component can be named, the object itself can stand: a class or a function.

        Raises:
            ConfigError: an unknown key, a wrong type or an impossible combination.
        """
        plain, known = modernize(components.with_names(flat)), _defaults()
        plain = components.with_options(plain)
        for key in plain:
            if key not in known:
                raise ConfigError(f"unknown knob {key:.200}; {did_you_mean(key, known)}")
        try:
            return cls.model_validate(unflatten(plain, known))
        except ValidationError as error:
            raise ConfigError(one_line(error, known)) from None

    @classmethod
    def from_toml(cls, path: str | Path) -> "Experiment":
        """Read an experiment from a TOML file; the files of its components may lie beside it.

        Raises:
            ConfigError: as `from_flat`, or the file can't be read.
        """
        return cls.from_flat(components.beside(modernize(read_toml(Path(path))), Path(path).parent))

    def replace(self, flat: Mapping[str, object]) -> "Experiment":
        """Return a copy in which the given flat keys have new values.

        Raises:
            ConfigError: as `from_flat`.
        """
        changes = modernize(components.with_names(flat))
        if "run.start-from" in changes:  # the hash goes with the file that it is of
            changes = {"run.start-sha256": "", **changes}
        return self.from_flat(components.replaced(self.to_flat(), changes))

    @classmethod
    def describe(cls) -> dict[str, str]:
        """Return the description of every knob, by flat key."""
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
        """SHA-256 over all knobs that may change a result: equal identities give equal results.

        That is all knobs that are not `bystander`s. They are hashed as they were first spelt, and
        without those that were added later and have their defaults, so that an experiment keeps its
        identity when a knob is renamed or added.
        """
        flat = first_spelling(self.to_flat())
        knobs = {
            key: value
            for key, value in flat.items()
            if not bystander(key) and (key, value) not in ADDED_LATER.items()
        }
        return hashlib.sha256(json.dumps(knobs, sort_keys=True).encode()).hexdigest()


_LATER = (Task, Round, Faults, Evaluation)
ADDED_LATER: dict[str, Value] = {
    **dict.fromkeys(["components", *(f"{part}.options" for part in components.PARTS)], ""),
    **flatten({p.__name__.lower(): p().model_dump(by_alias=True) for p in _LATER}),
    **dict.fromkeys([f"seed.{what}" for what in get_args(Governed)], "auto"),
    **_client.ADDED,
    **_network.ADDED,
    **_state.ADDED,
    **{f"privacy.{name}": 0.0 for name in ("per-example-clip", "per-example-noise", "delta")},
    "partition.unseen": 0.0,
} | {"run.start-sha256": "", "run.patience": 0, "data.layout": "auto"}
"""Knobs that the first experiments did not have, and the values that stand for what those did."""
_BYSTANDERS = "signals.", "devices.", "run.", "privacy.delta", "round.deadline", "round.on-failure"
"""What changes no result: parts, but for two of `run`'s knobs, and knobs."""
_NO_BYSTANDERS = ("run.start-sha256", "run.patience")
_defaults = cache(lambda: Experiment().to_flat())


def lengths(knobs: Experiment) -> tuple[str, ...]:
    """Return the knobs that say how long a run is, and no more: with others it goes on alike."""
    return ("run.patience",) if knobs.client.plans_ahead else ("rounds", "run.patience")


def bystander(key: str) -> bool:
    """Return whether a knob changes no result. Of given weights the hash does, not the place."""
    return key.startswith(_BYSTANDERS) and key not in _NO_BYSTANDERS


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
    "yours": ("min-size",),
}
"""The knobs that each kind of partition reads. Knobs in no row are read by every kind."""


def relevant(knobs: Mapping[str, Value]) -> dict[str, Value]:
    """Return the flat keys that bear on a result, as far as that is known without the recipe.

    These are no `bystander`s, and no knobs that others switch off.
    `fl.nn.relevant` also leaves out `state.*` where the recipe has no BatchNorm layers.
    """
    idle = {key for key in knobs if bystander(key)} | idle_privacy(knobs) | idle_faults(knobs)
    kind = str(knobs.get("partition.kind"))
    if kind in _MINDED or components.is_component(kind):
        particular = {name for names in _MINDED.values() for name in names}
        minded = _MINDED.get(kind, _MINDED["yours"])
        idle |= {f"partition.{name}" for name in particular.difference(minded)}
    idle |= _network.idle_network(knobs) | _client.idle_client(knobs)
    idle |= set() if knobs.get("strategy.kind") in PULLING else {"strategy.mu"}
    if knobs.get("fleet.memory") not in (None, "none"):
        idle.add("client.batch-size")
    if knobs.get("fleet.availability") == 1:
        idle.add("fleet.day")
    return components.spelt_out({k: v for k, v in knobs.items() if k not in idle})
