"""The pass over all lanes as one flat graph, compiled or not."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule

from fl.training.parameters import FlatNetwork
from fl.vectorized import graph_cache
from fl.vectorized.aot import compiled
from fl.vectorized.cuda_graphs import recorded
from fl.vectorized.gradients import Examples, Gradients, PerLane, Rows
from fl.vectorized.graph_cache import Graph, Program

_TOLERANCE, _ROUNDING = 1e-3, 1e-5
"""How far a graph's results may be from those that it was made from: the gradients of a parameter
relative to their largest, and to the largest of the whole network, which some have only rounding
errors of."""
_HASHED = "fl.", "torch."
"""Where classes are from whose code is in the name of a graph that is kept."""
_AWAY = 0.01
"""Standard deviation of what is added to weights and inputs where that is looked at."""
_PLACES = 4
"""At how many a graph is looked at before it is taken to be wrong."""


@dataclass(frozen=True)
class _Pass:
    """A pass for one shape of batches."""

    run: Program
    """(weights, inputs, labels, shares, *buffers) -> losses, gradients, *new buffers."""
    starved: tuple[int, ...]
    """As of a `Graph`."""


class Traced(Gradients):
    """Gradients by graphs that are traced when they are first needed, one for each batch size.

    Only a pass over all lanes is traced; a pass over some of them is taken as `Gradients` takes it.
    A graph holds the operators of the forward and of the backward pass, without what finds them:
    vmap, autograd and modules, which at micro-batches take longer than the operators. None of
    autograd's rules is left to the compiler, which has dropped hand-written ones. A graph whose
    first results are not those of `Gradients` is not used, with a warning; one that can't be
    compiled, or on a GPU recorded, serves as it is, with another.

    Args:
        network: as `Gradients`.
        native: as `Gradients`.
        lanes: how many are all.
        compiled: whether PyTorch's compiler fuses the operators of a graph.
        name: what the network is, so that the user's cache can keep graphs; empty: it doesn't.
    """

    whole: ClassVar[bool] = True

    def __init__(
        self,
        network: FlatNetwork,
        native: bool,
        lanes: int,
        compiled: bool,
        name: str = "",
    ) -> None:
        super().__init__(network, native)
        self.lanes, self.compiled = lanes, compiled
        ours = all(type(m).__module__.startswith(_HASHED) for m in network.module.modules())
        self.name = f"{name}, native={native}, compiled={compiled}" if name and ours else ""
        self.norms = network.norms
        self.used: dict[torch.Size, _Pass | None] = {}

    @torch.no_grad()
    def __call__(
        self, weights: Rows, buffers: Mapping[str, Tensor], examples: Examples
    ) -> tuple[PerLane, Rows]:
        """Return what `Gradients` returns, and move the buffers as it does."""
        shape = examples.inputs.shape
        if len(weights) == self.lanes and shape not in self.used:
            self.used[shape] = self._checked(weights, buffers, examples)
        graph = self.used.get(shape) if len(weights) == self.lanes else None
        if graph is None:
            return super().__call__(weights, buffers, examples)
        # In this mode our operators are not asked for what autograd would need: Python, each time.
        with torch.inference_mode():
            losses, gradients, *moved = graph.run(weights, *examples, *buffers.values())
        for buffer, value in zip(buffers.values(), moved, strict=True):
            buffer.copy_(value)
        for norm, count in zip(self.norms, graph.starved, strict=True):
            norm.single_value_steps += count
        return losses, gradients

    def _checked(
        self, weights: Rows, buffers: Mapping[str, Tensor], examples: Examples
    ) -> _Pass | None:
        """Return a graph for batches like these; None, with a warning, where it is no good."""
        names, arguments = list(buffers), (weights, *examples, *buffers.values())

        def usable(graph: Graph) -> _Pass:
            run = self._program(graph, arguments)
            if wrong := self._wrong(run, names, arguments):
                raise ArithmeticError(f"it differs in {wrong}")
            if len(graph.starved) != len(self.norms):
                raise ValueError(f"{len(graph.starved)} layers, not {len(self.norms)}")
            return _Pass(run, graph.starved)

        place = graph_cache.place(self.name, arguments)
        with suppress(Exception):  # of a graph that is not there, or no good, there is a new one
            return usable(graph_cache.kept(place))
        try:
            graph = self._traced(names, arguments)
            found = usable(graph)
        except Exception as error:
            warnings.warn(f"the traced pass is not used: {_told(error)}", stacklevel=3)
            return None
        if self.name:
            with suppress(Exception):  # it serves this process all the same
                graph.keep(place)
        return found

    def _program(self, graph: Graph, arguments: tuple[Tensor, ...]) -> Program:
        """Return what runs a graph: the list itself where there is no better, with a warning."""
        run, on_gpu = graph.module(), arguments[0].device.type == "cuda"
        if not self.compiled and not on_gpu:
            return run
        try:
            return compiled(graph, arguments) if self.compiled else recorded(run, arguments)
        except Exception as error:
            better = "compiled" if self.compiled else "recorded"
            warnings.warn(f"the traced pass is not {better}: {_told(error)}", stacklevel=5)
            return run

    def _wrong(self, run: Program, names: list[str], arguments: tuple[Tensor, ...]) -> str | None:
        """Name what a program gets wrong; None where it is right.

        A wrong one is wrong everywhere. A right one can differ where rounding takes an input of
        ReLU to the other side of its kink: by a percent of a gradient, for a single one of them.
        """
        wrong = None
        for number in range(_PLACES):
            place = _somewhere(arguments, number)
            wrong = self._differing(run(*place), self._pass(names, *place))
            if wrong is None:
                break
        return wrong

    def _differing(self, found: Sequence[Tensor], expected: Sequence[Tensor]) -> str | None:
        """Name the first result that is not as expected; None where all are."""
        pairs = {s.name: (s.of(found[1]), s.of(expected[1])) for s in self.segments}
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

    def _traced(self, names: list[str], arguments: tuple[Tensor, ...]) -> Graph:
        from torch.fx.experimental.proxy_tensor import make_fx  # loads a second's worth of algebra

        before = [norm.single_value_steps for norm in self.norms]
        graph = make_fx(lambda *a: self._pass(names, *a), tracing_mode="fake")(*arguments)
        _tidy(graph)
        starved = []
        for norm, count in zip(self.norms, before, strict=True):
            starved.append(norm.single_value_steps - count)
            norm.single_value_steps = count
        return Graph.of(graph, starved)

    def _pass(
        self,
        names: list[str],
        weights: Tensor,
        inputs: Tensor,
        labels: Tensor,
        shares: Tensor,
        *buffers: Tensor,
    ) -> tuple[Tensor, ...]:
        """Do a pass without changing anything."""
        moved = {name: b.clone() for name, b in zip(names, buffers, strict=True)}
        found = super().__call__(weights, moved, Examples(inputs, labels, shares))
        return *found, *moved.values()


_VIEWS = (
    torch.ops.aten.detach.default,
    torch.ops.aten.expand.default,
    torch.ops.aten.permute.default,
    torch.ops.aten.view.default,
)
"""What modules and vmap leave behind, often of a tensor as it was."""


def _tidy(graph: GraphModule) -> None:
    """Take out what does nothing, and what nobody uses."""
    for node in graph.graph.nodes:
        if node.target in _VIEWS:
            before, after = (n.meta["val"] for n in (node.args[0], node))
            if before.shape == after.shape and before.stride() == after.stride():
                node.replace_all_uses_with(node.args[0])
        if node.target is torch.ops.aten.view.default:
            # Kernels may lay a result out otherwise than was foretold when it was traced.
            node.target = torch.ops.aten.reshape.default
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _largest(values: Tensor) -> float:
    """Return the largest of the finite ones; 0 where there is none."""
    return float(values.abs().nan_to_num(nan=0, posinf=0).max())


def _somewhere(arguments: tuple[Tensor, ...], number: int) -> tuple[Tensor, ...]:
    """Return arguments near these at which the gradient is not a matter of rounding.

    At the start it can be: standardized weights make 0 of an image's even ground, and it is for
    rounding errors to say on which side of ReLU's kink that is. Lanes are alike there, too. And
    nearly every second pass of 32 images has an input of ReLU that close to 0, so in every lane one
    image counts.
    """
    weights, inputs, labels, shares, *buffers = arguments
    noise = torch.Generator().manual_seed(number)
    moved = (
        t + _AWAY * torch.randn(t.shape, generator=noise).to(t.device, t.dtype)
        for t in (weights, inputs)
    )
    lanes = torch.arange(len(shares), device=shares.device)
    counts = torch.zeros_like(shares)
    counts[lanes, (lanes + number) % shares.shape[1]] = 1
    return *moved, labels, counts, *buffers
