"""What is asked of the network: loss, metrics, and what a label is."""

import math
from typing import Literal

from pydantic import field_validator, model_validator

from fl.config.components import Component
from fl.config.parts import Options, Part, Share


class Task(Part):
    """What is asked of the network; docs/guide/own/loss-and-metric.md."""

    kind: Literal["classification", "multilabel", "regression"] | Component = "classification"
    """The task. `classification`: one class of several, by cross-entropy. `multilabel`: yes or no
    for each label, by binary cross-entropy. `regression`: numbers, by squared error. Or a task of
    your own, `path/file.py:name`."""
    loss: Literal["auto"] | Component = "auto"
    """The loss of each example. `auto` takes the task's. Or a function of your own,
    `path/file.py:name`, from outputs and labels to a loss for each example."""
    metrics: str = "auto"
    """The metrics, separated by commas: `accuracy`, `top-5`, `balanced-accuracy`, `macro-f1`,
    `auc`, `mae`, `r2`, or your own, `path/file.py:name`. The first is the primary one, which
    chooses the best round. `auto` takes the task's: accuracy for classification, macro-f1 for
    multilabel, mae for regression."""
    label_smoothing: Share = 0.0
    """Share of the target that is spread evenly over all classes, in classification."""
    class_weights: str = "none"
    """Weights of the classes in the loss of classification: `none`; numbers separated by commas;
    or `balanced`, n / (C · n_c) by the n_c examples of class c among the n that a client trains
    on, with C classes."""
    logit_adjustment: str = "none"
    """Change of the logits in training, by the n_c examples of class c that a client trains on.
    `fedlc:τ` subtracts τ · n_c^(-1/4) (FedLC, arXiv 2209.00189); `fedrs:α` scales the logits of
    classes that a client lacks by α (FedRS, KDD 2021); `none` changes nothing."""
    options: Options = ""
    """The own parameters of a task that is a component, as `task.options.NAME`."""

    @property
    def adjustment(self) -> tuple[str, float]:
        """The kind of `logit_adjustment`, and its number."""
        kind, _, number = self.logit_adjustment.partition(":")
        return kind, float(number or 0)

    @property
    def weights(self) -> tuple[float, ...]:
        """The numbers of `class_weights`; empty where there are none."""
        text = self.class_weights
        return () if text in ("none", "balanced") else tuple(map(float, text.split(",")))

    @field_validator("logit_adjustment")
    @classmethod
    def _adjustment_is_spelt_right(cls, text: str) -> str:
        kind, _, number = text.partition(":")
        try:
            sound = kind in ("fedlc", "fedrs") and 0 <= float(number) < math.inf
        except ValueError:
            sound = False
        if not sound and text != "none":
            raise ValueError("should be none, fedlc:τ or fedrs:α, for example fedlc:1 or fedrs:0.5")
        return text

    @field_validator("class_weights")
    @classmethod
    def _weights_are_spelt_right(cls, text: str) -> str:
        try:
            sound = all(0 <= float(number) < math.inf for number in text.split(","))
        except ValueError:
            sound = False
        if not sound and text not in ("none", "balanced"):
            raise ValueError("should be none, balanced or numbers, for example 1,2.5,1")
        return text

    @model_validator(mode="after")
    def _classes_belong_to_classification(self) -> "Task":
        theirs = {
            "label-smoothing": (self.label_smoothing, 0.0),
            "class-weights": (self.class_weights, "none"),
            "logit-adjustment": (self.logit_adjustment, "none"),
        }
        for name, (value, default) in theirs.items():
            if value != default and (self.kind != "classification" or self.loss != "auto"):
                raise ValueError(
                    f"task.{name}={value} is for the loss of task.kind=classification; here "
                    f"task.kind={self.kind} and task.loss={self.loss}"
                )
        if self.label_smoothing and self.adjustment[0] == "fedlc":
            raise ValueError(
                f"task.logit-adjustment={self.logit_adjustment} leaves out classes that a client "
                "lacks, and task.label-smoothing needs all; choose one of them"
            )
        return self
