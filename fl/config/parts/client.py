"""How a client trains: its step, how many of them it makes, and the learning rate of a round."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fl.config.parsing import Knobs, Value
from fl.config.parts.ranges import NonNegative, Positive, Rate, Share

CLIP = "norm:5"
"""Gradient clipping where both the knob and the recipe leave it open."""


class Client(Knobs):
    """How a client trains on its images in a round."""

    batch_size: Positive = 4
    """Images per step. The last batch of an epoch may be smaller; no image is dropped."""
    accumulate: Positive = 1
    """Batches whose gradients are averaged, image by image, before one step is made. So a step sees
    `accumulate` times `batch-size` images, and memory holds `batch-size` of them."""
    epochs: Positive = 1
    """Passes over the client's images per round."""
    steps: Annotated[int, Field(ge=0)] = 0
    """Steps per round, in the place of `epochs`: the client passes over its images as often as that
    takes, and stops in the middle of a pass. 0 goes by `epochs`."""
    lr: Rate = 0.05
    """Learning rate of the local optimizer."""
    lr_schedule: str = "constant"
    """What `lr` is multiplied by in round t of T. `exp:γ`: γ^(t−1). `cosine`: ½(1 + cos π(t−1)/T).
    `steps:N=F,…`, such as `steps:30=0.1,60=0.1`: the product of all F whose round N has come.
    `constant`: 1."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """W: in round t the learning rate is also multiplied by min(1, t/(W + 1)), so that it has its
    full height after W rounds."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """The local optimizer. Its state is reset at the beginning of every round."""
    momentum: Share = 0.0
    """Momentum of SGD. Adam and AdamW ignore it and use betas (0.9, 0.999)."""
    nesterov: bool = False
    """Whether SGD follows g + m·v, with momentum m and velocity v, in the place of v."""
    carry_momentum: bool = False
    """Whether each client keeps SGD's velocity for its next round, as in FixBN (arXiv 2303.06530).
    It never leaves the client."""
    weight_decay: NonNegative = 0.0
    """λ: λw is added to the gradient of every parameter w, an L2 penalty; with adamw it is added to
    what the optimizer makes of the gradient."""
    clip: str = "auto"
    """Gradient clipping. `norm:C` scales a gradient whose 2-norm exceeds C down to C. `agc:λ`
    limits the norm of every unit's gradient to λ times the norm of its weights, except in the
    classifier. `none` clips nothing. `auto` takes the recipe's own, or else norm:5."""
    activation_lr: NonNegative = 1.0
    """Factor on the learning rate for the learnable scalars of activations. 0 freezes them; their
    gradients still count in the norm that clips."""

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

    @field_validator("lr_schedule")
    @classmethod
    def _schedule_is_spelt_right(cls, text: str) -> str:
        try:
            parse_schedule(text)
        except ValueError:
            raise ValueError(
                "should be 'constant', 'cosine', 'exp:γ' with 0 < γ ≤ 1 or 'steps:N=F,…' with "
                "ascending rounds and positive factors, for example 'exp:0.998' or "
                "'steps:30=0.1,60=0.1'"
            ) from None
        return text

    @model_validator(mode="after")
    def _there_is_momentum(self) -> "Client":
        asked = {"nesterov": self.nesterov, "carry-momentum": self.carry_momentum}
        for name in (name for name, on in asked.items() if on):
            if self.optimizer != "sgd":
                raise ValueError(
                    f"client.{name}=true needs client.optimizer=sgd, found {self.optimizer}"
                )
            if not self.momentum:
                raise ValueError(f"client.{name}=true needs client.momentum, for example 0.9")
        return self

    def check(self, per_example_clip: float) -> None:
        """Refuse what does not fit the rest of an experiment.

        Raises:
            ValueError: gradients are accumulated which are clipped example by example.
        """
        if self.accumulate > 1 and per_example_clip:
            raise ValueError(
                f"client.accumulate={self.accumulate}: with privacy.per-example-clip examples are "
                "differentiated one by one anyhow; raise client.batch-size, and leave it out"
            )

    @property
    def plans_ahead(self) -> bool:
        """Whether the learning rate of a round depends on how many rounds there will be."""
        return self.lr_schedule == "cosine"


@lru_cache(maxsize=64)
def parse_clip(text: str) -> tuple[str, float]:
    """Return what `client.clip` asks for: the kind (`none`, `norm`, `agc`) and the bound (C, λ, ∞).

    `auto` is norm 5. A text is parsed once, since every client of every round asks for it.
    """
    kind, _, bound = (CLIP if text == "auto" else text).partition(":")
    return kind, float(bound or math.inf)


@lru_cache(maxsize=64)
def parse_schedule(text: str) -> tuple[str, tuple[tuple[int, float], ...]]:
    """Return what `client.lr-schedule` asks for: the kind, and (round, factor) from which on.

    For `exp` the one factor is γ, each round's.

    Raises:
        ValueError: it is spelt otherwise.
    """
    kind, colon, rest = text.partition(":")
    if kind in ("constant", "cosine") and not colon:
        return kind, ()
    if kind == "exp" and 0 < float(rest) <= 1:
        return kind, ((1, float(rest)),)
    pairs = tuple((int(n), float(f)) for n, f in (p.split("=") for p in rest.split(",")))
    begins = [begin for begin, _ in pairs]
    sound = all(factor > 0 and factor < math.inf for _, factor in pairs) and begins[0] >= 1
    if kind != "steps" or not sound or begins != sorted(set(begins)):
        raise ValueError(text)
    return kind, pairs


ADDED: dict[str, Value] = {
    "client.accumulate": 1,
    "client.steps": 0,
    "client.lr-schedule": "constant",
    "client.warmup": 0,
    "client.nesterov": False,
    "client.carry-momentum": False,
}
"""Knobs that the first experiments did not have, and the values that stand for what those did."""


def idle_client(knobs: Mapping[str, Value]) -> set[str]:
    """Return the flat keys of `client.*` that others switch off."""
    idle = {"client.epochs"} if knobs.get("client.steps") else set[str]()
    if knobs.get("client.optimizer", "sgd") != "sgd":
        idle |= {"client.momentum", "client.nesterov", "client.carry-momentum"}
    return idle & knobs.keys()
