"""The vocabulary: an Experiment and its parts, as Python objects, TOML tables or flat keys.

Every knob has one name. In Python it is an attribute (``experiment.client.batch_size``); in TOML,
``--set`` and Flower's run config it is a flat key (``client.batch-size``). All values are
immutable, and an impossible one is refused when the object is made.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from fl.settings import (
    ConfigError,
    Knobs,
    Value,
    did_you_mean,
    flatten,
    one_line,
    unflatten,
)

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


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
    augment: Literal["none", "crop-flip"] = "none"
    """`crop-flip`: training images are shifted by up to an eighth of a side and half mirrored."""


class Partition(Knobs):
    """How the training images are dealt out to clients."""

    kind: Literal["iid", "dirichlet", "dirichlet-equal"] = "dirichlet"
    """`dirichlet`: deals each class; `dirichlet-equal`: draws each client's mix, equal sizes."""
    alpha: Rate = 0.3
    """Dirichlet concentration: small is skewed, large is even. Not used by `iid`."""
    clients: Positive = 20
    """How many clients there are."""
    min_size: Annotated[int, Field(ge=0)] = 10
    """The fewest images a client of `dirichlet` may hold; 0 allows empty clients."""


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


class Fleet(Knobs):
    """How unequal devices are; `fl/fleet.py` says what each does in a round."""

    stragglers: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a client does only U{1, …, E} of E local epochs in a round."""
    partial: Literal["keep", "drop"] = "keep"
    """What becomes of a client that did fewer epochs than asked."""
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a client that was asked does not reply."""
    memory: str = "none"
    """Batch sizes that devices can hold: `none`, or tiers `B:SHARE,…` such as `1:0.3,4:0.7`."""
    speeds: str = "none"
    """Simulated clock: `none`, or `lognormal:MEDIAN:SIGMA` with the median in images a second."""
    deadline: NonNegative = 0.0
    """Simulated seconds after which the server closes a round; 0 waits for all."""
    availability: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of its day during which a client can be asked."""
    day: Positive = 24
    """Rounds in a day."""

    @property
    def tiers(self) -> tuple[tuple[int, float], ...]:
        """Batch sizes and the share of the devices that hold them; empty for `none`."""
        if self.memory == "none":
            return ()
        pairs = [text.split(":") for text in self.memory.split(",")]
        return tuple((int(size), float(share)) for size, share in pairs)

    @property
    def lognormal(self) -> tuple[float, float] | None:
        """Median and σ of `speeds`; None for `none`."""
        if self.speeds == "none":
            return None
        kind, median, sigma = self.speeds.split(":")
        if kind != "lognormal":
            raise ValueError(kind)
        return float(median), float(sigma)

    @model_validator(mode="after")
    def _texts_are_spelt_right(self) -> "Fleet":
        try:
            tiers = self.tiers
            total = math.fsum(share for _, share in tiers)
            sound = all(size >= 1 and share > 0 for size, share in tiers)
            sound = sound and (not tiers or math.isclose(total, 1, abs_tol=1e-6))
        except ValueError:
            sound = False
        if not sound:
            raise ValueError(
                f"fleet.memory={self.memory} should be none or tiers B:SHARE,… whose shares sum to "
                "1, for example 1:0.3,4:0.4,16:0.3"
            )
        try:
            median, sigma = self.lognormal or (1.0, 0.0)
            sound = 0 < median < math.inf and 0 <= sigma <= 10
        except ValueError:
            sound = False
        if not sound:
            raise ValueError(
                f"fleet.speeds={self.speeds} should be none or lognormal:MEDIAN:SIGMA, for example "
                "lognormal:100:0.5"
            )
        if self.deadline and self.lognormal is None:
            raise ValueError(
                f"fleet.deadline={self.deadline:g} needs a clock: set fleet.speeds, for example to "
                "lognormal:100:0.5"
            )
        return self


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

    @field_validator("dir")
    @classmethod
    def _dir_is_absolute(cls, text: str) -> str:
        if text and not Path(text).is_absolute():
            raise ValueError("should be an absolute path, since Flower runs the server elsewhere")
        return text


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
    network: Network = Network()
    data: Data = Data()
    partition: Partition = Partition()
    sampling: Sampling = Sampling()
    client: Client = Client()
    fleet: Fleet = Fleet()
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
        """SHA-256 over all knobs but `run.*`: where it is equal, results have to be equal."""
        knobs = {k: v for k, v in self.to_flat().items() if not k.startswith("run.")}
        return hashlib.sha256(json.dumps(knobs, sort_keys=True).encode()).hexdigest()


def relevant(knobs: Mapping[str, Value]) -> dict[str, Value]:
    """Return the flat keys that bear on a result: not `run.*`, nor those that others switch off."""
    idle = {key for key in knobs if key.startswith("run.")}
    if knobs.get("partition.kind") == "iid":
        idle.add("partition.alpha")
    if knobs.get("partition.kind") != "dirichlet":
        idle.add("partition.min-size")
    if knobs.get("strategy.kind") == "fedavg":
        idle.add("strategy.mu")
    if knobs.get("client.optimizer") == "adam":
        idle.add("client.momentum")
    if knobs.get("fleet.availability") == 1:
        idle.add("fleet.day")
    return {key: value for key, value in knobs.items() if key not in idle}
