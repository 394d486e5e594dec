"""What this machine's cores can do at most: products of large matrices.

As a program, ``python -m experiments.bench.machine``, it prints one core's rate.
"""

import os
import subprocess
import sys
import time

import torch

from fl.reproducibility.provenance import cores

_SIDE = 1024
_SECONDS = 1.0


def peak() -> float:
    """Return floating-point operations a second of all cores at once, float32, one process each."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    crew = [
        subprocess.Popen(
            [sys.executable, "-m", __name__], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(cores())
    ]
    return sum(float(worker.communicate()[0]) for worker in crew)


def one_core() -> float:
    """Return the best rate of this thread in about a second."""
    a, b = torch.ones(2, _SIDE, _SIDE)
    best, begun = float("inf"), time.perf_counter()
    while (now := time.perf_counter()) < begun + _SECONDS:
        torch.mm(a, b)
        best = min(best, time.perf_counter() - now)
    return 2 * _SIDE**3 / best


if __name__ == "__main__":
    sys.stdout.write(f"{one_core()}\n")
