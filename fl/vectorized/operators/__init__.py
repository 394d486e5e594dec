"""Operators of micro-batches in C++, for lanes that each have images and weights of their own.

They replace operators of PyTorch that are slow at a batch of one. Its convolutions spend their time
on set-up and on copies of patches; its max pools, on indices. Its compiler takes a root again for
every few standardized weights. And the scale and shift of a normalizer, or the scalars of an
activation, differ from lane to lane, so each is an operator of its own over all of a map.

`unavailable_reason` compiles the operators on first use. Without a C++ compiler it says so, and
then nothing else here may be called. Flower's bundles hold no C++, so devices use PyTorch's
operators.

The operators run on one thread. The result for a lane depends on its own images and weights: not on
the other lanes, their number or its place among them. Evaluation, which has one lane and many
images, is by the same operators.

**What `Operators` recognises.** Within ``with Operators():`` each call of a PyTorch function passes
through `Operators.__torch_function__`. It replaces single calls (convolution, group normalization,
batch normalization of padded batches, the activations with scalars, standardization of weights, max
pool) and two pairs of calls:

1. A max pool of what ReLU returned becomes ReLU of a max pool. The numbers and gradients are the
   same, and ReLU has a quarter as many to do. Source: max(relu(a), relu(b)) = relu(max(a, b)).
2. A convolution by weights that were standardized just before, possibly viewed as another shape in
   between, becomes one operator that standardizes and convolves.

The second call of a pair is recognised by identity: its argument *is* the object that the first
call returned. For that, the mode keeps the last result of each kind and what it was computed from.
This is right because

- the mode holds a reference to that object, so no other object can get its address meanwhile;
- a tensor's values change only by functions that work in place, which return None or their first
  argument, or fill an `out=`. After any such function the mode forgets both pairs, because what was
  changed may be a view of one of these tensors;
- identity is a sufficient condition, not a necessary one. A pair that is missed (another call of
  the same kind came between, or one of our convolutions between ReLU and its pool) is computed call
  by call, with the same result up to rounding.

A ReLU right behind a norm is recognised later, in the traced graph (`norms.rectify`), where the
gradients of both can be seen, too.

The first call of a pair has been made by the time that the second is seen. In a traced graph its
result is unused, and `fl.vectorized.tracing` removes it; an eager pass computes it in vain.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fl.vectorized.operators import activations, convolutions, library, norms, pools, rows


@functools.cache
def unavailable_reason() -> str | None:
    """Make the operators ready and return None; or return in a line why they can't be used."""
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


class _Rectified(NamedTuple):
    """A call of ReLU."""

    result: Tensor
    x: Tensor


class _Standardized(NamedTuple):
    """A standardization of weights."""

    result: Tensor
    """The standardized weights, in the shape that the convolution takes."""
    raw: rows.Arguments
    """What they were computed from; `raw.rows` has the shape of `result`."""


class Operators(TorchFunctionMode):
    """Within this mode, our operators replace PyTorch's where they are faster.

    What it recognises, and why that is right, is described at the top of this file.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rectified: _Rectified | None = None
        """The last call of ReLU, unless a function worked in place since, or we convolved."""
        self.standardized: _Standardized | None = None
        """The last standardization, likewise."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call a function of PyTorch, or one of ours in its place."""
        kwargs = kwargs or {}
        if func in convolutions.REPLACED and convolutions.faster(*args, **kwargs):
            return self._convolve(*args, **kwargs)
        if func in norms.REPLACED and args and norms.supports(*args, **kwargs):
            return norms.group_norm(*args, **kwargs)
        if func is norms.BATCH_NORM and norms.takes(*args, **kwargs):
            return norms.batch_norm(*args, **kwargs)
        if func in activations.REPLACED and not kwargs and activations.supports(*args):
            return activations.activate(func, *args)
        if func in rows.REPLACED and args and (raw := rows.arguments(*args, **kwargs)):
            found = rows.standardize(*raw)
            self.standardized = _Standardized(found, raw)
            return found
        if func in pools.REPLACED and args and pools.supports(*args, **kwargs):
            return self._pool(args[0])
        found = func(*args, **kwargs)
        self._remember(func, args, found, in_place="out" in kwargs or found is kwargs.get("input"))
        return found

    def _remember(
        self, func: Callable[..., Any], args: tuple[Any, ...], found: Any, in_place: bool
    ) -> None:
        """Note a call that may be the first of a pair, or forget the pairs that it may break."""
        if in_place or found is None or (args and found is args[0]):
            self.rectified = self.standardized = None
        elif not args:
            return
        elif func in (F.relu, torch.relu):
            self.rectified = _Rectified(found, args[0])
        elif (
            len(args) == 2
            and func is torch.Tensor.view_as
            and (last := self.standardized)
            and args[0] is last.result
        ):
            viewed = last.raw._replace(rows=func(last.raw.rows, args[1]))
            self.standardized = _Standardized(found, viewed)

    def _pool(self, x: Tensor) -> Tensor:
        last = self.rectified
        if last and x is last.result:
            return torch.relu(pools.max_pool(last.x))
        return pools.max_pool(x)

    def _convolve(self, x: Tensor, w: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        last, self.rectified = self.standardized, None  # else maps would be kept longer than needed
        if last and w is last.result:
            raw, gain, eps = last.raw
            if raw.shape == w.shape and len(gain) == len(w):
                return convolutions.conv(x, raw, *args, **kwargs, standard=(gain, eps))
        return convolutions.conv(x, w, *args, **kwargs)
