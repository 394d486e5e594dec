"""Checks that lanes can take a network, and that a program computes what an eager pass does."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from fl.nn import Noise
from fl.nn.foreign.observed import as_found
from fl.reproducibility.errors import in_words
from fl.tasks.task import Objective
from fl.training.parameters import FlatNetwork, Segment
from fl.vectorized.gradients import Examples, Gradients, without_side_effects
from fl.vectorized.graph_cache import Program

_TOLERANCE, _ROUNDING = 1e-3, 1e-5
"""How far results may be from the expected ones. For the gradient of a parameter: relative to its
own largest value, plus relative to the largest of the whole network, because the gradients of some
parameters are nothing but rounding errors."""
_NOISE = 0.01
"""Standard deviation of the noise that is added to weights and inputs before programs are compared,
see `_near`."""
_ATTEMPTS = 4
"""Programs that differ at this many points are taken to be different."""


def difference(
    run: Program, expected: Program, arguments: tuple[Tensor, ...], segments: Sequence[Segment]
) -> str | None:
    """Name the first result of `run` that differs from that of `expected`; None where none does.

    A wrong program is wrong at every point. A right one can differ at a point where rounding takes
    an input of ReLU to the other side of its kink: by a percent of a gradient, for a single such
    input. So a program passes if it agrees at one of a few points.

    Args:
        run: what is checked: (weights, inputs, labels, example weights, how many examples are
            real, *others) -> losses, gradients, *new buffers.
        expected: the same by an eager pass.
        arguments: of both.
        segments: where in a row of gradients each parameter's are.
    """
    wrong = None
    for attempt in range(_ATTEMPTS):
        point = _near(arguments, attempt)
        wrong = _first_difference(run(*point), expected(*point), segments)
        if wrong is None:
            break
    return wrong


def _first_difference(
    found: Sequence[Tensor], expected: Sequence[Tensor], segments: Sequence[Segment]
) -> str | None:
    pairs = {s.name: (s.of(found[1]), s.of(expected[1])) for s in segments}
    pairs["the losses"] = found[0], expected[0]
    pairs |= {
        f"buffer {n}": pair for n, pair in enumerate(zip(found, expected, strict=True)) if n > 1
    }
    slack = _ROUNDING * _largest(expected[1])
    for name, (mine, theirs) in pairs.items():
        bound = _TOLERANCE * _largest(theirs) + slack
        if not torch.allclose(mine, theirs, rtol=0, atol=bound, equal_nan=True):
            return name
    return None


def _largest(values: Tensor) -> float:
    """Return the largest absolute value that is finite; 0 where there is none."""
    return float(values.abs().nan_to_num(nan=0, posinf=0).max())


def _near(arguments: tuple[Tensor, ...], number: int) -> tuple[Tensor, ...]:
    """Return arguments near these at which gradients are not a matter of rounding.

    At initial weights they can be: standardized weights turn the uniform background of an image
    into 0, and rounding decides on which side of ReLU's kink that is. All lanes have equal weights
    there, too, so an error that mixes lanes up would not show. Noise on weights and inputs helps
    against both. Still, nearly every second pass of 32 images has an input of ReLU that is close
    enough to 0, so only one image in every lane has a weight in the loss. In the first lane, and
    every second one, the last image only pads the batch, since a program has to be right for
    batches of all sizes.
    """
    weights, inputs, labels, example_weights, real, *others = arguments
    noise = torch.Generator().manual_seed(number)
    moved = (
        t + _NOISE * torch.randn(t.shape, generator=noise).to(t.device, t.dtype)
        for t in (weights, inputs)
    )
    lanes = torch.arange(len(example_weights), device=example_weights.device)
    counted = (example_weights.shape[1] - (lanes + 1) % 2).clamp_min(1)
    one_each = torch.zeros_like(example_weights)
    one_each[lanes, (lanes + number) % counted] = 1
    return *moved, labels, one_each, counted.to(real.dtype), *others


def refusal(network: FlatNetwork, objective: Objective, examples: Examples) -> str | None:
    """Return in one line why lanes can't train a network; None where they can.

    A network can't be vectorized whose forward pass draws random numbers, branches on values,
    changes a tensor in place that is none of its buffers, or notes something down in Python, which
    all lanes would share. Nor can one be padded that lets examples influence each other in another
    way than BatchNorm does.

    Args:
        network: is left as it is.
        objective: has the loss.
        examples: of two lanes.
    """
    module = network.module
    if any(isinstance(layer, Noise) and layer.rate for layer in module.modules()):
        return "dropout draws from each client's own stream"
    weights = network.weights.expand(len(examples.labels), -1).clone()
    buffers = {n: b.expand(len(weights), *b.shape).clone() for n, b in network.buffers.items()}
    try:
        with as_found(module):
            module.train()
            before = dict(_notes(module))
            gradients = Gradients(network, loss=objective.loss)
            gradients(weights, buffers, examples)
            changed = [name for name, note in _notes(module) if before.get(name, note) != note]
            if changed:
                return f"{changed[0]} changes while the network runs"
            eager = without_side_effects(gradients, list(buffers))
            arguments = weights, *examples.tensors(), *buffers.values()
            with torch.no_grad():
                wrong = difference(_with_one_more(eager), eager, arguments, network.segments)
    except Exception as error:
        return f"vmap can't take this network: {in_words(error)[:200]}"
    return f"an example that only pads the batch changes {wrong}" if wrong else None


def _with_one_more(run: Program) -> Program:
    """Return the program that pads batches by one example, and then does what `run` does."""

    def padded(
        weights: Tensor, inputs: Tensor, labels: Tensor, example_weights: Tensor, *others: Tensor
    ) -> Sequence[Tensor]:
        parts = inputs, labels, example_weights
        longer = (torch.cat([part, part[:, -1:]], 1) for part in parts)
        inputs, labels, example_weights = longer
        example_weights[:, -1] = 0
        return run(weights, inputs, labels, example_weights, *others)

    return padded


def _notes(module: nn.Module) -> Iterator[tuple[str, object]]:
    """Yield what layers have noted down in plain attributes, by its dotted name."""
    for name, layer in module.named_modules():
        for key, value in vars(layer).items():
            if isinstance(value, int | float | str) and key != "single_value_steps":
                yield f"{name}.{key}".lstrip("."), value
            elif isinstance(value, Tensor):
                yield f"{name}.{key}".lstrip("."), id(value)
