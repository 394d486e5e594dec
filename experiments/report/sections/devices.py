"""What unequal devices did: who replied, how much work, and the simulated time it took."""

from collections import Counter
from collections.abc import Iterable

from experiments.report import tables, words
from experiments.report.labels import Group
from experiments.report.markup import Html, element, table
from experiments.report.results import Cell, Results, Run
from fl.config import Fleet

_EQUAL = {f"fleet.{key}": value for key, value in Fleet().model_dump(by_alias=True).items()}


def fleet(results: Results) -> Html | None:
    """Make the section on devices; None where all were equal."""
    unequal = [run for run in results.finished if _is_unequal(run)]
    if not unequal:
        return None
    about = (
        "Devices were made unequal on purpose, by a schedule that depends on the seed, the round "
        "and the client alone: all networks met the same devices. Replies that never came are "
        "listed with their reasons under “What it took”. Simulated time comes from the devices' "
        "simulated speeds, not from this machine; it ends at the deadline where a reply is missing."
    )
    titles = ["replies", "mean epochs", "batch sizes"]
    timed = any(run.result and run.result.get("simulated_seconds") for run in unequal)
    titles += (
        ["simulated time", f"until the {results.measure.title} that all reach"] if timed else []
    )
    head = [element("th", words.series_noun(results), scope="col")]
    head += [element("th", title, scope="col", class_="number") for title in titles]
    bodies = [
        tables.part(str(condition), len(head), [_row(cell, results, timed) for cell in cells])
        for condition in results.conditions
        if (cells := sorted(results.column(condition), key=lambda cell: cell.series))
    ]
    return element(
        "section",
        element("h2", "Unequal devices"),
        element("p", about),
        table([head], bodies, "devices"),
    )


def reached(results: Results, condition: Group) -> float:
    """Return the value that every run of a condition reached in some round."""
    good = results.measure.goodness
    return min((v for cell in results.column(condition) for v in cell.best.values), key=good)


def time_until(run: Run, value: float) -> float | None:
    """Return the simulated seconds until a run first reached a value; None if it never did."""
    elapsed, measure = 0.0, run.measure
    for line in run.rounds:
        elapsed += line.get("simulated_seconds") or 0.0
        found = line[f"test_{measure.name}"]
        if found is not None and measure.goodness(found) >= measure.goodness(value):
            return elapsed
    return None


def _is_unequal(run: Run) -> bool:
    return any(run.knobs.get(key, value) != value for key, value in _EQUAL.items())


def _row(cell: Cell, results: Results, timed: bool) -> list[Html]:
    replied = sum(line["replied"] for run in cell.runs for line in run.rounds)
    asked = sum(line["asked"] for run in cell.runs for line in run.rounds)
    accounts = [account for run in cell.runs for account in run.clients]
    epochs = [account["epochs"] for account in accounts if "epochs" in account]
    figures = [f"{replied:,} of {asked:,}", f"{sum(epochs) / max(len(epochs), 1):.1f}"]
    figures.append(_shares(account["batch_size"] for account in accounts))
    if timed:
        goal = reached(results, cell.condition)
        until = [time_until(run, goal) for run in cell.runs]
        known = [seconds for seconds in until if seconds is not None]
        total = cell.total("simulated_seconds") / cell.outcome.n
        figures += [
            _seconds(total),
            f"{_seconds(sum(known) / len(known))} ({results.measure.value(goal, 0)})",
        ]
    return [
        tables.contender(cell.series, results),
        *(element("td", figure, class_="number") for figure in figures),
    ]


def _shares(sizes: Iterable[int]) -> str:
    """Write how often each batch size occurred: ``1: 30%, 4: 70%``; the size alone if it is one."""
    counts = Counter(sizes)
    if len(counts) == 1:
        return str(next(iter(counts)))
    total = sum(counts.values())
    return ", ".join(f"{size}: {count / total:.0%}" for size, count in sorted(counts.items()))


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s"
