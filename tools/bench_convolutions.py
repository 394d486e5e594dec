"""How fast convolutions of lanes are, by one core; docs/measurements/engines.md has figures.

``python -m tools.bench_convolutions --images 4`` times convolutions by filters of 3×3 with a stride
of 1: forward, and the gradients of the images and of the weights, by our operators and by PyTorch,
lane after lane. Each figure is the least of many, as other work on a machine only adds to it.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from fl.reproducibility.determinism import prepare_process
from fl.vectorized.operators import unavailable_reason

SIZES = ((16, 16), (16, 14), (32, 8), (64, 8), (128, 8), (128, 4))
"""Channels, and the side of a map."""
COMPUTED = {
    "forward": [],
    "of weights": [False, True, False],
    "both gradients": [True, True, False],
}
"""What is computed; for gradients, of which of images, weights and bias PyTorch is asked."""


def microseconds(work: Callable[[], object], seconds: float) -> float:
    """Return the least time of a call, of as many as there is time for."""
    least, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        begun = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - begun)
    return 1e6 * least


def ways(lanes: int, images: int, channels: int, side: int) -> dict[tuple[str, str], Callable]:
    """Return what is to be timed, by what is computed and by whom."""
    x, dy = (torch.randn(lanes, images, channels, side, side) for _ in range(2))
    w = torch.randn(lanes, channels, channels, 3, 3)
    one, zero = [1, 1], [0, 0]

    def ours(computed: str) -> object:
        if computed == "forward":
            return torch.ops.fednf.lane_conv(x, w, 1, 1)
        return torch.ops.fednf.lane_conv_backward(dy, x, w, 1, 1, computed == "both gradients")

    def theirs(computed: str) -> object:
        lane_by_lane = zip(dy, x, w, strict=True)
        if computed == "forward":
            return [torch.conv2d(x, w, None, 1, 1) for _, x, w in lane_by_lane]
        rest = None, one, one, one, False, zero, 1, COMPUTED[computed]
        return [torch.ops.aten.convolution_backward(*lane, *rest) for lane in lane_by_lane]

    by = {"ours": ours, "PyTorch": theirs}
    return {(what, who): partial(by[who], what) for what in COMPUTED for who in by}


def main() -> None:
    """Print a row for each size."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--lanes", type=int, default=3)
    words.add_argument("--images", type=int, default=4)
    words.add_argument("--seconds", type=float, default=0.5, help="for each figure")
    asked = words.parse_args()
    prepare_process()
    if reason := unavailable_reason():
        words.error(reason)
    for channels, side in SIZES:
        with torch.inference_mode():
            told = [
                f"{what}, {who} {microseconds(work, asked.seconds):,.0f}"
                for (what, who), work in ways(asked.lanes, asked.images, channels, side).items()
            ]
        sys.stdout.write(f"{channels} channels, {side}×{side}, µs: {'; '.join(told)}\n")


if __name__ == "__main__":
    main()
