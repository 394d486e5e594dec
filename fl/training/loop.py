"""Training and evaluation of one network, batch by batch, in plain PyTorch.

A batch of one image is an ordinary batch.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from fl.config import Client, Privacy
from fl.data import Batch, Dataset, Split
from fl.nn import fixed_statistics
from fl.reproducibility.files import packed
from fl.tasks import PLAIN, Metric, Objective
from fl.tasks.metrics import Part, figures, joined
from fl.training.accumulation import Accumulated
from fl.training.parameters import FlatNetwork, Vector
from fl.training.per_example import PerExample
from fl.training.step import MOMENTUM, Bound, Correction, Steps, Update, with_vectors
from fl.training.task import Begun, Outcome, Result, Task


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
    loss_sum, examples, steps = torch.zeros((), device=start.device), 0, Steps()
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
        steps.taken.append(update(network.gradient, start))
        loss_sum.add_(loss, alpha=len(labels))
        examples += len(labels)
    return Outcome(
        examples=examples,
        loss=float(loss_sum) / max(examples, 1),
        **steps.figures(),
        update_norm=float(torch.linalg.vector_norm(network.weights - start)),
        # A step that starves one layer of values starves every layer with a smaller map.
        single_value_steps=max((norm.single_value_steps for norm in network.norms), default=0),
        seconds=time.perf_counter() - begun,
    )


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
            correct = with_vectors(how.correct, begun.vectors)
            velocity = begun.vectors.get(MOMENTUM)
            loss = _differentiated(network, how, begun)
            outcome = train(network, begun.batches, how.client, correct, loss, velocity)
        return task.end(network, begun, outcome)


def _differentiated(
    network: FlatNetwork, how: Training, begun: Begun
) -> Callable[..., Tensor] | PerExample | Accumulated:
    """Return a client's mean loss, or what differentiates it otherwise than at once."""
    mean = how.objective.mean
    if begun.own is not None:
        mean = _knowing(mean, begun.own.to(network.weights.device))
    if how.privacy.per_example_clip:
        return PerExample(mean, how.privacy, begun.noise)
    if how.client.accumulate > 1:
        return Accumulated(mean, how.client.batch_size, network.norms)
    return mean


def _knowing(mean_loss: Callable[..., Tensor], own: Tensor) -> Callable[..., Tensor]:
    """Return a mean loss whose third argument is what it has to know of one client."""
    return lambda outputs, labels: mean_loss(outputs, labels, own)


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


def evaluate(
    network: FlatNetwork,
    dataset: Dataset,
    split: Split,
    objective: Objective = PLAIN,
    metrics: Sequence[Metric] = PLAIN.metrics,
) -> tuple[float, list[Tensor]]:
    """Return the mean loss over a split that has examples, and the sums of each metric."""
    batches = range(_batches(network, dataset, split))
    loss, sums = joined(_parts(network, dataset, split, batches, objective, metrics), metrics)
    return loss / len(split), sums


@dataclass(frozen=True)
class Evaluation:
    """A network that is to be scored on splits, batch by batch, by whatever process.

    Batches are numbered through all splits. What one of them comes to depends on nothing but the
    network and the batch, and `figures` joins them in their order. So it makes no difference who
    evaluates which batch, and when.
    """

    network: FlatNetwork
    """It is loaded with the model, and holds it afterwards."""
    dataset: Dataset
    objective: Objective
    splits: Mapping[str, Split]
    """What the model is scored on, by name."""
    model: Mapping[str, np.ndarray]

    @property
    def counts(self) -> Sequence[int]:
        """How many batches each split has."""
        return [_batches(self.network, self.dataset, split) for split in self.splits.values()]

    @property
    def batches(self) -> range:
        """The numbers of all batches."""
        return range(sum(self.counts))

    def parts(self, batches: range | None = None) -> Iterator[Part]:
        """Yield what the batches of these numbers come to; without any, of all."""
        self.network.load(self.model)
        first, batches = 0, self.batches if batches is None else batches
        for split, count in zip(self.splits.values(), self.counts, strict=True):
            of_it = range(max(batches.start - first, 0), min(batches.stop - first, count))
            objective = self.objective
            yield from _parts(
                self.network, self.dataset, split, of_it, objective, objective.metrics
            )
            first += count

    def figures(self, parts: Iterable[Part]) -> dict[str, dict[str, object]]:
        """Return the mean loss and all metrics on each split, given the parts of all batches.

        A figure that has no value is None. Where the primary metric says of each example whether
        it is right, `right` does, as text.
        """
        coming, metrics = iter(parts), self.objective.metrics
        told = {}
        for (name, split), count in zip(self.splits.items(), self.counts, strict=True):
            told[name] = dict.fromkeys(["loss", *(metric.name for metric in metrics)])
            if count:
                of_split = list(islice(coming, count))
                loss, sums = joined(of_split, metrics)
                told[name] = figures(loss / len(split), sums, metrics) | _right(of_split)
        return told


def _right(parts: Sequence[Part]) -> dict[str, object]:
    """Return whether each example of a split is right, as text, if the primary metric says so.

    Args:
        parts: of all batches, of which batch b of n has the examples b, b + n, b + 2n and so on.
    """
    found = np.empty(sum(0 if part.right is None else len(part.right) for part in parts), bool)
    for batch, part in enumerate(parts):
        if part.right is None:
            return {}
        found[batch :: len(parts)] = part.right
    return {"right": packed(found)}


def _parts(
    network: FlatNetwork,
    dataset: Dataset,
    split: Split,
    batches: range,
    objective: Objective,
    metrics: Sequence[Metric],
) -> Iterator[Part]:
    """Yield what batches come to, each of which is spread over all of a split.

    Where classes come one after another, a BatchNorm without running statistics would otherwise
    be told by the batch which class it is.
    """
    network.module.eval()
    device, step = network.weights.device, _batches(network, dataset, split)
    for start in batches:
        begun = time.perf_counter()
        inputs = dataset.inputs(split.images[start::step]).to(device)
        labels = split.labels[start::step].to(device)
        with torch.no_grad(), network.alone():
            outputs = network.module(inputs)
            loss = float(objective.total(outputs, labels))
            sums = [metric.sums(outputs, labels) for metric in metrics]
            right = metrics[0].right(outputs, labels) if labels.ndim == 1 else None
        right = None if right is None else right.cpu()
        yield Part(loss, sums, time.perf_counter() - begun, right)


_MOST = 250
"""Examples of a batch in evaluation."""
_MOST_INPUTS = _MOST * 28**3
"""Values of its inputs."""
_MOST_OUTPUTS = 2**24
"""Values of its largest layer's output, 64 MiB: 250 images of 32×32 have 64 channels, and go 250 at
a time; of volumes of 64×64×64 with 16 channels four do, as in a batch that is trained on."""


def _batches(network: FlatNetwork, dataset: Dataset, split: Split) -> int:
    """Return in how many batches a split is evaluated."""
    return -(-len(split) // examples_at_a_time(network, dataset.shape))


def examples_at_a_time(network: FlatNetwork, shape: Sequence[int]) -> int:
    """Return how many examples of a shape evaluation takes at a time: 250, and of large ones fewer.

    A BatchNorm without running statistics makes answers depend on who else is in the batch. Then
    only inputs are looked at.
    """
    most = min(_MOST, max(1, _MOST_INPUTS // max(1, math.prod(shape))))
    if network.mixes_examples:
        return most
    return min(most, max(1, _MOST_OUTPUTS // network.largest_output(shape)))
