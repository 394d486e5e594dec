"""Where the inputs of a network's layers come from, whatever is done to them on their way."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from fl.nn.foreign.observed import as_found, is_norm, is_strange_norm
from fl.nn.initialization import WEIGHED
from fl.nn.layers.gains import Function, elementwise


@dataclass
class Call:
    """A call of a layer."""

    name: str
    """The layer's, as in `named_modules()`."""
    module: nn.Module
    shape: tuple[int, ...]
    """Shape of its input."""
    input: GradientEdge
    output: GradientEdge
    slot: bool
    function: Function | None = None
    """What it does, where that is elementwise."""

    @property
    def weighed(self) -> bool:
        """Whether the layer has weights of its own."""
        return isinstance(self.module, WEIGHED)

    @property
    def normalizes(self) -> bool:
        """Whether its outputs count as N(0, 1) for what it is, and not for what comes in."""
        normal = self.slot or is_norm(self.module) or is_strange_norm(self.module)
        return normal and not self.function and not self.weighed


def calls_of(network: nn.Module, shape: Sequence[int]) -> list[Call]:
    """Pass an example, and return the calls that matter, in the order in which they ended."""
    calls: list[Call] = []
    device = next(network.parameters()).device
    with as_found(network), torch.enable_grad():
        hooks, started = [], {}

        def start(module: nn.Module, args: tuple) -> None:
            if args and isinstance(args[0], Tensor) and args[0].requires_grad:
                started[module] = tuple(args[0].shape), get_gradient_edge(args[0])

        for name, module, slot in units(network):

            def end(module: nn.Module, _: Any, output: Any, name=name, slot=slot) -> None:
                if module in started and isinstance(output, Tensor) and output.requires_grad:
                    shape, before = started.pop(module)
                    after = get_gradient_edge(output)
                    if before.node is not after.node:  # else it gives back what it is given
                        calls.append(Call(name, module, shape, before, after, slot))

            hooks += [module.register_forward_pre_hook(start), module.register_forward_hook(end)]
        try:
            network.eval()(torch.zeros(1, *shape, device=device).requires_grad_().clone())
        finally:
            for hook in hooks:
                hook.remove()
        network.train()
        for call in calls:
            call.function = function_of(call.module, call.shape)
    return [call for call in calls if call.function or call.normalizes or call.weighed]


def units(network: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """Yield modules that are taken as one, and whether they fill a slot: slots, and layers."""
    within = "\n"
    for name, module in network.named_modules():
        if name.startswith(within) or isinstance(module, nn.Identity):
            continue
        plain = name.rpartition(".")[2].rstrip("0123456789")
        slot = getattr(module, "slot", plain) in ("norm", "activation")
        slot = slot and not any(isinstance(part, WEIGHED) for part in module.modules())
        if slot:
            within = f"{name}."
        if slot or isinstance(module, WEIGHED) or not any(True for _ in module.children()):
            yield name, module, slot


class Origins:
    """Follows inputs back to the calls that they come from."""

    def __init__(self, ends: Mapping[Any, Call]) -> None:
        self.ends = ends

    def of(self, call: Call) -> list[Call]:
        """Return the calls whose outputs a call's input is made of."""
        found: dict[int, Call] = {}
        waiting, seen = [call.input.node], set()
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in self.ends:
                found[id(self.ends[node])] = self.ends[node]
            else:
                waiting += [after for after, _ in node.next_functions if after is not None]
        return list(found.values())

    def chain(self, call: Call) -> list[Function]:
        """Return the elementwise functions in a row that end with a call's; none where it is none.

        The row begins behind a layer that is not elementwise, or where several signals meet.
        """
        if not call.function:
            return []
        before = self.of(call)
        return [*(self.chain(before[0]) if len(before) == 1 else []), call.function]


def function_of(module: nn.Module, shape: Sequence[int]) -> Function | None:
    """Return what a layer does, if that is elementwise. Norms by running statistics are none."""
    normal = is_norm(module) or is_strange_norm(module)
    return None if normal or isinstance(module, WEIGHED) else elementwise(module, shape)
