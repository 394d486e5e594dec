"""How a round's time grows with the number of its clients."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.bench.jobs import MISSION

FEWEST = 3
"""The fewest points for a line; two points always lie on one."""


@dataclass(frozen=True)
class Line:
    """Seconds per round = fixed + each · clients, fitted by relative least squares."""

    fixed: float
    each: float
    residuals: tuple[float, ...]
    """(measured - line) / measured, point by point."""

    @classmethod
    def through(cls, clients: Sequence[int], seconds: Sequence[float]) -> "Line":
        """Return the line with the least Σ ((fixed + each·n - s) / s)²: n spans decades."""
        n, s = np.array(clients, float), np.array(seconds, float)
        rows = np.stack([1 / s, n / s], axis=1)
        fixed, each = np.linalg.lstsq(rows, np.ones(len(n)), rcond=None)[0]
        residuals = (s - (fixed + each * n)) / s
        return cls(float(fixed), float(each), tuple(map(float, residuals)))


def title(case: Mapping) -> str:
    """Name a case without its number of clients."""
    knobs = case["knobs"]
    width, lanes = (knobs[key] for key in ("network.width", "vectorized.lanes"))
    on = f" on {knobs['data.name']}" if case["job"] == MISSION else ""
    shape = "" if width == "auto" else f", width {width}"
    together = "" if lanes == "auto" else f", {lanes} lanes"
    return f"{case['job']}{on}, {knobs['recipe']}{shape}, batch size {case['batch_size']}{together}"


def lines(cases: Sequence[Mapping]) -> dict[tuple[str, str], tuple[list[int], Line]]:
    """Return, by title and contender, numbers of clients and the line through them.

    Args:
        cases: the jobs of a report; those with fewer than `FEWEST` numbers of clients have none.
    """
    points: defaultdict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for case in cases:
        for name, row in case["contenders"].items():
            points[title(case), name][case["clients"]] = row["seconds_per_round"]["median"]
    return {
        key: (list(found), Line.through(list(found), list(found.values())))
        for key, found in points.items()
        if len(found) >= FEWEST
    }
