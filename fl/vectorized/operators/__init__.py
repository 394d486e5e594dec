"""Operators of micro-batches in C++, for lanes that each have images and weights of their own.

At a batch of one PyTorch's convolutions spend their time on set-up and on copies of patches, and
its max pools on indices; its compiler takes roots anew for every few standardized weights; and the
scale and shift of a normalizer, or the scalars of an activation, that lanes have each for itself
are operators of their own, each with all of a map. Here are operators that don't.

`why_not` compiles them on first use; without a C++ compiler it says so, and nothing else here may
be called. Flower's bundles hold no C++ either: there PyTorch's operators serve.

The operators run on one thread, but for products of small maps, which are PyTorch's. The result for
a lane depends on its own images and weights: not on the other lanes, their number or its place
among them, as far as PyTorch's products don't mind where matrices lie.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fl.vectorized.operators import activations, convolutions, library, norms, pools, rows


@functools.cache
def why_not() -> str | None:
    """Make the operators ready and return None; or the reason why that can't be, in a line."""
    try:
        library.load()
    except (OSError, RuntimeError) as problem:
        return str(problem)
    convolutions.register()
    pools.register()
    rows.register()
    norms.register()
    activations.register()
    return None


class Operators(TorchFunctionMode):
    """Within it, these operators stand in for PyTorch's where they are faster.

    A max pool of what ReLU has made becomes ReLU of a max pool: the same numbers and gradients, and
    a quarter as many for ReLU. A convolution by weights that were just standardized becomes one
    operator. What the first of the two had made already is not in a traced graph: nobody uses it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rectified: tuple[object, object] = None, None
        """What the last ReLU returned, and of what."""
        self.standardized: tuple[object, tuple[Tensor, Tensor, float] | None] = None, None
        """The last weights to be standardized, and of what: those, their gain and ε."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in convolutions.THEIRS and convolutions.pays(*args, **kwargs):
            return self._convolved(*args, **kwargs)
        if func in norms.THEIRS and norms.supports(*args, **kwargs):
            return norms.group_norm(*args, **kwargs)
        if func in activations.THEIRS and not kwargs and activations.supports(*args):
            return activations.activate(func, *args)
        if func in rows.THEIRS and (raw := rows.raw(*args, **kwargs)):
            found = rows.standardize(*raw)
            self.standardized = found, raw
            return found
        if func in pools.THEIRS and args and pools.supports(*args, **kwargs):
            after, before = self.rectified
            if args[0] is after:
                return torch.relu(pools.max_pool(before))  # pyrefly: ignore
            return pools.max_pool(args[0])  # pyrefly: ignore
        found = func(*args, **kwargs)
        if args and (found is None or found is args[0]):  # in place, maybe of one of these
            self.rectified, self.standardized = (None, None), (None, None)
        elif args and func in (F.relu, torch.relu):
            self.rectified = found, args[0]
        elif len(args) == 2 and func is torch.Tensor.view_as and args[0] is self.standardized[0]:
            weights, gain, eps = self.standardized[1]  # pyrefly: ignore
            self.standardized = found, (func(weights, args[1]), gain, eps)
        return found

    def _convolved(self, x, w, *args, **kwargs):
        standard, raw = self.standardized
        if raw and w is standard and raw[0].shape == w.shape and len(raw[1]) == len(w):  # pyrefly: ignore
            return convolutions.conv(x, raw[0], *args, **kwargs, standard=raw[1:])
        return convolutions.conv(x, w, *args, **kwargs)
