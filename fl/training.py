"""Local training and evaluation in plain PyTorch; a batch of one image is an ordinary batch.

Nothing here knows Flower. A network's parameters are views of one vector, so that a step, a penalty
and a norm are each a few calls on one tensor.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fl import optimizers
from fl.config import Client, Experiment
from fl.data import Batch, Dataset, Split, load
from fl.nn import BatchNorm, build, forget_statistics, scalars
from fl.settings import ConfigError

Vector = Float[Tensor, " weights"]

_MICRO = 4  # the largest batch for which PyTorch's own convolutions are the faster ones

Correction = Callable[[Vector, Vector, Vector], None]
"""A strategy's client half: ``correct(gradient, weights, start)`` changes the gradient in place."""


def network(knobs: Experiment, generator: torch.Generator) -> "FlatNetwork":
    """Build an experiment's network on its device, with initial weights from a generator.

    Raises:
        ConfigError: the recipe, the skeleton's size or the device does not exist.
    """
    dataset = load(knobs.data.name)
    try:
        module = build(
            knobs.network,
            knobs.recipe,
            dataset.channels,
            len(dataset.classes),
            generator,
            dataset.dims,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if knobs.state.bn == "drop":
        forget_statistics(module)
    return FlatNetwork(module, _device(knobs.device))


class FlatNetwork:
    """A network whose parameters live in one vector and whose gradients live in another.

    Args:
        module: any network; its parameters become views of `weights`, in the module's order.
        device: where it trains.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.module = module.to(device)
        parameters = list(module.parameters())
        self.weights = torch.cat([p.detach().reshape(-1) for p in parameters])
        self.gradient = torch.zeros_like(self.weights)
        self._tensors: dict[str, Tensor] = dict(module.state_dict(keep_vars=True))
        start = 0
        for parameter in parameters:
            view = slice(start, start + parameter.numel())
            parameter.data = self.weights[view].view_as(parameter)
            parameter.grad = self.gradient[view].view_as(parameter)
            start = view.stop

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Overwrite every parameter and buffer, so that nothing of the last client stays.

        Raises:
            ValueError: the names or shapes are not this network's.
        """
        if state.keys() != self._tensors.keys():
            odd = sorted(state.keys() ^ self._tensors.keys())
            raise ValueError(f"the state's tensors are not this network's; different: {odd[:3]}")
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                found, wanted = tuple(state[name].shape), tuple(tensor.shape)
                if found != wanted:
                    raise ValueError(f"{name} has shape {found}, expected {wanted}")
                tensor.copy_(state[name])

    def state(self) -> dict[str, Tensor]:
        """Return copies of all parameters and buffers, on the CPU."""
        return {name: t.detach().cpu().clone() for name, t in self._tensors.items()}

    def rate_factors(self, activation_lr: float) -> Vector | None:
        """Return a factor per weight on the learning rate; None where all are 1."""
        if activation_lr == 1:
            return None
        chosen = scalars(self.module)
        return torch.cat(
            [
                torch.full((p.numel(),), activation_lr if name in chosen else 1.0)
                for name, p in self.module.named_parameters()
            ]
        ).to(self.weights.device)


@dataclass(frozen=True)
class Outcome:
    """What a client's round came to."""

    steps: int
    """Optimizer steps."""
    examples: int
    """Images seen, counted once an epoch."""
    loss: float
    """Mean cross-entropy in nats over all images seen, each before its step; no penalty in it."""
    gradient_norm: float
    """Mean over steps of the gradient's 2-norm, with the correction, before clipping."""
    update_norm: float
    """‖w - w_start‖₂ over all parameters."""
    single_value_steps: int
    """Steps in which a BatchNorm layer saw one value a channel and used running statistics."""
    seconds: float
    """Wall time."""


def train(
    network: FlatNetwork, batches: Iterable[Batch], client: Client, correct: Correction | None
) -> Outcome:
    """Train in place: w <- w - lr * d(clip(∇loss + correction) + λw), one step a batch.

    Args:
        network: holds the start w_start = w_global, and afterwards the result.
        batches: inputs and labels; of any size from 1 up.
        client: learning rate, optimizer, clipping.
        correct: the strategy's client half, or None.
    """
    begun = time.perf_counter()
    start, update = network.weights.clone(), _Update(network, client, correct)
    norms = [module for module in network.module.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.single_value_steps = 0
    loss_sum, steps, examples = torch.zeros((), device=start.device), 0, 0
    network.module.train()
    for inputs, labels in batches:
        network.gradient.zero_()
        with _kernels_for(inputs):
            logits = network.module(inputs.to(start.device))
            loss = F.cross_entropy(logits, labels.to(start.device))
            loss.backward()
        update(start)
        loss_sum.add_(loss.detach(), alpha=len(labels))
        steps += 1
        examples += len(labels)
    return Outcome(
        steps=steps,
        examples=examples,
        loss=float(loss_sum) / max(examples, 1),
        gradient_norm=float(update.norms) / max(steps, 1),
        update_norm=float(torch.linalg.vector_norm(network.weights - start)),
        # A step that starves one layer of values starves every layer with a smaller map.
        single_value_steps=max((norm.single_value_steps for norm in norms), default=0),
        seconds=time.perf_counter() - begun,
    )


class _Update:
    """Moves a network's weights by one step, given its gradient."""

    def __init__(self, network: FlatNetwork, client: Client, correct: Correction | None) -> None:
        self.weights, self.gradient = network.weights, network.gradient
        self.client, self.correct = client, correct
        self.norms = torch.zeros((), device=network.weights.device)
        self.factors = network.rate_factors(client.activation_lr)
        self.optimizer = optimizers.make(client)

    @torch.no_grad()
    def __call__(self, start: Vector) -> None:
        """Correct, clip, decay, and step; the order of torch with the penalty in the loss."""
        if self.correct is not None:
            self.correct(self.gradient, self.weights, start)
        self.norms.add_(optimizers.clip(self.gradient, self.client.clip_norm))
        if self.client.weight_decay:
            self.gradient.add_(self.weights, alpha=self.client.weight_decay)
        direction = self.optimizer.direction(self.gradient)
        if self.factors is not None:
            direction = direction * self.factors
        self.weights.add_(direction, alpha=-self.client.lr)


@torch.no_grad()
def evaluate(network: FlatNetwork, dataset: Dataset, split: Split) -> tuple[float, int]:
    """Return the mean cross-entropy in nats, and how many examples of a split come out right."""
    network.module.eval()
    loss, correct = 0.0, 0
    for inputs, labels in _spread(network, dataset, split):
        logits = network.module(inputs)
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        correct += int((logits.argmax(1) == labels).sum())
    return loss / len(split), correct


@torch.no_grad()
def recalibrate(network: FlatNetwork, batches: Iterable[Batch]) -> None:
    """Measure BatchNorm's running statistics anew, with the weights as they are.

    Each layer gets the mean and the (biased) variance of all values that reach it, while what is
    before it normalizes by the batch, as in training. Derived (ours).

    Args:
        network: keeps its parameters, and gets new statistics.
        batches: at least one. Large ones, since evaluation stands in for all examples.
    """
    norms = [module for module in network.module.modules() if isinstance(module, BatchNorm)]
    sums = {norm: torch.zeros(2, *norm.weight.shape, dtype=torch.float64) for norm in norms}

    def add(norm: nn.Module, arrived: tuple[Tensor]) -> None:
        values = arrived[0].transpose(0, 1).flatten(1).double().cpu()
        moments = torch.stack([values.mean(1), values.square().mean(1)])
        sums[norm] += len(arrived[0]) * moments  # pyrefly: ignore

    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    examples = 0
    try:
        network.module.train()
        for inputs, labels in batches:
            network.module(inputs.to(network.weights.device))
            examples += len(labels)
    finally:
        for hook in hooks:
            hook.remove()
    for norm, total in sums.items():
        mean, square = total / examples
        norm.running_mean.copy_(mean)
        norm.running_var.copy_((square - mean**2).clamp_min(0))


def _spread(network: FlatNetwork, dataset: Dataset, split: Split) -> Iterator[Batch]:
    """Yield a split on a network's device in batches of up to 250, each spread over all of it.

    Where classes come one after another, a BatchNorm without running statistics would otherwise
    be told by the batch which class it is.
    """
    device, step = network.weights.device, -(-len(split) // 250)
    for start in range(step):
        images, labels = split.images[start::step], split.labels[start::step]
        yield dataset.inputs(images).to(device), labels.to(device)


def use_one_thread() -> None:
    """Let torch use one thread: small steps are faster, and results don't depend on the cores."""
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@contextmanager
def _kernels_for(inputs: Tensor) -> Iterator[None]:
    """Take PyTorch's own convolutions for a micro-batch, and oneDNN's, the default, for others.

    For volumes, always oneDNN's.

    Milliseconds a step of `none`, default knobs, one core of a virtual AMD EPYC, torch 2.13.0,
    oneDNN's and PyTorch's: 3.7 and 2.5 at batch size 1, 5.5 and 4.6 at 4, 6.9 and 8.6 at 8; with
    depth 6 and width 8: 4.8 and 2.9 at 4. At width 32 PyTorch's lose a tenth. Volumes of 24×24×24,
    `zc-swish`, width 8, a step without its update: 23 and 23 at 1, 34 and 64 at 4, 52 and 127 at 8.
    """
    before = torch.backends.mkldnn.enabled
    default = len(inputs) > _MICRO or inputs.ndim > 4
    torch.backends.mkldnn.enabled = before and default  # pyrefly: ignore
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


def device_name(network: FlatNetwork) -> str:
    """Return where a network trains: `cpu`, or the name of the GPU."""
    device = network.weights.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch sees no CUDA device here; use device=cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
