"""The vocabulary: an Experiment and its parts, as Python objects, TOML tables or flat keys.

Every knob has one name. In Python it is an attribute (``experiment.client.batch_size``); in TOML,
``--set`` and Flower's run config it is a flat key (``client.batch-size``). All values are
immutable, and an impossible one is refused when the object is made.
"""

import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from fl.settings import ConfigError, Value, flatten

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Knobs(BaseModel):
    """Immutable settings whose names are written with hyphens outside of Python."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
        strict=True,  # true is no number and "4" is not 4
    )


class Network(Knobs):
    """The skeleton of the network; what fills its slots is the recipe."""

    kind: Literal["plainnet", "resnet"] = "plainnet"
    """`plainnet`: convolutions in a row, no skips; `resnet`: CIFAR basic blocks."""
    depth: Positive | Literal["auto"] = "auto"
    """Layers with weights on the longest path. `auto`: 8 for plainnet, 20 for resnet (6n + 2)."""
    width: Positive | Literal["auto"] = "auto"
    """Channels of the first stage; each later stage doubles them. `auto`: 16."""
    init: Literal["torch", "he", "lecun"] = "he"
    """Initial weights: PyTorch's default, N(0, 2/fan_in), or N(0, 1/fan_in)."""
    stem_stride: Literal[1, 2] = 2
    """Stride of the first convolution, in pixels."""
    per_channel: bool = False
    """Whether learnable activation scalars are one a channel (true) or one a layer (false)."""


class Data(Knobs):
    """Which images."""

    name: str = "fashion-mnist-small"
    """A data set by name; `fednf data list` shows them."""


class Partition(Knobs):
    """How the training images are dealt out to clients."""

    kind: Literal[
        "iid",
        "dirichlet",
        "dirichlet-equal",
        "dirichlet-balanced",
        "mixture",
        "quantity",
        "shards",
        "label-count",
        "feature-noise",
        "natural",
    ] = "dirichlet"
    """The law of the deal; docs/partitions.md has them all, and which knobs each minds."""
    alpha: Rate = 0.3
    """Dirichlet concentration of classes (`quantity`: of sizes): small is skewed, large is even."""
    clients: Positive = 20
    """How many clients there are."""
    min_size: Annotated[int, Field(ge=0)] = 10
    """The fewest images a client may hold where sizes are drawn; 0 allows empty clients."""
    quantity_alpha: Rate = 0.5
    """Dirichlet concentration of a `mixture`'s sizes; `alpha` is that of its mixes of classes."""
    shards: Positive = 2
    """Shards that a client of `shards` is dealt."""
    labels: Positive = 2
    """Labels that a client of `label-count` owns."""
    noise: NonNegative = 0.1
    """`feature-noise`: variance of the last client's noise, for inputs from 0 to 1."""
    held_out: Share = 0.0
    """Share of every client's images that it keeps from training, for personalised scores."""


class Sampling(Knobs):
    """Who takes part in a round."""

    clients: Positive = 10
    """Clients trained in a round, drawn without replacement."""


class Client(Knobs):
    """What a client does with its images in a round."""

    batch_size: Positive = 4
    """Images a step. The last batch of an epoch may be smaller; none is dropped."""
    epochs: Positive = 1
    """Passes over the client's images in a round."""
    lr: Rate = 0.05
    """Learning rate."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """The local optimizer; its state starts anew every round."""
    momentum: Share = 0.0
    """SGD's momentum; Adam ignores it and uses (0.9, 0.999)."""
    weight_decay: NonNegative = 0.0
    """L2 penalty λ, added to the gradient as λw for every parameter."""
    clip: str = "norm:5"
    """Gradient clipping: `none`, or `norm:C` scales a gradient whose 2-norm exceeds C down to C."""
    activation_lr: Rate = 1.0
    """Factor on the learning rate of the learnable scalars of activations."""

    @field_validator("clip")
    @classmethod
    def _clip_is_spelt_right(cls, text: str) -> str:
        kind, _, bound = text.partition(":")
        try:
            valid = text == "none" or (kind == "norm" and 0 < float(bound) < float("inf"))
        except ValueError:
            valid = False
        if not valid:
            raise ValueError("should be 'none' or 'norm:C' with C > 0, for example 'norm:5'")
        return text

    @property
    def clip_norm(self) -> float | None:
        """The bound C of `norm:C`, or None."""
        return None if self.clip == "none" else float(self.clip.partition(":")[2])


class Strategy(Knobs):
    """How the models of a round become one, and what that asks of a client's loss."""

    kind: Literal["fedavg", "fedprox"] = "fedavg"
    """FedAvg (arXiv 1602.05629) or FedProx (arXiv 1812.06127)."""
    mu: NonNegative = 0.0
    """FedProx's μ: the client's loss gains (μ/2)·‖w − w_global‖². 0 is FedAvg."""

    @model_validator(mode="after")
    def _mu_belongs_to_fedprox(self) -> "Strategy":
        if self.mu and self.kind != "fedprox":
            raise ValueError(
                f"strategy.mu={self.mu} needs strategy.kind=fedprox, found {self.kind}"
            )
        return self


class Run(Knobs):
    """Where a run is written when `flwr run` starts it; not a part of what the run computes."""

    dir: str = ""
    """An absolute folder. Empty: a folder named by Flower's run id in the user's data directory."""
    resume: bool = False
    """Whether to go on from the checkpoint in that folder."""


class Experiment(Knobs):
    """All that determines a result: two equal experiments give the same model, byte for byte."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    """The one seed; all randomness is a function of it and of a path."""
    rounds: Positive = 10
    """Communication rounds."""
    recipe: str = "zc-swish"
    """A row of the recipes table (`fl/nn/recipes.py`): what fills the network's slots."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where clients train. `auto`: cuda where there is one."""
    network: Network = Network()
    data: Data = Data()
    partition: Partition = Partition()
    sampling: Sampling = Sampling()
    client: Client = Client()
    strategy: Strategy = Strategy()
    run: Run = Run()

    @model_validator(mode="after")
    def _enough_clients(self) -> "Experiment":
        if self.sampling.clients > self.partition.clients:
            raise ValueError(
                f"sampling.clients={self.sampling.clients} is more than "
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
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
                raise ConfigError(f"unknown knob {key}; {hint}")
        try:
            return cls.model_validate(_unflatten(flat))
        except ValidationError as error:
            raise ConfigError(_one_line(error)) from None

    def replace(self, flat: Mapping[str, Value]) -> "Experiment":
        """Return a copy in which the given flat keys have new values.

        Raises:
            ConfigError: as `from_flat`.
        """
        return self.from_flat({**self.to_flat(), **flat})

    @property
    def identity(self) -> str:
        """SHA-256 over all knobs but `run.*`: equal exactly when the results have to be equal."""
        knobs = {k: v for k, v in self.to_flat().items() if not k.startswith("run.")}
        return hashlib.sha256(json.dumps(knobs, sort_keys=True).encode()).hexdigest()


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


def relevant(knobs: Mapping[str, Value]) -> dict[str, Value]:
    """Return the flat keys that bear on a result: not `run.*`, nor those that others switch off."""
    idle = {key for key in knobs if key.startswith("run.")}
    if (kind := knobs.get("partition.kind")) in _MINDED:
        particular = {name for names in _MINDED.values() for name in names}
        idle |= {f"partition.{name}" for name in particular.difference(_MINDED[kind])}
    if knobs.get("strategy.kind") == "fedavg":
        idle.add("strategy.mu")
    if knobs.get("client.optimizer") == "adam":
        idle.add("client.momentum")
    return {key: value for key, value in knobs.items() if key not in idle}


def _unflatten(flat: Mapping[str, Value]) -> dict[str, object]:
    tables: dict[str, object] = {}
    for key, value in flat.items():
        table, _, name = key.rpartition(".")
        if table:
            tables.setdefault(table, {})[name] = value  # pyrefly: ignore
        else:
            tables[key] = value
    return tables


def _one_line(error: ValidationError) -> str:
    """Say the first complaint of pydantic as: what, the value found, what to do."""
    first = error.errors()[0]
    complaint = first["msg"].removeprefix("Value error, ")
    complaint = complaint[0].lower() + complaint[1:]
    names = [str(part) for part in first["loc"] if "[" not in str(part)]
    known = Experiment().to_flat()
    while names and ".".join(names) not in known:
        names.pop()
    if not names:
        return complaint
    return f"{'.'.join(names)}={first['input']}: {complaint}"
