"""One run, and the runs of a cell, with their statistics over seeds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from experiments.report.labels import Group
from experiments.report.measure import Measure, Spread
from experiments.statistics.endpoints import differences, late_mean
from fl.config.parsing import Value
from fl.config.run import block_of
from fl.reproducibility.files import unpacked
from fl.server.contents import RIGHT
from fl.server.journal import Journal

WHEN = {
    "late-mean": "over the last rounds",
    "last-round": "after the last round",
    "validated": "after the round that is best on validation images",
    "clients": "of clients on their held-out images, each with what stays with it, after the last "
    "round",
}
"""Endpoints in words."""


@dataclass(frozen=True)
class Run:
    """One run: what was asked, and what is on the disk of the answer."""

    name: str
    """Its folder, relative to the report's."""
    header: Mapping[str, object]
    """All of `experiment.json`."""
    rounds: tuple[Mapping, ...]
    clients: tuple[Mapping, ...]
    result: Mapping | None
    """None while the run is unfinished."""
    series: Group
    condition: Group
    journal: Journal | None
    """Its folder, for what is read only where it is shown; None where a ledger has the run."""
    folder: str = ""
    """Which of several folders it is from; empty in a report of one."""
    endpoint: str = "late-mean"
    """What its outcome is, see `fl.config.parts.contrasts`."""

    @property
    def knobs(self) -> Mapping[str, Value]:
        """The knobs by flat key."""
        return self.header["knobs"]  # pyrefly: ignore

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.knobs["seed"])

    @property
    def block(self) -> tuple[int, ...]:
        """What pairs it with runs of other cells: its seed, and the seeds of what has its own."""
        return block_of(self.knobs)

    @property
    def chance(self) -> float | None:
        """What guessing gives: the metric of the best constant answer; None if it is not known."""
        return self.header["chance"]  # pyrefly: ignore

    @cached_property
    def measure(self) -> Measure:
        """The primary metric."""
        return Measure.of(self.header)

    @cached_property
    def late(self) -> float:
        """The primary metric as the mean over the last tenth of rounds, three at least."""
        key = f"test_{self.measure.name}"
        known = [line[key] for line in self.rounds if line["round"] and line[key] is not None]
        return late_mean(known) if known else self.rounds[-1][key]

    @cached_property
    def outcome(self) -> float:
        """What is compared: the primary metric at the study's endpoint."""
        name = self.measure.name
        own = (self.result or {}).get(f"trained_{name}_mean")
        if self.endpoint == "clients" and own is not None:
            return own
        rounds = [line for line in self.rounds if line["round"]]
        tested = [line for line in rounds if line[f"test_{name}"] is not None]
        if self.endpoint == "late-mean" or not tested:
            return self.late
        if self.endpoint == "validated":
            scores = [line.get(f"validation_{name}") for line in tested]
            if any(score is not None for score in scores):
                worst, good = -math.inf, self.measure.goodness
                ranks = [worst if score is None else good(score) for score in scores]
                return tested[ranks.index(max(ranks))][f"test_{name}"]
        return tested[-1][f"test_{name}"]

    @property
    def right(self) -> np.ndarray | None:
        """Which test examples were right after the last round; None where that was not kept."""
        end = self.rounds[-1] if self.rounds else {}
        return unpacked(str(end[RIGHT]), int(end["evaluated"])) if end.get(RIGHT) else None

    @property
    def rounds_done(self) -> int:
        """Finished rounds; the evaluation before the first does not count."""
        return int(self.rounds[-1]["round"]) if self.rounds else 0


@dataclass(frozen=True)
class Cell:
    """The finished runs of one series under one condition, one a seed."""

    series: Group
    condition: Group
    runs: tuple[Run, ...]

    @cached_property
    def final(self) -> Spread:
        """The primary metric on the test split after the last round."""
        return self._spread(f"final_{self.measure.name}")

    @cached_property
    def outcome(self) -> Spread:
        """What is compared, of each run."""
        return Spread(tuple(run.outcome for run in self.runs))

    @cached_property
    def late(self) -> Spread:
        """The primary metric on the test split as each run's mean over its last rounds."""
        return Spread(tuple(run.late for run in self.runs))

    @cached_property
    def best(self) -> Spread:
        """The primary metric on the test split after the best round."""
        return self._spread(f"best_{self.measure.name}")

    @property
    def measure(self) -> Measure:
        """The primary metric of its runs."""
        return self.runs[0].measure

    @property
    def best_rounds(self) -> tuple[int, ...]:
        """The best round of each run, in the order of seeds."""
        return tuple(run.result["best_round"] for run in self.runs if run.result)

    @property
    def images_per_second(self) -> float:
        """Training images a second, over all runs."""
        return self.total("images") / (self.total("train_seconds") or float("nan"))

    def total(self, figure: str) -> float:
        """Return the sum of a figure of `result.json` over the runs."""
        return sum(self._spread(figure).values)

    def gain_over(self, other: "Cell") -> Spread | None:
        """Return by how much these runs exceed the others, seed by seed; None without a pair."""
        gains = self.differences(other)
        return Spread(tuple(gains.values())) if gains else None

    def differences(self, other: "Cell") -> dict[tuple[int, ...], float]:
        """Return by how much these runs exceed the others, by the blocks that both have."""
        mine, theirs = ({run.block: run.outcome for run in cell.runs} for cell in (self, other))
        return differences(mine, theirs)

    def _spread(self, figure: str) -> Spread:
        return Spread(tuple(run.result[figure] for run in self.runs if run.result))
