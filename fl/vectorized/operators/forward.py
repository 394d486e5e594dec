"""Activations with scalars by our operators, in a forward pass over large batches."""

from collections.abc import Callable, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode

from fl.vectorized.operators import activations


class ForwardActivations(TorchFunctionMode):
    """Within this mode, one operator of ours computes an activation that has learnable scalars.

    All else stays PyTorch's, whose convolutions are the faster ones where batches are large.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call a function of PyTorch, or an activation of ours in its place."""
        if func in activations.REPLACED and not kwargs and activations.supports(*args):
            return activations.activate(func, *args)
        return func(*args, **(kwargs or {}))
