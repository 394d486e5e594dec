"""What came out: the runs below a folder, grouped into cells, with their statistics over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.report.labels import Group, group
from experiments.report.measure import Measure
from experiments.report.results.runs import WHEN
from experiments.report.results.runs import Cell as Cell
from experiments.report.results.runs import Run as Run
from experiments.studies.joining import Said, gather
from experiments.studies.ledger import Kept
from fl.config.parsing import ConfigError


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
    contrasts: Mapping[str, Any]
    """What the study declared, as `study.json` has it; empty where it declared nothing."""
    tables: Sequence[Mapping[str, Any]]
    """Tables that others published, as `study.json` has them."""
    parts: tuple["Results", ...] = ()
    """In a report of several studies or folders, each alone; what they declared is of them."""

    @cached_property
    def studies(self) -> Mapping[str, list[dict[str, object]]]:
        """What the studies of each run say of themselves, by its name."""
        found: dict[str, list[dict[str, object]]] = {}
        for part in self.parts or (self,):
            for run in (*part.runs, *part.repeats):
                found.setdefault(run.name, []).append(part.said)
        return found

    @property
    def said(self) -> dict[str, object]:
        """What the study says of itself."""
        keys = ("name", "question", "command", "published", "contrasts", "tables")
        seldom = ("contrasts", "tables")
        return {key: found for key in keys if (found := getattr(self, key)) or key not in seldom}

    @property
    def when(self) -> str:
        """Say of which rounds an outcome is."""
        return WHEN[self.runs[0].endpoint]

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
        return sorted(cells, key=lambda cell: (-good(cell.outcome.mean), cell.series))

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
    """Read all runs below a folder, which may itself be a run, and those of some tables."""
    return join([folder], [tables] if tables else [], folder)


def join(folders: Sequence[Path], tables: Sequence[Path], out: Path) -> Results:
    """Read all runs below some folders, and those of tables, as one table.

    Args:
        folders: where the runs are.
        tables: folders with ledgers.
        out: where the report goes.

    Raises:
        ConfigError: as `gather`, or runs have other metrics.
    """
    sources = gather(folders, tables, out)
    found = {run.name: run for source in sources for run in source.runs}
    if len(names := {Measure.of(run.header).title for run in found.values()}) > 1:
        told = ", ".join(map(str, [*folders, *tables]))
        raise ConfigError(
            f"{told} holds runs with other primary metrics ({', '.join(sorted(names))}); report "
            "on each alone"
        )
    parts = tuple(_results(source.said, source.runs) for source in sources)
    if len(parts) == 1:
        return parts[0]
    names = list(dict.fromkeys(part.name for part in parts))
    questions = {part.question if part.command else "" for part in parts}
    one = questions.pop() if len(questions) == 1 else ""
    said = {
        "name": " + ".join(names),
        "question": one or f"What came out of {' and '.join(names)}?",
        "command": "",
        "published": " ".join(dict.fromkeys(part.published for part in parts if part.published)),
        "contrasts": {},
        "tables": [table for part in parts for table in part.tables],
    }
    return replace(_results(said, list(found.values())), parts=parts)


def _results(said: Said, found: Sequence[Kept]) -> Results:
    """Group the runs of a study, or of several, into cells."""
    compared = said["contrasts"].get("reference", {})
    groups = group([one.header["knobs"] for one in found], compared)
    end = said["contrasts"].get("endpoint", "late-mean")
    runs = [
        replace(_run(one, *pair), endpoint=end) for one, pair in zip(found, groups, strict=True)
    ]
    runs.sort(key=lambda run: (run.condition, run.series, run.block, not run.result, run.name))
    kept: dict[tuple[Group, Group, tuple[int, ...]], Run] = {}
    for run in runs:
        kept.setdefault((run.series, run.condition, run.block), run)
    chosen = tuple(kept.values())
    repeats = tuple(run for run in runs if run not in chosen)
    told: dict[str, Any] = {"question": _asked(chosen), **said}
    return Results(**told, runs=chosen, repeats=repeats)


def _run(found: Kept, series: Group, condition: Group) -> Run:
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
    return Run(found.name, found.header, *lines, series, condition, found.journal, found.folder)


def _asked(runs: tuple[Run, ...]) -> str:
    """Return the question of runs of no study."""
    run, measure = runs[0], runs[0].measure
    if len(runs) > 1:
        return "What came out of these runs?"
    if measure.is_accuracy:
        return f"How accurate does {run.series} get under “{run.condition}”?"
    return f"Which {measure.title} does {run.series} reach under “{run.condition}”?"
