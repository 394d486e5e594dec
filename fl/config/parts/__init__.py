"""The parts of an experiment: network, data, partition, clients, strategy."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from fl.config.components import Component, is_component
from fl.config.parsing import Knobs
from fl.config.parts.client import CLIP as CLIP
from fl.config.parts.client import Client as Client
from fl.config.parts.network import Network as Network
from fl.config.parts.part import Options as Options
from fl.config.parts.part import Part as Part
from fl.config.parts.ranges import NonNegative, Positive, Rate, Share
from fl.config.parts.state import State as State
from strategies import STRATEGIES, find

DEVICES = "devices"
"""The name of the data set that lies on the devices. The server has none of its examples."""

RECIPE = "zc-swish"
"""The recipe of a network of ours where the knob leaves it open."""


PULLING = ("fedprox", "fednova")
"""The strategies that have the knob `strategy.mu`."""


def _is_a_strategy(text: str) -> str:
    if text not in STRATEGIES and not is_component(text):
        raise ValueError(
            f"should be {', '.join(STRATEGIES)}, or the name of a component: path/file.py:name or "
            "package.module:name"
        )
    return text


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
