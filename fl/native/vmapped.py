"""What `torch.vmap` makes of operators that have lanes already."""

from collections.abc import Sequence

from torch import Tensor


def lanes_of_lanes(count: int, dims: Sequence[int | None], *tensors: Tensor) -> list[Tensor]:
    """Return tensors of which (L, K, ...) is (L·K, ...); what has no L is the same in all.

    Args:
        count: L.
        dims: where L is in each; None: nowhere.
        tensors: the others.
    """
    return [
        (t.expand(count, *t.shape) if dim is None else t.movedim(dim, 0)).flatten(0, 1)
        for t, dim in zip(tensors, dims, strict=False)
    ]
