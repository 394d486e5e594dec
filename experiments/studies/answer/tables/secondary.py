"""What block B2 measured besides its endpoint, by runs of its last look: a table in Markdown."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.report.results import Run
from experiments.report.sections.decision.reached import reached
from experiments.statistics.endpoints import median_time
from experiments.statistics.exact import collapsed, log_rank
from experiments.statistics.paired import holm
from experiments.studies.answer.conditions import FULL, GUESSING, SKEWS
from experiments.studies.answer.hypotheses import best_normalizer
from experiments.studies.answer.judged import runs_of_look
from experiments.studies.answer.rows import best_validated
from experiments.studies.answer.tables.words import NAMES

TARGET = 0.4
"""The accuracy of the plan's time to reach one."""
_HEADS = (
    "clients",
    "contender",
    "last rounds",
    "round chosen on validation",
    "half are at 40 % by",
    "reached",
    "log rank p",
    "steps clipped",
    f"clipped in round {FULL.base.rounds}",
    "no better than guessing",
)


def secondary(folder: Path) -> Iterator[str]:
    """Yield the table: a row a skew and contender.

    The log rank test is against the normalizer that tuning scored best, adjusted by Holm over the
    contenders of a skew.

    Args:
        folder: has a folder of tables a block, and the winners of tuning.
    """
    runs, validation = runs_of_look(folder), best_validated(folder)
    yield f"| {' | '.join(_HEADS)} |"
    yield f"|{'---|' * len(_HEADS)}"
    for skew in SKEWS:
        names = [name for name in NAMES if runs.get((name, skew))]
        times = {
            name: [(one.round, one.there) for one in (reached(r, TARGET) for r in runs[name, skew])]
            for name in names
        }
        other = best_normalizer(validation[skew], names)
        rest = [name for name in names if name != other]
        p = dict(zip(rest, holm([log_rank(times[n], times[other]) for n in rest]), strict=True))
        for name in names:
            cells = [skew, NAMES[name], *_accuracies(runs[name, skew]), *_soon(times[name])]
            cells += [_p_value(p[name]) if name in p else "", *_trouble(runs[name, skew])]
            yield f"| {' | '.join(cells)} |"


def _accuracies(runs: Sequence[Run]) -> list[str]:
    """Return mean accuracies over the last rounds, and after the round that validation chose."""
    late = np.mean([run.late for run in runs])
    chosen = np.mean([replace(run, endpoint="validated").outcome for run in runs])
    return [f"{100 * late:.1f}", f"{100 * chosen:.1f}"]


def _soon(times: Sequence[tuple[int, bool]]) -> list[str]:
    """Return by which round half of the runs are there, and how many ever are."""
    half = median_time(times)
    there = sum(reached for _, reached in times)
    return ["–" if half == math.inf else f"round {half:g}", f"{there} of {len(times)}"]


def _trouble(runs: Sequence[Run]) -> list[str]:
    """Return shares of steps that were clipped, and how many runs are at guessing."""
    clipped = np.mean([run.result["clipped_share"] for run in runs if run.result])
    last = np.mean([run.rounds[-1]["clipped_share"] for run in runs])
    lost = [collapsed(run.late, run.rounds[-1]["evaluated"], GUESSING) for run in runs]
    return [f"{100 * clipped:.0f} %", f"{100 * last:.0f} %", f"{sum(lost)} of {len(lost)}"]


def _p_value(p: float) -> str:
    """Write a p value; one below 0.001 is told as that, since the test is approximate."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"
