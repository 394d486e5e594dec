"""The primary metric of runs: which way is better, how it is written, its spread over seeds."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.ticker import Formatter, FuncFormatter, PercentFormatter

_NEAR = 0.02


@dataclass(frozen=True)
class Spread:
    """One figure over several seeds."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """How many seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The mean."""
        return statistics.fmean(self.values)

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.values)

    @property
    def sd(self) -> float | None:
        """The sample's standard deviation; None for a single seed."""
        return statistics.stdev(self.values) if self.n > 1 else None


@dataclass(frozen=True)
class Measure:
    """What `experiment.json` says of a metric; without a word, it is the accuracy."""

    name: str = "accuracy"
    """Its key in files."""
    title: str = "accuracy"
    """In tables and figures."""
    larger: bool = True
    """Whether a larger value is a better one."""
    fraction: bool = True
    """Whether values are written in per cent, and differences in percentage points."""

    @classmethod
    def of(cls, header: Mapping) -> "Measure":
        """Return the metric of a run, by its `experiment.json`."""
        return cls(**header.get("metric", {}))

    @property
    def is_accuracy(self) -> bool:
        """Whether it is the share of right answers."""
        return self.name == "accuracy"

    @property
    def heading(self) -> str:
        """The title as the beginning of a sentence."""
        return self.title[:1].upper() + self.title[1:]

    @property
    def direction(self) -> str:
        """Which way is better: `larger` or `smaller`."""
        return "larger" if self.larger else "smaller"

    @property
    def near(self) -> str:
        """What counts as no better than guessing, in words."""
        return "2 points" if self.fraction else "2%"

    def goodness(self, value: float) -> float:
        """Return a number that is the larger, the better a value is."""
        return value if self.larger else -value

    def value(self, value: float | None, decimals: int = 1) -> str:
        """Write a value: in per cent, or with four digits."""
        if value is None:
            return "–"
        return f"{value:.{decimals}%}" if self.fraction else f"{value:.4g}".replace("-", "−")

    def change(self, value: float) -> str:
        """Write a difference with its sign: in percentage points, or with three digits."""
        rounded = round(value * 100, 1) if self.fraction else float(f"{value:.3g}")
        if not rounded:
            return "0.0" if self.fraction else "0"
        return f"{rounded:+.1f}".replace("-", "−") if self.fraction else f"{rounded:+g}"

    def distance(self, value: float) -> str:
        """Write a difference without a sign, and its unit."""
        return f"{value * 100:.1f} points" if self.fraction else f"{value:.3g}"

    def extent(self, values: tuple[float, ...]) -> str:
        """Write the smallest and the largest value; empty for a single seed."""
        if len(values) < 2:
            return ""
        low, high = min(values), max(values)
        return f"{low * 100:.1f}–{high * 100:.1f}" if self.fraction else f"{low:.4g} to {high:.4g}"

    def is_near(self, value: float, chance: float | None) -> bool:
        """Say whether a value is within two points, or two per cent, of guessing."""
        if chance is None:
            return False
        return abs(value - chance) < _NEAR * (1 if self.fraction or not chance else abs(chance))

    def ticks(self) -> Formatter:
        """Return what writes the values along an axis."""
        if self.fraction:
            return PercentFormatter(1, decimals=0)
        return FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−"))


ACCURACY = Measure()
"""The metric of runs that say nothing of theirs."""
