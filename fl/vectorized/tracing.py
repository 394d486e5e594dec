"""A pass over lanes, traced: one flat list of operators, run without looking for them.

`Gradients` finds its operators anew in every pass, through modules, vmap and autograd, which at
micro-batches takes longer than the operators do. `TracedGradients` holds a `Gradients`, records the
operators of one of its passes with `make_fx`, and from then on runs these. Before a program is
used, its results are compared with those of the `Gradients` that it was traced from.
"""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule

from fl.config.components.modules import PREFIX
from fl.tasks import PLAIN
from fl.tasks.task import Loss
from fl.training.parameters import FlatNetwork
from fl.vectorized import graph_cache
from fl.vectorized.aot import compile_ahead_of_time
from fl.vectorized.cuda_graphs import record
from fl.vectorized.gradients import Examples, Gradients, PerLane, Rows, without_side_effects
from fl.vectorized.graph_cache import Graph, Program
from fl.vectorized.operators.norms import rectify
from fl.vectorized.padding import fewest_rows
from fl.vectorized.verification import difference

_HASHED_PACKAGES = "fl.", "torch.", PREFIX
"""A graph is cached only if the classes of all layers are from these packages or from a user's own
files. The name of a cached graph depends on their code or version, so a change of any other layer
would go unnoticed."""


@dataclass(frozen=True)
class _Pass:
    """A pass for one shape of batches."""

    run: Program
    """(weights, *examples, *buffers) -> losses, gradients, *new buffers; see `Examples.tensors`."""
    single_value_steps: tuple[int, ...]
    """How often BatchNorm layers are given examples of one value a channel, as in `Graph`."""


class TracedGradients:
    """Gradients by graphs that are traced when they are first needed, by lanes and batch size.

    On a CPU there are graphs for all lanes, for half of them, and so on to one lane, since clients
    that are left at the end of a round would else pay for idle lanes. Only the graph for all lanes
    is compiled, because the others run seldom. On a GPU there is that one graph, since a pass over
    few lanes takes as long as one over many.

    A graph holds the operators of the forward and of the backward pass. The compiler is given both,
    and needs none of autograd's rules, because it has dropped hand-written ones. A graph whose
    first results differ from those of `Gradients` is not used, with a warning. One that can't be
    compiled, or on a GPU recorded, is run operator by operator, with another warning.

    Args:
        network: as `Gradients`.
        native: as `Gradients`.
        lanes: how many lanes there are.
        compiled: whether PyTorch's compiler fuses the operators of the graph for all lanes.
        name: identifies the network and the loss, so that graphs can be kept in the user's cache;
            empty: they are not kept.
        loss: as `Gradients`.
    """

    def __init__(
        self,
        network: FlatNetwork,
        native: bool,
        lanes: int,
        compiled: bool,
        name: str = "",
        loss: Loss = PLAIN.loss,
    ) -> None:
        self.eager = Gradients(network, native, loss)
        self.lanes, self.compiled = lanes, compiled
        self.on_gpu = network.weights.device.type == "cuda"
        self.fewest = [lanes if self.on_gpu else fewest_rows(lanes, n) for n in range(lanes + 1)]
        """The lanes of the smallest graph that has room for so many busy ones, by their number."""
        layers = network.module.modules()
        hashed = all(type(layer).__module__.startswith(_HASHED_PACKAGES) for layer in layers)
        self.name = f"{name}, native={native}, compiled={compiled}" if name and hashed else ""
        self.norms, self.segments = network.norms, network.segments
        self.passes: dict[torch.Size, _Pass | None] = {}
        """The pass for each shape of inputs; None where the traced pass is not used."""

    def rows(self, busy: int) -> int:
        """Return the lanes of the smallest graph that has room for so many."""
        return self.fewest[busy]

    def __call__(
        self, weights: Rows, buffers: Mapping[str, Tensor], examples: Examples
    ) -> tuple[PerLane, Rows]:
        """Return what `Gradients` returns, and move the buffers as it does."""
        if len(weights) not in self.fewest:
            return self.eager(weights, buffers, examples)
        shape = examples.inputs.shape
        if shape not in self.passes:
            problems: list[str] = []
            with torch.no_grad():
                self.passes[shape] = self._prepare(weights, buffers, examples, problems)
            for problem in dict.fromkeys(problems):
                warnings.warn(f"the traced pass is not {problem}", stacklevel=2)
        if (prepared := self.passes[shape]) is None:
            return self.eager(weights, buffers, examples)
        # Outside of inference mode PyTorch would ask our operators' Python code, each time, what
        # autograd needs of them.
        with torch.inference_mode():
            losses, gradients, *moved = prepared.run(
                weights, *examples.tensors(), *buffers.values()
            )
            # A graph has no side effects, so what `Gradients` changes in place is changed here.
            for buffer, value in zip(buffers.values(), moved, strict=True):
                buffer.copy_(value)
        for norm, count in zip(self.norms, prepared.single_value_steps, strict=True):
            norm.single_value_steps += count
        return losses, gradients

    def _prepare(
        self,
        weights: Rows,
        buffers: Mapping[str, Tensor],
        examples: Examples,
        problems: list[str],
    ) -> _Pass | None:
        """Return a pass for batches like these, by a cached graph if there is a good one.

        What could not be done is added to `problems`; None is returned where no graph is right.
        """
        arguments = weights, *examples.tensors(), *buffers.values()
        eager = without_side_effects(self.eager, list(buffers))

        def checked(graph: Graph) -> _Pass:
            run = self._program(graph, arguments, problems)
            if wrong := difference(run, eager, arguments, self.segments):
                raise ArithmeticError(f"it differs in {wrong}")
            if len(graph.single_value_steps) != len(self.norms):
                raise ValueError(f"{len(graph.single_value_steps)} layers, not {len(self.norms)}")
            return _Pass(run, graph.single_value_steps)

        path = graph_cache.path_for(self.name, arguments)
        with suppress(Exception):  # a graph that is missing or wrong is traced anew
            return checked(graph_cache.load(path))
        try:
            graph = self._trace(eager, arguments)
            found = checked(graph)
        except Exception as error:
            problems.append(f"used: {_one_line(error)}")
            return None
        if self.name:
            with suppress(Exception):  # a graph that can't be kept serves this process all the same
                graph.save(path)
        return found

    def _program(self, graph: Graph, arguments: tuple[Tensor, ...], problems: list[str]) -> Program:
        """Return what runs a graph fastest; its own list of operators where that fails."""
        run = graph.module()
        compiled = self.compiled and len(arguments[0]) == self.lanes
        if not compiled and not self.on_gpu:
            return run
        try:
            return compile_ahead_of_time(graph, arguments) if compiled else record(run, arguments)
        except Exception as error:
            better = "compiled" if compiled else "recorded"
            problems.append(f"{better}: {_one_line(error)}")
            return run

    def _trace(self, eager: Program, arguments: tuple[Tensor, ...]) -> Graph:
        """Record the operators of an eager pass, and how often BatchNorm is given single values.

        Layers count that in Python, which a graph doesn't contain. It depends on shapes only.
        """
        from torch.fx.experimental.proxy_tensor import make_fx  # takes a second: it loads sympy

        before = [norm.single_value_steps for norm in self.norms]
        try:
            graph = make_fx(lambda *a: eager(*a), tracing_mode="fake")(*arguments)
        except Exception:  # a loss may hold tensors of its own, which are no arguments
            for norm, count in zip(self.norms, before, strict=True):
                norm.single_value_steps = count
            graph = make_fx(lambda *a: eager(*a), tracing_mode="real")(*arguments)
        _simplify(graph)
        single_value_steps = []
        for norm, count in zip(self.norms, before, strict=True):
            single_value_steps.append(norm.single_value_steps - count)
            norm.single_value_steps = count
        return Graph.of(graph, single_value_steps)


_VIEWS = (
    torch.ops.aten.detach.default,
    torch.ops.aten.expand.default,
    torch.ops.aten.permute.default,
    torch.ops.aten.view.default,
)
"""Operators that modules and vmap leave in a graph, often where they change nothing."""


_RESHAPES = (
    torch.ops.aten.reshape.default,
    torch.ops.aten.squeeze.dim,
    torch.ops.aten.squeeze.dims,
    torch.ops.aten.unsqueeze.default,
    torch.ops.aten.view.default,
)
"""Operators that leave all values in their order."""


def _simplify(graph: GraphModule) -> None:
    """Remove what changes nothing: views, views of views, and operators whose results go unused.

    vmap and our operators add and drop lanes' dimensions by turns. A row of such views is one view,
    or none. Norms of ours do the ReLU behind them.
    """
    for node in graph.graph.nodes:
        if node.target in _RESHAPES:
            # What is before a view of a view has been looked at already, so one step is enough.
            before, found = node.args[0], node.meta["val"]
            source = before.args[0] if before.target in _RESHAPES else before
            if _is_view(found, source.meta["val"]):
                node.target = torch.ops.aten.view.default
                node.args = source, list(found.shape)
        if node.target in _VIEWS:
            before, after = (n.meta["val"] for n in (node.args[0], node))
            if before.shape == after.shape and before.stride() == after.stride():
                node.replace_all_uses_with(node.args[0])
        if node.target is torch.ops.aten.view.default:
            # A kernel may return another memory layout than was predicted when the graph was
            # traced. Of such a tensor there may be no view, and `reshape` then copies it.
            node.target = torch.ops.aten.reshape.default
    graph.graph.eliminate_dead_code()  # else a norm's result has users that are no more
    rectify(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _is_view(found: Tensor, source: Tensor) -> bool:
    """Return whether a tensor of the same values in order is a view of another without a copy."""
    try:
        return source.view(found.shape).stride() == found.stride()
    except (RuntimeError, ValueError):  # there is no such view
        return False


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
