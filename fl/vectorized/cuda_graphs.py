"""Programs on a GPU as CUDA graphs: recorded once, and replayed without launching each operator.

At a batch of one a GPU waits for the processor to launch its next operator nearly all of the time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fl.vectorized.graph_cache import Program

_WARM_UP = 2
"""Calls before the one that is recorded, in which libraries choose and set up what they need."""


def recorded(run: Program, arguments: Sequence[Tensor]) -> Program:
    """Return a program that replays what another does on a GPU with tensors of these forms.

    Its results are always in the same memory: the next call overwrites them.

    Args:
        run: what to record; nothing in it may wait for the GPU, or look at a value.
        arguments: what it is called with.

    Raises:
        RuntimeError: it can't be recorded.
    """
    held = [argument.clone() for argument in arguments]
    aside = torch.cuda.Stream(held[0].device)
    aside.wait_stream(torch.cuda.current_stream(held[0].device))
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UP):
            run(*held)
    torch.cuda.current_stream(held[0].device).wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run(*held)

    def replay(*arguments: Tensor) -> Sequence[Tensor]:
        for place, argument in zip(held, arguments, strict=True):
            place.copy_(argument)
        graph.replay()
        return results

    return replay
