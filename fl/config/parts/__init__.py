"""The parts of an experiment: network, data, partition, clients, strategy."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fl.config.components import Component, canonical, is_component
from fl.config.parsing import Knobs, Value
from fl.config.parts.client import CLIP as CLIP
from fl.config.parts.client import Client as Client
from fl.config.parts.ranges import NonNegative, Positive, Rate, Share
from fl.config.parts.state import State as State
from strategies import STRATEGIES, find

Options = Annotated[str, BeforeValidator(canonical)]
"""The own parameters of a component, as JSON."""


DEVICES = "devices"
"""The name of the data set that lies on the devices. The server has none of its examples."""

RECIPE = "zc-swish"
"""The recipe of a network of ours where the knob leaves it open."""


PULLING = ("fedprox", "fednova")
"""The strategies that have the knob `strategy.mu`."""


class Part(Knobs):
    """A part of an experiment that may be a component with parameters of its own."""

    @property
    def given(self) -> dict[str, Value]:
        """The values of the component's own parameters, by name, as far as they are given."""
        options = getattr(self, "options", "")
        return json.loads(options) if options else {}

    @property
    def ours(self) -> Any:
        """What the options are for where that is no component; None: nothing."""
        return None


def _is_a_strategy(text: str) -> str:
    if text not in STRATEGIES and not is_component(text):
        raise ValueError(
            f"should be {', '.join(STRATEGIES)}, or the name of a component: path/file.py:name or "
            "package.module:name"
        )
    return text


class Network(Part):
    """The skeleton of the network. The recipe fills its slots."""

    kind: (
        Literal["plainnet", "cnn", "resnet", "resnet-v2", "nfnet", "efficientnet", "ffnn", "vit"]
        | Component
    ) = "plainnet"
    """The network family. `plainnet`: convolutions in a row without skip connections. `cnn`: two
    convolutions with max pooling. `resnet`: residual blocks. `resnet-v2`: pre-activation residual
    blocks; with a recipe `nf`, NF-ResNet. `nfnet`: NFNet-F0 to -F6. `efficientnet`: EfficientNet,
    B0 at its `auto` depth and width. `ffnn`: linear layers in a row on flattened images. `vit`: a
    small vision transformer. Or a network of your own, `path/file.py:name`, or of a
    package, `timm:NAME` or `torchvision:NAME`; see docs/guide/networks.md."""
    depth: Positive | Literal["auto", "F0", "F1", "F2", "F3", "F4", "F5", "F6"] = "auto"
    """Layers with weights on the longest path; blocks for efficientnet and vit. `auto`: 8 for
    plainnet; 3 for cnn, which takes no other; 20 for resnets; F0 for nfnet, which takes F0 to F6;
    16 for efficientnet, which takes 7 or more; 11 for ffnn; 6 for vit. Resnets take 6n + 2, or 18,
    34, 50, 101 or 152 (resnet-v2 also 26), which have four stages."""
    width: Positive | Literal["auto"] = "auto"
    """Channels of the first stage; each later stage doubles them. For nfnet and efficientnet,
    channels of the stem, with all other layers in proportion. For ffnn, units of a layer; for vit,
    channels of a token. `auto`: 64 for resnets with four stages, 128 for nfnet, 32 for
    efficientnet, 100 for ffnn, 192 for vit, and 16 for all others."""
    init: Literal["auto", "own", "torch", "he", "lecun", "critical"] = "auto"
    """Initial weights. `own`: what a network of your own comes with, such as pretrained ones;
    `torch`: PyTorch's default; `he`: N(0, 2/fan_in); `lecun`: N(0, 1/fan_in); `critical`: behind an
    activation f N(0, 1/(fan_in·E[f²])), by which signals keep their size. `auto` takes the recipe's
    own, or else `lecun` for vit and `he` for all others; `own` with the recipe `own`."""
    gain: float | str = 1.0
    """What `network.init=critical` lets a layer and the activation in front of it make of the mean
    square of signals: a factor. `backward:X`: of gradients, χ = X. A recipe's name: what it has
    with He's weights, 1.47 for zc-swish."""
    stem_stride: Literal["auto", 1, 2, 4] = "auto"
    """Stride of the first layers, in pixels; for vit, the side of a patch. 4 is the stride for
    ImageNet, which plainnet and cnn don't take. `auto`: 1 for cnn, 4 for vit, 4 for nfnet, which
    takes no other, and 2 for all others."""
    per_channel: bool = False
    """Whether activations learn one scalar per channel (true) or one per layer (false)."""
    dropout: Share = 0.0
    """Probability with which training zeroes each input of the classifier."""
    stochastic_depth: Share = 0.0
    """Probability with which training drops an example's last residual branch; earlier branches
    are dropped less often. plainnet, cnn and ffnn ignore it."""
    options: Options = ""
    """The own parameters of a network that is a component, as `network.options.NAME`."""

    @property
    def drops(self) -> bool:
        """Whether training uses dropout or stochastic depth."""
        return bool(self.dropout or self.stochastic_depth)


Layout = Literal[
    "auto", "NHW", "NHWC", "NCHW", "NL", "NLC", "NCL", "NDHW", "NDHWC", "NCDHW"
]  # fmt: skip
"""What the axes of an array of examples are: N examples, C channels, L or H, W or D, H, W space."""


class Data(Part):
    """The data set, and what is done with its images."""

    name: str = "fashion-mnist-small"
    """The data set's name (`fednf data list` shows them all) or path. With `devices` each device
    trains on its own files, and the server has no data. `path/file.py:name` is a data set of your
    own, made by Python; see docs/guide/own/data.md."""
    classes: str = ""
    """The classes where devices train on files of their own: all names in order, separated by
    commas, or their number. Leave it empty if each device has all classes."""
    augment: Literal["none", "crop-flip"] = "none"
    """Augmentation of training images. `crop-flip` shifts each image by up to an eighth of its
    side and mirrors half of them."""
    validation: Share = 0.0
    """Share of the training images that the server keeps from all clients. They decide which
    round is the best."""
    options: Options = ""
    """The own parameters of a data set that is a component, as `data.options.NAME`."""
    layout: Layout = "auto"
    """What the axes of the arrays in an `.npz` file are, a letter each: N examples, C channels, L
    the length of signals, H and W the height and width of images, D the depth of volumes. `auto`
    goes by the shape, and refuses one that fits several layouts."""


class Partition(Part):
    """How the training images are partitioned among clients."""

    kind: (
        Literal[
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
        ]
        | Component
    ) = "dirichlet"
    """The partitioning rule. docs/guide/partitions.md describes each, and which knobs it reads.
    `path/file.py:name` is a rule of your own; see docs/guide/own/data.md."""
    alpha: Rate = 0.3
    """Concentration of the Dirichlet distribution of classes; for `quantity`, of sizes. A small
    value gives skewed clients, a large value even ones."""
    clients: Positive = 20
    """Number of clients in the federation."""
    min_size: Annotated[int, Field(ge=0)] = 10
    """The fewest images that a client gets where sizes are random. 0 allows empty clients."""
    quantity_alpha: Rate = 0.5
    """Concentration of the sizes in a `mixture`; `alpha` is that of its classes."""
    shards: Positive = 2
    """Shards per client, with `kind=shards`."""
    labels: Positive = 2
    """Labels per client, with `kind=label-count`."""
    noise: NonNegative = 0.1
    """Variance of the noise on the last client's inputs, on a scale from 0 to 1, with
    `kind=feature-noise`."""
    held_out: Share = 0.0
    """Share of its images that each client keeps from training, to score the shared and its own
    network on."""
    options: Options = ""
    """The own parameters of a rule that is a component, as `partition.options.NAME`."""
    unseen: Share = 0.0
    """Share of the clients that never take part, at least one of them, drawn by `seed.sampling`.
    After the last round all clients score the network, as with `evaluation.clients`."""

    @property
    def unseen_clients(self) -> int:
        """How many clients never take part."""
        return max(1, round(self.unseen * self.clients)) if self.unseen else 0

    def check(self, sampled: int, scored: bool, devices: bool) -> None:
        """Refuse what the rest of an experiment can't have.

        Args:
            sampled: clients of a round.
            scored: whether clients score networks in the end.
            devices: whether they may have brought images for that.

        Raises:
            ValueError: too few clients are left to take part, or none has images to score on.
        """
        unseen = f"partition.unseen={self.unseen:g}"
        if sampled > (left := self.clients - self.unseen_clients):
            raise ValueError(f"{unseen} leaves {left} clients for sampling.clients={sampled}")
        if (scored or self.unseen) and not (self.held_out or devices):
            asked = unseen if self.unseen else "evaluation.clients=true"
            raise ValueError(
                f"{asked} scores networks on held-out images; set partition.held-out, as to 0.2"
            )


class Sampling(Knobs):
    """Who takes part in a round."""

    clients: Positive = 10
    """Clients per round, drawn without replacement."""


class Vectorized(Knobs):
    """How `engine=vectorized` trains many clients as one program."""

    lanes: Positive | Literal["auto"] = "auto"
    """Clients that train at the same time. `auto` takes as many as the sizes of the clients keep
    busy, and as fit into a GPU's memory."""
    level: Literal["auto", "eager", "traced", "native", "compiled"] = "auto"
    """How a forward and backward pass runs; each level is faster than the one before, and takes
    longer to prepare. `eager`: by PyTorch, operator by operator. `traced`: as a list of operators.
    `native`: the same with our own convolutions in C++, which need a compiler. `compiled`: fused
    by PyTorch's compiler, which takes up to minutes. `auto` takes `traced` on a GPU or without a
    C++ compiler, else `native`, or `compiled` for a long run."""


class Strategy(Part):
    """How the models of a round are aggregated, and what is added to a client's loss."""

    kind: Annotated[str, AfterValidator(_is_a_strategy)] = "fedavg"
    """The method: `fedavg` (arXiv 1602.05629), `fedprox` (arXiv 1812.06127), `fedavgm` (arXiv
    1909.06335), `fedadagrad`, `fedadam`, `fedyogi` (arXiv 2003.00295), `fedexp` (arXiv 2301.09604),
    `fednova` (arXiv 2007.07481), `scaffold` (arXiv 1910.06378), `feddyn` (arXiv 2111.04263); and of
    Flower's `fedmedian`, `fedtrimmedavg` (arXiv 1803.01498), `krum`, `multikrum` (arXiv
    1703.02757), `bulyan` (arXiv 1802.07927), `qfedavg` (arXiv 1905.10497). `path/file.py:name` is a
    method of your own. `fednf knobs strategy=NAME` lists the options of one; docs/methods has the
    formulas."""
    mu: NonNegative = 0.0
    """μ of `fedprox` and `fednova`: (μ/2)·‖w − w_global‖² is added to a client's loss. 0 adds
    nothing."""
    max_norm: NonNegative = 0.0
    """The largest ‖w_client − w_global‖ that the server accepts, taken over all tensors including
    BatchNorm's statistics. A larger update is refused. 0 accepts any."""
    options: Options = ""
    """The own parameters of the method, as `strategy.options.NAME`."""

    @property
    def ours(self) -> Any:
        """The class whose options are given, if it has a name here."""
        return find(self.kind) if self.given and self.kind in STRATEGIES else None

    @model_validator(mode="after")
    def _mu_belongs_to_those_that_pull(self) -> "Strategy":
        if self.kind in PULLING and "mu" in self.given:
            raise ValueError("strategy.options.mu is the knob strategy.mu; set that one")
        if self.mu and self.kind not in PULLING:
            raise ValueError(
                f"strategy.mu={self.mu} needs strategy.kind={' or '.join(PULLING)}, found "
                f"{self.kind}"
            )
        return self


class Signals(Knobs):
    """How often networks are measured during a run. Measuring changes no result."""

    every: Annotated[int, Field(ge=0)] = 0
    """Measure activation and gradient statistics per layer every so many rounds, and in the last.
    0 measures nothing."""
    images: Positive = 32
    """Training images in the measured batch. A client that holds fewer takes all of its own."""

    def due(self, number: int, rounds: int) -> bool:
        """Return whether signals are measured in round `number` of `rounds`."""
        return self.every > 0 and (number % self.every == 0 or number == rounds)
