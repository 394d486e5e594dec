"""Training and evaluation of one network, batch by batch, in plain PyTorch.

A batch of one image is an ordinary batch.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from fl.config import Client, Privacy
from fl.data import Batch, Dataset, Split
from fl.nn import fixed_statistics
from fl.tasks import PLAIN, Metric, Objective
from fl.training.accumulation import Accumulated
from fl.training.parameters import FlatNetwork, Vector
from fl.training.per_example import PerExample
from fl.training.step import MOMENTUM, Bound, Correction, Update, Vectors, with_vectors


@dataclass(frozen=True)
class Outcome:
    """What a client's round came to."""

    steps: int
    """Optimizer steps; of several batches each, with `client.accumulate`."""
    examples: int
    """Images seen, counted once an epoch."""
    loss: float
    """Mean loss over all images seen, each before its step; no penalty in it. A cross-entropy is in
    nats."""
    gradient_norm: float
    """Mean over steps of the gradient's 2-norm, with the correction, before clipping."""
    update_norm: float
    """‖w - w_start‖₂ over all parameters."""
    single_value_steps: int
    """Steps in which a BatchNorm layer saw one value a channel and used running statistics."""
    seconds: float
    """Wall time."""


def train(
    network: FlatNetwork,
    batches: Iterable[Batch],
    client: Client,
    correct: Bound | None,
    mean_loss: Callable[..., Tensor] | PerExample | Accumulated = PLAIN.mean,
    velocity: Vector | None = None,
) -> Outcome:
    """Train in place: w <- w - lr * d(clip(∇loss + correction) + λw), one step a batch.

    Args:
        network: holds the start w_start = w_global, and afterwards the result.
        batches: inputs and labels; of any size from 1 up.
        client: learning rate, optimizer, clipping.
        correct: the strategy's client half, or None.
        mean_loss: (outputs, labels) -> the mean loss of a batch; or what differentiates it example
            by example, or part by part.
        velocity: SGD's, which is moved in place; None: zeros.
    """
    begun = time.perf_counter()
    start = network.weights.clone()
    update = Update(network, client, correct, network.weights, velocity)
    for norm in network.norms:
        norm.single_value_steps = 0
    loss_sum, steps, examples = torch.zeros((), device=start.device), 0, 0
    network.module.train()

    def differentiate(mean_loss: Callable[..., Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        network.gradient.zero_()
        with network.convolving(_pays(inputs, network.grouped)):
            outputs = network.module(inputs.to(start.device))
            loss = mean_loss(outputs, labels.to(start.device))
            loss.backward()
        return loss.detach()

    for inputs, labels in batches:
        if isinstance(mean_loss, PerExample | Accumulated):
            loss = mean_loss(differentiate, network.gradient, inputs, labels)
        else:
            loss = differentiate(mean_loss, inputs, labels)
        update(network.gradient, start)
        loss_sum.add_(loss, alpha=len(labels))
        steps += 1
        examples += len(labels)
    return Outcome(
        steps=steps,
        examples=examples,
        loss=float(loss_sum) / max(examples, 1),
        gradient_norm=float(update.norms) / max(steps, 1),
        update_norm=float(torch.linalg.vector_norm(network.weights - start)),
        # A step that starves one layer of values starves every layer with a smaller map.
        single_value_steps=max((norm.single_value_steps for norm in network.norms), default=0),
        seconds=time.perf_counter() - begun,
    )


Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


@runtime_checkable
class Begun(Protocol):
    """A client's round that has begun: the network holds its start."""

    @property
    def batches(self) -> Iterator[Batch]:
        """The client's batches."""
        ...

    @property
    def vectors(self) -> Vectors:
        """The client's vectors, which the strategy's client half may change."""
        ...

    @property
    def own(self) -> Tensor | None:
        """What the loss has to know of the client, see `fl.tasks.Task.own`."""
        ...

    @property
    def noise(self) -> torch.Generator | None:
        """Draws the client's noise on clipped gradients; None where there is none."""
        ...


@runtime_checkable
class Task(Protocol[Result_co]):
    """What is asked of one client in a round, whatever engine trains it."""

    @property
    def steps(self) -> int:
        """How many batches there will be."""
        ...

    def begin(self, network: FlatNetwork) -> Begun:
        """Load the client's start into a network."""
        ...

    def end(self, network: FlatNetwork, begun: Any, outcome: Outcome) -> Result_co:
        """Make a result of what the network has become."""
        ...

    def fail(self, error: Exception) -> Result_co:
        """Make a result of an error."""
        ...


_OPEN = Privacy()


@dataclass(frozen=True)
class Training:
    """How clients that are alike train."""

    client: Client
    correct: Correction | None = None
    """The strategy's client half."""
    fixed: bool = False
    """Whether BatchNorm takes its running statistics, see `fl.nn.fixed_statistics`."""
    objective: Objective = PLAIN
    """What is asked of the network."""
    privacy: Privacy = _OPEN
    """Whether gradients are clipped example by example."""


@contextmanager
def without_exit() -> Iterator[None]:
    """Turn a client's `sys.exit` into an error: it would end this process, with any status."""
    try:
        yield
    except SystemExit as error:
        stopped = RuntimeError("the code of a client called sys.exit")
        raise stopped.with_traceback(error.__traceback__) from None


def train_task(network: FlatNetwork, task: Task[Result], how: Training) -> Result:
    """Train one client by `train`, and return its result; raises whatever goes wrong."""
    with without_exit():
        begun = task.begin(network)
        with fixed_statistics(network.module, how.fixed), network.alone(training=True):
            correct, velocity = (
                with_vectors(how.correct, begun.vectors),
                begun.vectors.get(MOMENTUM),
            )
            loss = _differentiated(network, how, begun)
            outcome = train(network, begun.batches, how.client, correct, loss, velocity)
        return task.end(network, begun, outcome)


def _differentiated(
    network: FlatNetwork, how: Training, begun: Begun
) -> Callable[..., Tensor] | PerExample | Accumulated:
    """Return a client's mean loss, or what differentiates it otherwise than at once."""
    mean = how.objective.mean if begun.own is None else _knowing(how.objective.mean, begun.own)
    if how.privacy.per_example_clip:
        return PerExample(mean, how.privacy, begun.noise)
    if how.client.accumulate > 1:
        return Accumulated(mean, how.client.batch_size, network.norms)
    return mean


def _knowing(mean_loss: Callable[..., Tensor], own: Tensor) -> Callable[..., Tensor]:
    """Return a mean loss whose third argument is what it has to know of one client."""
    return lambda outputs, labels: mean_loss(outputs, labels, own.to(outputs.device))


def _pays(inputs: Tensor, grouped: bool) -> bool:
    """Return whether oneDNN's convolutions, the default, are faster than PyTorch's own.

    They are for more than 4 examples, for volumes, and for networks with convolutions in groups.

    Milliseconds a step of `none`, default knobs, one core of a virtual AMD EPYC, torch 2.13.0,
    oneDNN's and PyTorch's: 3.7 and 2.5 at batch size 1, 5.5 and 4.6 at 4, 6.9 and 8.6 at 8; with
    depth 6 and width 8: 4.8 and 2.9 at 4. At width 32 PyTorch's lose a tenth. Volumes of 24×24×24,
    `zc-swish`, width 8, a step without its update: 23 and 23 at 1, 34 and 64 at 4, 52 and 127 at 8.
    An efficientnet of depth 7 and width 8, `batchnorm`: 11 and 22 at 1, 13 and 25 at 4.
    """
    return len(inputs) > 4 or inputs.ndim > 4 or grouped


@torch.no_grad()
def evaluate(
    network: FlatNetwork,
    dataset: Dataset,
    split: Split,
    objective: Objective = PLAIN,
    metrics: Sequence[Metric] = PLAIN.metrics,
) -> tuple[float, list[Tensor]]:
    """Return the mean loss over a split that has examples, and the sums of each metric."""
    network.module.eval()
    loss, sums, most = 0.0, list[Tensor](), examples_at_a_time(network, dataset.shape)
    with network.alone():
        for inputs, labels in _spread(network, dataset, split, most):
            outputs = network.module(inputs)
            loss += float(objective.total(outputs, labels))
            found = [metric.sums(outputs, labels) for metric in metrics]
            joined = zip(metrics, sums, found, strict=True) if sums else ()
            sums = [metric.add(before, now) for metric, before, now in joined] or found
    return loss / len(split), sums


def score(
    network: FlatNetwork, dataset: Dataset, split: Split, objective: Objective
) -> dict[str, object]:
    """Return the mean loss and all metrics on a split, by name; None where there is no value."""
    if not len(split):
        return dict.fromkeys(["loss", *(metric.name for metric in objective.metrics)])
    loss, found = evaluate(network, dataset, split, objective, objective.metrics)
    told: dict[str, object] = {"loss": _finite(loss)}
    told |= {
        m.name: _finite(m.value(sums)) for m, sums in zip(objective.metrics, found, strict=True)
    }
    for metric, sums in zip(objective.metrics, found, strict=True):
        if len(values := metric.per_class(sums) or []) > 1:
            told[f"{metric.name}_per_class"] = [_finite(value) for value in values]
    return told


def _finite(value: float) -> float | None:
    """Return a figure as it is, or None for an infinity or NaN, which JSON does not know."""
    return value if math.isfinite(value) else None


_MOST = 250
"""Examples of a batch in evaluation."""
_MOST_INPUTS = _MOST * 28**3
"""Values of its inputs."""
_MOST_OUTPUTS = 2**24
"""Values of its largest layer's output, 64 MiB: 250 images of 32×32 have 64 channels, and go 250 at
a time; of volumes of 64×64×64 with 16 channels four do, as in a batch that is trained on."""


def examples_at_a_time(network: FlatNetwork, shape: Sequence[int]) -> int:
    """Return how many examples of a shape evaluation takes at a time: 250, and of large ones fewer.

    A BatchNorm without running statistics makes answers depend on who else is in the batch. Then
    only inputs are looked at.
    """
    most = min(_MOST, max(1, _MOST_INPUTS // max(1, math.prod(shape))))
    if network.mixes_examples:
        return most
    return min(most, max(1, _MOST_OUTPUTS // network.largest_output(shape)))


def _spread(network: FlatNetwork, dataset: Dataset, split: Split, most: int) -> Iterator[Batch]:
    """Yield a split on a network's device in batches, each spread over all of it.

    Where classes come one after another, a BatchNorm without running statistics would otherwise
    be told by the batch which class it is.
    """
    device, step = network.weights.device, -(-len(split) // most)
    for start in range(step):
        images, labels = split.images[start::step], split.labels[start::step]
        yield dataset.inputs(images).to(device), labels.to(device)
