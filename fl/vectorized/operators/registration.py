"""Registration of operators that have lanes: with autograd, vmap and tracing."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def register(name: str, fake: Callable, fake_backward: Callable, may_lack_x: bool = False) -> None:
    """Let an operator ``name(tensors, rest)`` be traced, differentiated once, and vectorized.

    Its gradient is ``name_backward(gradient of the result, tensors, rest)``. Under `torch.vmap`, L
    lanes of K lanes each become L·K lanes.

    Args:
        name: the operator's name in our library.
        fake: returns an empty tensor with the result's shape, given the operator's arguments.
        fake_backward: the same for its gradient.
        may_lack_x: whether the gradient takes one more argument, the last: whether the gradient of
            the first tensor is needed. Where it isn't, it returns an empty tensor for it.
    """
    gradient = getattr(torch.ops.fednf, f"{name}_backward")

    def save(ctx, inputs, output) -> None:
        tensors = _tensors(inputs)
        ctx.save_for_backward(*tensors)
        ctx.rest = inputs[len(tensors) :]

    def backward(ctx, grad: Tensor):
        last = [ctx.needs_input_grad[0]] if may_lack_x else []
        found = gradient(grad, *ctx.saved_tensors, *ctx.rest, *last)
        of_x, *others = [found] if isinstance(found, Tensor) else found
        return None if False in last else of_x, *others, *(None for _ in ctx.rest)

    register_constant(name, fake)
    torch.library.register_fake(f"fednf::{name}_backward", fake_backward)
    torch.library.register_autograd(f"fednf::{name}", backward, setup_context=save)


def register_constant(name: str, fake: Callable) -> None:
    """Let an operator ``name(tensors, rest)`` be traced and vectorized; it has no gradient."""
    operator = getattr(torch.ops.fednf, name)

    def vmap(info, dims, *inputs):
        tensors = _lanes_of_lanes(info.batch_size, dims, _tensors(inputs))
        result = operator(*tensors, *inputs[len(tensors) :])
        return result.unflatten(0, (info.batch_size, -1)), 0

    torch.library.register_fake(f"fednf::{name}", fake)
    torch.library.register_vmap(f"fednf::{name}", vmap)


def like_x(x: Tensor, *inputs) -> Tensor:
    """Return an empty result of the shape of x."""
    return x.new_empty(x.shape)


def like_tensors(grad: Tensor, *inputs) -> tuple[Tensor, ...]:
    """Return an empty gradient for every tensor."""
    return tuple(t.new_empty(t.shape) for t in _tensors(inputs))


def _tensors(inputs: Sequence) -> list[Tensor]:
    return [value for value in inputs if isinstance(value, Tensor)]


def _lanes_of_lanes(
    count: int, dims: Sequence[int | None], tensors: Sequence[Tensor]
) -> list[Tensor]:
    """Return each tensor (L, K, ...) as (L·K, ...); one without L is repeated for all."""
    return [
        (t.expand(count, *t.shape) if dim is None else t.movedim(dim, 0)).flatten(0, 1)
        for t, dim in zip(tensors, dims, strict=False)
    ]
