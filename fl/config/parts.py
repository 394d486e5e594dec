"""The parts of an experiment: network, data, deal, clients, strategy."""

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fl.config.parsing import Knobs

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


DEVICES = "devices"
"""The data set of which every device has a part and the server nothing."""

CLIP = "norm:5"
"""Gradient clipping where neither the knob nor the recipe says anything else."""


class Network(Knobs):
    """The skeleton of the network; what fills its slots is the recipe."""

    kind: Literal[
        "plainnet", "cnn", "resnet", "resnet-v2", "nfnet", "efficientnet", "ffnn", "vit"
    ] = "plainnet"
    """`plainnet`: convolutions in a row, no skips; `cnn`: two of them with max pools; `resnet`:
    blocks with a skip; `resnet-v2`: with the activation in front, NF-ResNet with a recipe `nf`;
    `nfnet`: NFNet-F0 to -F6; `efficientnet`: EfficientNet, at its `auto` B0; `ffnn`: linear layers
    in a row on whole images; `vit`: a small vision transformer."""
    depth: Positive | Literal["auto", "F0", "F1", "F2", "F3", "F4", "F5", "F6"] = "auto"
    """Layers with weights on the longest path; of efficientnet and vit, blocks. `auto`: 8 for
    plainnet; 3 for cnn, its only one; 20 for resnets, which have 6n + 2 or one of 18, 34, 50, 101,
    152 (resnet-v2: also 26), and then four stages; F0 for nfnet, which has F0 to F6; 16 for
    efficientnet (7 or more); 11 for ffnn; 6 for vit."""
    width: Positive | Literal["auto"] = "auto"
    """Channels of the first stage, which each later stage doubles; of nfnet and efficientnet those
    of the stem, and all others in proportion; of ffnn, units of a layer; of vit, channels of a
    token. `auto`: 16; of resnets with four stages 64, of nfnet 128, of efficientnet 32, of ffnn
    100, of vit 192."""
    init: Literal["auto", "torch", "he", "lecun"] = "auto"
    """Initial weights: PyTorch's default, N(0, 2/fan_in), or N(0, 1/fan_in). `auto`: the recipe's
    own, or else he, for vit lecun."""
    stem_stride: Literal["auto", 1, 2, 4] = "auto"
    """Stride of the first layers, in pixels; of vit, the side of a patch. 4 is ImageNet's, and not
    for plainnet and cnn. `auto`: 2; of cnn 1; of vit 4; of nfnet 4, the only one that it has."""
    per_channel: bool = False
    """Whether learnable activation scalars are one a channel (true) or one a layer (false)."""
    dropout: Share = 0.0
    """Share of the classifier's inputs that training zeroes."""
    stochastic_depth: Share = 0.0
    """Share of examples for which training drops the last residual branch; less for earlier. Of no
    meaning to plainnet, cnn and ffnn."""

    @property
    def drops(self) -> bool:
        """Whether training draws what to drop."""
        return bool(self.dropout or self.stochastic_depth)


class Data(Knobs):
    """Which images."""

    name: str = "fashion-mnist-small"
    """A data set by name; `fednf data list` shows them. `devices`: whatever the devices hold, of
    which the server has nothing."""
    classes: str = ""
    """Where devices have files of their own: the names of all classes, in order and with commas
    between, or how many there are. Empty: each device has all of them."""
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
    `agc:λ` holds every unit's gradient to λ times its weights' norm, save the classifier's;
    `auto`: the recipe's own, or else norm:5."""
    activation_lr: Rate = 1.0
    """Factor on the learning rate of the learnable scalars of activations."""

    @field_validator("clip")
    @classmethod
    def _clip_is_spelt_right(cls, text: str) -> str:
        kind, _, bound = text.partition(":")
        try:
            bounded = kind in ("norm", "agc") and 0 < float(bound) < math.inf
        except ValueError:
            bounded = False
        if not bounded and text not in ("auto", "none"):
            raise ValueError(
                "should be 'auto', 'none', 'norm:C' or 'agc:λ' with a positive number, "
                "for example 'norm:5' or 'agc:0.01'"
            )
        return text

    @property
    def clipping(self) -> tuple[str, float]:
        """Kind of clip, `none`, `norm` or `agc`, and its bound: C, λ, or ∞; of `auto`, norm 5."""
        kind, _, bound = (CLIP if self.clip == "auto" else self.clip).partition(":")
        return kind, float(bound or math.inf)


class Cohort(Knobs):
    """How clients train together with `engine=cohort`."""

    lanes: Positive | Literal["auto"] = "auto"
    """Clients in training at a time. `auto`: as many as the sizes of the clients keep busy, and as
    a GPU's memory has room for."""
    level: Literal["auto", "eager", "traced", "native", "compiled"] = "auto"
    """How a pass is run, each in less time than the one before, but with more to prepare: `eager`,
    by PyTorch as it comes; `traced`, as a list of operators; `native`, with our own convolutions
    in C++ among them, which take a compiler; `compiled`, fused by PyTorch's compiler, in up to
    minutes. `auto`: `native`, or without a C++ compiler, and on a GPU, `traced`."""


class Strategy(Knobs):
    """How the models of a round become one, and what that asks of a client's loss."""

    kind: Literal["fedavg", "fedprox"] = "fedavg"
    """FedAvg (arXiv 1602.05629) or FedProx (arXiv 1812.06127)."""
    mu: NonNegative = 0.0
    """FedProx's μ: the client's loss gains (μ/2)·‖w − w_global‖². 0 is FedAvg."""
    max_norm: NonNegative = 0.0
    """The largest ‖w_client − w_global‖ that counts, over all tensors with BatchNorm's statistics;
    an update beyond it is refused. 0: any."""

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
    fixed_from: Annotated[int, Field(ge=0)] = 0
    """The round from which clients train by running statistics that no longer move, as in FixBN
    (arXiv 2303.06530); 0: never."""

    @model_validator(mode="after")
    def _something_is_there_to_fix(self) -> "State":
        if self.fixed_from and self.bn == "drop":
            raise ValueError(
                f"state.fixed-from={self.fixed_from} needs statistics, and state.bn=drop keeps "
                "none; take another policy, such as average"
            )
        return self

    def fixed_in(self, number: int) -> bool:
        """Return whether statistics are fixed in the round of that number."""
        return 0 < self.fixed_from <= number


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
