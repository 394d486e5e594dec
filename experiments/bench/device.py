"""Measure how long a device imports our code, after the packages that it needs anyhow."""

import subprocess
import sys
from statistics import median

_TIMES = 5
_PROGRAM = """
import time, torch, flwr.clientapp
begun = time.perf_counter()
import fl.client.app
print(time.perf_counter() - begun)
"""


def import_seconds() -> float:
    """Return the median of five seconds of `import fl.client.app` after torch and Flower's client.

    Each is taken in an interpreter of its own.
    """
    program = [sys.executable, "-c", _PROGRAM]
    told = [
        subprocess.run(program, capture_output=True, text=True, check=True).stdout
        for _ in range(_TIMES)
    ]
    return median(map(float, told))
