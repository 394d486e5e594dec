"""What came out: the runs below a folder, grouped into cells, with their statistics over seeds."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from experiments.report import labels
from experiments.report.labels import Group, group
from experiments.report.measure import Measure, Spread
from experiments.statistics.endpoints import late_mean
from experiments.studies import ledger
from fl.config.parsing import ConfigError, Value
from fl.reproducibility.checking import read_json
from fl.server.contents import EXPERIMENT, readable
from fl.server.journal import Journal
from fl.simulation.study import STUDY


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
        return self.seed, *labels.seeds(self.knobs)

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
        there = {run.block: run.late for run in other.runs}
        gains = tuple(run.late - there[run.block] for run in self.runs if run.block in there)
        return Spread(gains) if gains else None

    def _spread(self, figure: str) -> Spread:
        return Spread(tuple(run.result[figure] for run in self.runs if run.result))


@dataclass(frozen=True)
class Results:
    """All runs below a folder."""

    name: str
    question: str
    command: str
    """Repeats all of it; empty where it is not known."""
    published: str
    """What others published on the question; empty where nothing is known."""
    runs: tuple[Run, ...]
    """By condition, series and seed; one run a seed and cell."""
    repeats: tuple[Run, ...]
    """Runs left out, since another in the folder answers the same with the same seed."""

    @property
    def said(self) -> dict[str, str]:
        """What the study says of itself."""
        return {key: getattr(self, key) for key in ("name", "question", "command", "published")}

    @cached_property
    def finished(self) -> tuple[Run, ...]:
        """Runs that have a result; nothing else enters a statistic."""
        return tuple(run for run in self.runs if run.result)

    @property
    def unfinished(self) -> tuple[Run, ...]:
        """Runs that were begun and have no result."""
        return tuple(run for run in self.runs if not run.result)

    @cached_property
    def series(self) -> list[Group]:
        """The contenders, in order."""
        return sorted({run.series for run in self.runs})

    @cached_property
    def conditions(self) -> list[Group]:
        """The circumstances, in order."""
        return sorted({run.condition for run in self.runs})

    @cached_property
    def cells(self) -> dict[tuple[Group, Group], Cell]:
        """The finished runs by (series, condition); a cell without one is not there."""
        runs: dict[tuple[Group, Group], list[Run]] = {}
        for run in self.finished:
            runs.setdefault((run.series, run.condition), []).append(run)
        return {key: Cell(*key, tuple(found)) for key, found in runs.items()}

    @property
    def measure(self) -> Measure:
        """The primary metric, which all runs have in common."""
        return self.runs[0].measure

    @property
    def about_recipes(self) -> bool:
        """Whether the contenders are recipes, rather than the values of another knob."""
        return self.series[0].settings[0].aspect == "recipe"

    def column(self, condition: Group) -> list[Cell]:
        """Return the cells of a condition, the best mean of the last rounds first."""
        return self._best_first(
            [cell for (_, where), cell in self.cells.items() if where == condition]
        )

    def _best_first(self, cells: list[Cell]) -> list[Cell]:
        good = self.measure.goodness
        return sorted(cells, key=lambda cell: (-good(cell.late.mean), cell.series))

    def rivals(self, condition: Group) -> list[Cell]:
        """Return a condition's cells, cut down to the seeds that all of them have, best first.

        Other seeds were dealt other images, so a mean over them does not compare.
        """
        cells = self.column(condition)
        blocks = [{run.block for run in cell.runs} for cell in cells]
        if not blocks or not (shared := set.intersection(*blocks)):
            return []
        alike = ((cell, tuple(run for run in cell.runs if run.block in shared)) for cell in cells)
        return self._best_first([replace(cell, runs=runs) for cell, runs in alike])

    def ladders(self) -> list[list[Group]]:
        """Return conditions, three or more, that differ in the skew of one kind of partition alone.

        They go from even to skewed; an iid one is the first step of every ladder.
        """
        alike: dict[tuple, dict[object, list[Group]]] = {}
        for condition in self.conditions:
            if cells := self.column(condition):
                rest = tuple(s for s in condition.settings if s.aspect != "partition")
                kind = cells[0].runs[0].knobs["partition.kind"]
                alike.setdefault(rest, {}).setdefault(kind, []).append(condition)
        found = [
            kinds.get("iid", []) + steps
            for kinds in alike.values()
            for kind, steps in kinds.items()
            if kind != "iid"
        ]
        return [steps for steps in found if len(steps) > 2]

    def changes(self) -> list[tuple[Group, Group]]:
        """Return pairs of conditions that differ in one aspect; the first is the plainest."""
        pairs = []
        for after in self.conditions:
            for setting in after.settings:
                alike = [c for c in self.conditions if after.differences(c) == [setting.aspect]]
                if alike and min(alike) < after:
                    pairs.append((min(alike), after))
        return pairs


def read(folder: Path, tables: Path | None = None) -> Results:
    """Read all runs below a folder, which may itself be a run, and those of its ledger.

    Args:
        folder: where the runs are.
        tables: a folder with a ledger; None: that which the folder has, if any.

    Raises:
        ConfigError: there is no run, or a file can't be read.
    """
    found, said = ledger.gather(folder, tables)
    if not found:
        raise ConfigError(f"{folder} holds no run to report (no {EXPERIMENT} in it or below)")
    headers = [one.header for one in found]
    if len(names := {Measure.of(header).title for header in headers}) > 1:
        raise ConfigError(
            f"{folder} holds runs with other primary metrics ({', '.join(sorted(names))}); report "
            "on each alone"
        )
    groups = group([header["knobs"] for header in headers])
    runs = [_run(one, *pair) for one, pair in zip(found, groups, strict=True)]
    runs.sort(key=lambda run: (run.condition, run.series, run.block, not run.result, run.name))
    kept: dict[tuple[Group, Group, tuple[int, ...]], Run] = {}
    for run in runs:
        kept.setdefault((run.series, run.condition, run.block), run)
    chosen = tuple(kept.values())
    repeats = tuple(run for run in runs if run not in chosen)
    return Results(**_study(folder, chosen, said), runs=chosen, repeats=repeats)


def _run(found: ledger.Kept, series: Group, condition: Group) -> Run:
    """Return a run, if it has what a report needs.

    Raises:
        ConfigError: it has not.
    """
    rounds, name = found.rounds, found.journal.folder if found.journal else found.name
    if found.result and not rounds:
        raise ConfigError(f"{name} has a result and no rounds; its journal is damaged")
    measure = Measure.of(found.header)
    if rounds and rounds[0][f"test_{measure.name}"] is None:
        word = "accuracies" if measure.is_accuracy else measure.title
        raise ConfigError(f"{name} has no test {word} to report; see docs/guide/devices.md")
    lines = tuple(rounds), tuple(found.clients), found.result
    return Run(found.name, found.header, *lines, series, condition, found.journal)


def _study(folder: Path, runs: tuple[Run, ...], said: dict[str, str]) -> dict[str, str]:
    """Return what a study says of itself, there or in its ledger; or what can be said without."""
    question = "What came out of these runs?"
    if len(runs) == 1:
        run, measure = runs[0], runs[0].measure
        question = f"How accurate does {run.series} get under “{run.condition}”?"
        if not measure.is_accuracy:
            question = f"Which {measure.title} does {run.series} reach under “{run.condition}”?"
    known = {"name": folder.resolve().name, "question": question, "command": "", "published": ""}
    known |= said
    path = folder / STUDY
    if path.exists():
        with readable(path):
            study = read_json(path)
            known |= {key: str(study[key]) for key in known if key in study}
    return known
