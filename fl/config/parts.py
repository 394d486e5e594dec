"""The parts of an experiment: network, data, deal, clients, strategy."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fl.settings import Knobs

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
    init: Literal["auto", "torch", "he", "lecun"] = "auto"
    """Initial weights: PyTorch's default, N(0, 2/fan_in), or N(0, 1/fan_in). `auto`: the recipe's
    own, or else he."""
    stem_stride: Literal["auto", 1, 2, 4] = "auto"
    """Stride of the first layers, in pixels. `auto`: 2."""
    per_channel: bool = False
    """Whether learnable activation scalars are one a channel (true) or one a layer (false)."""
    dropout: Share = 0.0
    """Share of the classifier's inputs that training zeroes."""
    stochastic_depth: Share = 0.0
    """Share of examples for which training drops the last residual branch; less for earlier."""


class Data(Knobs):
    """Which images."""

    name: str = "fashion-mnist-small"
    """A data set by name; `fednf data list` shows them."""
    augment: Literal["none", "crop-flip"] = "none"
    """`crop-flip`: training images are shifted by up to an eighth of a side and half mirrored."""
    validation: Share = 0.0
    """Share of the training images that no client gets; the best round is the best on them."""


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
    clip: str = "auto"
    """Gradient clipping: `none`; `norm:C` scales a gradient whose 2-norm exceeds C down to C;
    `auto`: the recipe's own, or else norm:5."""
    activation_lr: Rate = 1.0
    """Factor on the learning rate of the learnable scalars of activations."""

    @field_validator("clip")
    @classmethod
    def _clip_is_spelt_right(cls, text: str) -> str:
        kind, _, bound = text.partition(":")
        try:
            valid = text in ("auto", "none") or (kind == "norm" and 0 < float(bound) < float("inf"))
        except ValueError:
            valid = False
        if not valid:
            raise ValueError("should be 'auto', 'none' or 'norm:C', C > 0, for example 'norm:5'")
        return text

    @property
    def clip_norm(self) -> float | None:
        """The bound C of `norm:C`, or None; of `auto`, 5."""
        if self.clip == "auto":
            return 5.0
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


class State(Knobs):
    """What becomes of the parts of a network's state that are not parameters."""

    bn: Literal["average", "pooled", "local", "recalibrate", "drop"] = "average"
    """BatchNorm's running statistics between rounds; docs/batchnorm.md has all five policies."""


class Signals(Knobs):
    """What is measured of networks on the way; not a part of what the run computes."""

    every: Annotated[int, Field(ge=0)] = 0
    """Rounds from one measurement of signals to the next; the last is measured too. 0: none."""
    images: Positive = 32
    """Training images in the one batch that is measured; a client that holds fewer takes all."""

    def due(self, number: int, rounds: int) -> bool:
        """Return whether a round out of so many is measured."""
        return self.every > 0 and (number % self.every == 0 or number == rounds)


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
