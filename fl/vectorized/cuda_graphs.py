"""Programs on a GPU as CUDA graphs: recorded once, then replayed without launching each operator.

At a batch of one, a GPU spends nearly all of the time waiting for the processor to launch its next
operator. A replay launches all of them with one call.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fl.vectorized.graph_cache import Program

_WARM_UP_CALLS = 2
"""Calls before the one that is recorded. In these, libraries choose algorithms and allocate."""


def record(run: Program, arguments: Sequence[Tensor]) -> Program:
    """Return a program that replays what `run` does on a GPU with tensors of the same shapes.

    The results are always in the same memory, so the next call overwrites them.

    Args:
        run: what to record. It must neither wait for the GPU nor read a value of a tensor.
        arguments: what it is called with.

    Raises:
        RuntimeError: it can't be recorded.
    """
    # A graph reads its arguments from fixed addresses: these copies. PyTorch requires the warm-up
    # to run on a stream other than the default one.
    held = [argument.clone() for argument in arguments]
    warm_up = torch.cuda.Stream(held[0].device)
    warm_up.wait_stream(torch.cuda.current_stream(held[0].device))
    with torch.cuda.stream(warm_up):
        for _ in range(_WARM_UP_CALLS):
            run(*held)
    torch.cuda.current_stream(held[0].device).wait_stream(warm_up)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run(*held)

    def replay(*arguments: Tensor) -> Sequence[Tensor]:
        for place, argument in zip(held, arguments, strict=True):
            place.copy_(argument)
        graph.replay()
        return results

    return replay
