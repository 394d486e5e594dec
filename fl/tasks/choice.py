"""The objective that an experiment's knobs choose: a task of ours or of a user's."""

from dataclasses import replace
from functools import lru_cache

from fl.config import Experiment
from fl.config.components import find as find_component
from fl.config.components import is_component
from fl.config.parsing import ConfigError, Value, did_you_mean
from fl.config.task import Task as Knobs
from fl.tasks.auc import AUC
from fl.tasks.classification import Classification
from fl.tasks.metrics import Accuracy, BalancedAccuracy, MacroF1, Metric, MultilabelF1, TopFive
from fl.tasks.multilabel import Multilabel
from fl.tasks.regression import MAE, R2, Regression
from fl.tasks.task import Objective, Task, as_metric, plain

METRICS: dict[str, dict[str, type[Metric]]] = {
    "classification": {
        "accuracy": Accuracy,
        "top-5": TopFive,
        "balanced-accuracy": BalancedAccuracy,
        "macro-f1": MacroF1,
        "auc": AUC,
    },
    "multilabel": {"macro-f1": MultilabelF1, "accuracy": Accuracy, "auc": AUC},
    "regression": {"mae": MAE, "r2": R2},
}
"""The metrics of each of our tasks, by the names that the knob `task.metrics` takes."""
_ANY = {**METRICS["classification"], **METRICS["regression"]}
"""Those that a user's task may name."""
_TAKEN = {"loss", "right"}
"""What lines of `rounds.jsonl` have beside metrics."""


@lru_cache(maxsize=8)
def objective(knobs: Experiment) -> Objective:
    """Return what an experiment asks of its network.

    Raises:
        ConfigError: a metric that its task does not have, or a component that is no task, loss or
            metric.
    """
    if knobs.task == Knobs():
        return PLAIN
    kind, loss = knobs.component("task.kind"), knobs.component("task.loss")
    names = [name.strip() for name in knobs.task.metrics.split(",")]
    parts = [
        find_component("task.metrics", name, knobs.components) if is_component(name) else name
        for name in names
    ]
    chosen = None if knobs.task.metrics == "auto" else tuple(parts)
    options = tuple(sorted(knobs.task.given.items()))
    return _made(knobs.task, kind, options, loss, chosen)


@lru_cache(maxsize=32)
def _made(
    knobs: Knobs,
    kind: object,
    options: tuple[tuple[str, Value], ...],
    loss: object,
    metrics: tuple[object, ...] | None,
) -> Objective:
    """Return one objective for all experiments that ask the same."""
    task = _ours(knobs) if kind is None else _theirs(knobs.kind, kind, dict(options))
    wanted = tuple(task.metrics()) if metrics is None else metrics
    known = METRICS.get(knobs.kind, _ANY)
    chosen = [_metric(part, known) for part in wanted]
    if len({metric.name for metric in chosen}) < len(chosen):
        raise ConfigError(f"task.metrics={knobs.metrics}: two metrics have one name")
    if taken := {metric.name for metric in chosen} & _TAKEN:
        name = min(taken)
        raise ConfigError(
            f"task.metrics={knobs.metrics}: a metric is named {name}, and test_{name} in "
            "rounds.jsonl is something else; name it otherwise"
        )
    if loss is not None:
        if not callable(loss):
            raise ConfigError(f"task.loss={knobs.loss} is {loss!r}, expected a function")
        return replace(plain(task, loss, chosen, ours=False), own=None)
    if isinstance(task, Classification):
        return task.objective(chosen)
    return plain(task, task.loss, chosen, ours=kind is None)


def _ours(knobs: Knobs) -> Task:
    match knobs.kind:
        case "multilabel":
            return Multilabel()
        case "regression":
            return Regression()
        case _:
            return Classification(knobs)


def _theirs(name: str, kind: object, options: dict[str, Value]) -> Task:
    """Return a user's task, made with its options.

    Raises:
        ConfigError: it is no task.
    """
    task = kind(**options) if isinstance(kind, type) else kind
    if not isinstance(task, Task):
        raise ConfigError(f"task.kind={name} is {task!r}, expected a subclass of fl.Task")
    return task


def _metric(part: object, known: dict[str, type[Metric]]) -> Metric:
    """Return a metric by name, or a user's own.

    Raises:
        ConfigError: there is none, or it is no metric.
    """
    if isinstance(part, str):
        if part not in known:
            raise ConfigError(f"task.metrics={part}: no such metric; {did_you_mean(part, known)}")
        return known[part]()
    try:
        return as_metric(part)
    except ValueError as error:
        raise ConfigError(f"task.metrics: {error}") from None


PLAIN = _made(Knobs(), None, (), None, None)
"""Classification by cross-entropy, scored by accuracy."""
