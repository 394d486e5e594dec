"""The answer in words: sentences that say what the numbers carry, and no more."""

from collections import Counter

from experiments.report.labels import Group, values
from experiments.report.measure import Spread
from experiments.report.results import Cell, Results
from fl.nn.recipes import RECIPES

Gains = list[tuple[Cell, Spread]]
"""Contenders, and by how much each is better or worse."""


def percent(value: float, decimals: int = 1) -> str:
    """Write a fraction in per cent."""
    return f"{value:.{decimals}%}"


def count(number: int, noun: str) -> str:
    """Write a number with its noun: ``1 run``, ``2 runs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def series_noun(results: Results) -> str:
    """Say what the contenders are."""
    return "network" if results.about_recipes else "setting"


def standing(results: Results, condition: Group) -> str:
    """Say who is first under a condition, and by how much."""
    cells = results.rivals(condition)
    if not cells:
        return f"**{condition}:** there is no seed that all have, so nothing compares."
    first, rest = cells[0], cells[1:]
    measure = results.measure
    above = "above" if measure.larger else "below"
    text = f"**{condition}:** {first.series} reaches {_reached(first)}"
    if any(cell.outcome.n > first.outcome.n for cell in results.column(condition)):
        text += f" on {count(first.outcome.n, 'seed')} that all have"
    if rest:
        lead = measure.goodness(first.outcome.mean) - measure.goodness(rest[0].outcome.mean)
        text += f", {measure.distance(lead)} {above} {rest[0].series}"
    lost = [cell for cell in cells if guesses(cell)]
    if lost:
        text += f". Within {measure.near} of guessing: {_names(lost)}"
    return text + "."


def guesses(cell: Cell) -> bool:
    """Say whether a cell is at its end within 2 points, or 2%, of guessing."""
    return cell.measure.is_near(cell.outcome.mean, cell.runs[0].chance)


def change(results: Results, before: Group, after: Group) -> str | None:
    """Say what a change of condition does to every contender; None where no two runs compare."""
    gains = gains_between(results, before, after)
    if not gains:
        return None
    title = f"**From {before} to {after}**"
    if len(gains) == 1:
        cell, gain = gains[0]
        return f"{title}, {cell.series} changes by {_gain(cell, gain)}."
    most, least = gains[-1], gains[0]
    measure = results.measure
    worse = all(measure.goodness(value) < 0 for _, gain in gains for value in gain.values)
    if worse and len({gain.n for _, gain in gains}) == 1:
        loses = "loses accuracy" if measure.is_accuracy else f"gets a worse {measure.title}"
        return (
            f"{title}, every {series_noun(results)} {loses} at every seed: {least[0].series} the "
            f"least ({_gain(*least)} on average), {most[0].series} the most ({_gain(*most)})."
        )
    return f"{title}, seed by seed: {_sorted_out(gains)}."


def gains_between(results: Results, before: Group, after: Group) -> Gains:
    """Return each contender's change between conditions, the best first."""
    found = []
    for series in results.series:
        first, second = (results.cells.get((series, where)) for where in (before, after))
        gain = second.gain_over(first) if first and second else None
        if second and gain:
            found.append((second, gain))
    return sorted(found, key=lambda item: -results.measure.goodness(item[1].mean))


def rates(results: Results) -> str | None:
    """Say whether networks had one learning rate or each its own; None where that is compared."""
    found = _by_series(results, "client.lr")
    single = all(len(rates) == 1 for rates in found.values())
    if not (results.about_recipes and len(found) > 1 and single):
        return None
    if len({rates[0] for rates in found.values()}) > 1:
        listed = _and([f"{series} {rates[0]:g}" for series, rates in found.items()])
        return f"**Networks had learning rates of their own:** {listed}."
    (rate,) = found[results.series[0]]
    return (
        f"**All networks had the same learning rate, {rate:g}**, and no network had its own "
        "tuned. Networks differ in the rate that suits them, so a lead is a lead at these knobs."
    )


def initial_weights(results: Results) -> str | None:
    """Say that networks began with weights of several kinds; None where that is compared."""
    found = _by_series(results, "network.init")
    kinds = dict[object, list[str]]()
    for series, of in found.items():
        for kind in of:
            kinds.setdefault(kind, []).append(str(series))
    if not results.about_recipes or len(kinds) < 2 or any(len(of) != 1 for of in found.values()):
        return None
    listed = "; ".join(f"{kind} for {_and(names)}" for kind, names in kinds.items())
    return f"**Networks had initial weights of their own** (`network.init`): {listed}."


def _by_series(results: Results, key: str) -> dict[Group, list[object]]:
    """Return the values that each contender's runs have of a knob."""
    return {
        series: values([run.knobs for run in results.runs if run.series == series], key)
        for series in results.series
    }


def faults(results: Results) -> str | None:
    """Say which clients were faulty on purpose, and how many of them were refused."""
    faulty, refused, kinds = Counter[str](), Counter[str](), dict[str, None]()
    asked = Counter[str]()
    for run in results.finished:
        kind = str(run.knobs.get("faults.kind", "none"))
        for line in run.rounds:
            found = {one["partition"] for one in line.get("faulty", ())}
            faulty[kind] += len(found)
            refused[kind] += sum(one["partition"] in found for one in line["refused"])
            asked[kind] += line["asked"]
        kinds |= {kind: None} if faulty[kind] else {}
    told = [f"{k}, {faulty[k]:,} of {asked[k]:,} requests ({refused[k]:,} refused)" for k in kinds]
    return f"**Clients were faulty on purpose:** {'; '.join(told)}." if told else None


def still_learning(results: Results) -> str | None:
    """Say that runs were not at their end, where most were best in their last round."""
    best = [run.result["best_round"] == run.result["rounds"] for run in results.finished]  # pyrefly: ignore
    if not best or sum(best) * 2 <= len(best):
        return None
    return (
        f"**{sum(best)} of {count(len(best), 'run')} were best in their last round**, so they had "
        "not learned all they could: a lead may mean learning faster, not ending higher."
    )


def caveats(results: Results) -> list[str]:
    """Say what in the contenders is not what their papers say, or not known to be."""
    names = dict.fromkeys(str(run.knobs.get("recipe")) for run in results.runs)
    rows = [RECIPES[name] for name in names if name in RECIPES]
    return [f"**{row.label} here is derived:** {row.caveat}" for row in rows if row.caveat]


def _sorted_out(gains: Gains) -> str:
    """Say which gains are above zero at every seed, which below, and which neither."""
    above = [item for item in gains if item[1].low > 0]
    below = [item for item in gains if item[1].high < 0]
    mixed = [item for item in gains if item not in above and item not in below]
    where = "at the one seed" if {gain.n for _, gain in gains} == {1} else "at every seed"
    parts = [f"up {where}: {_gains(above)}"] if above else []
    parts += [f"down {where}: {_gains(below)}"] if below else []
    parts += [f"not always up or down: {_gains(mixed)}"] if mixed else []
    return "; ".join(parts)


def _gains(gains: Gains) -> str:
    return ", ".join(f"{cell.series} ({cell.measure.change(gain.mean)})" for cell, gain in gains)


def _gain(cell: Cell, gain: Spread) -> str:
    return cell.measure.change(gain.mean) + (" points" if cell.measure.fraction else "")


def _reached(cell: Cell) -> str:
    """Write what a cell reaches: an accuracy as it is, any other metric with its name."""
    measure, spread = cell.measure, cell.outcome
    text = measure.value(spread.mean)
    text += f" ({measure.extent(spread.values)})" if spread.n > 1 else ""
    return text if measure.is_accuracy else f"{measure.title} {text}"


def _names(cells: list[Cell]) -> str:
    return _and([str(cell.series) for cell in cells])


def _and(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
