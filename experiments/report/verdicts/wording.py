"""Verdicts in words: what a judgement says, how it is made, and what a study declared."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.report import verdicts
from experiments.report.labels import Group
from experiments.report.measure import Measure
from experiments.report.results import Results
from experiments.statistics.endpoints import FEWEST
from fl.config.parts.contrasts import AFTER, COMPARED

if TYPE_CHECKING:
    from experiments.statistics.verdicts import Judgement


def too_few(results: Results) -> str:
    """Say that there are too few seeds for verdicts; empty where nothing compares, or some are."""
    found = [one for c in results.conditions for one in verdicts.judged(results, c).values()]
    if not found or any(one.verdict for one in found):
        return ""
    most, least = max(one.n for one in found), next(iter(verdicts.looks(results)), FEWEST)
    return f"UNDECIDED. No verdicts: with {least} seeds or more there are; here are {most}."


def numbers(one: "Judgement", measure: Measure) -> str:
    """Write a judgement's mean difference, its interval, n, and how many seeds are missing."""
    sign = 1 if measure.larger else -1
    text = measure.change(sign * one.mean)
    if one.interval:
        low, high = sorted(sign * end for end in one.interval)
        text += f" [{measure.change(low)}, {measure.change(high)}]"
    text += f", n = {one.n}"
    return text + (f", {one.more} more needed" if one.more else "")


def method(results: Results) -> str | None:
    """Say how verdicts are made; None where there are none."""
    sizes = {len(verdicts.judged(results, condition)) for condition in results.conditions} - {0}
    if not sizes:
        return None
    least, family = verdicts.margin(results), f"the {max(sizes)} comparisons of a condition"
    if results.contrasts:
        family = "those that the study declared, or over the others of a condition"
    text = (
        "*Verdicts* compare seed by seed with one reference, which has the same deal and clients. "
        f"BETTER: the sign-flip test, adjusted by Holm over {family}, is below 0.05"
    )
    if asked := verdicts.looks(results):
        text += f" (of those declared below {0.05 / len(asked):.2g} at each look, which are after "
        text += f"{_listed(asked)} seeds)"
    if least:
        text += (
            ", and the mean difference is no smaller than the margin of "
            f"{results.measure.distance(least)} (else BETTER-SMALL). "
            "EQUIVALENT: two one-sided tests put it within ± the margin. UNDECIDED: neither, with "
            "the seeds that are still needed for power 0.8"
        )
    return text + (". Brackets hold the 95 % t interval. Fewer than 5 seeds get no verdict.")


def declared(results: Results) -> str:
    """Say what of the comparisons the study declared, and when."""
    if not results.contrasts:
        return "No comparison was declared before the runs: all are exploratory."
    if late := results.contrasts.get(AFTER):
        return f"Comparisons were declared when {late} runs were done, so all are exploratory."
    if not (
        cells := [cell for cell in results.cells.values() if verdicts.confirmatory(results, cell)]
    ):
        return "No run of the declared comparisons is finished."
    asked = {cell.series for cell in cells if cell.series not in _references(results)}
    text = f"Declared, and so confirmatory: {', '.join(map(str, sorted(asked)))} against "
    text += f"{' or '.join(dict.fromkeys(map(str, _references(results)))) or 'nothing'}"
    if size := verdicts.margin(results):
        text += f", margin {results.measure.distance(size)}"
    if asked := verdicts.looks(results):
        text += f", judged at {_listed(asked)} seeds alone"
    text += f", {results.measure.title} {results.when}. "
    return f"{text}{_to_come(results)}All other comparisons are exploratory."


def _listed(numbers: Sequence[int]) -> str:
    """List numbers as a sentence does."""
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last


def _to_come(results: Results) -> str:
    """Say how many declared comparisons have no runs yet; empty where all have."""
    asked, done = int(results.contrasts.get(COMPARED, 0)), len(verdicts.family(results))
    if done >= asked:
        return ""
    return f"{done} of {asked} have runs so far; Holm's adjustment counts them all. "


def _references(results: Results) -> list[Group]:
    found = (verdicts.reference(results, condition) for condition in results.conditions)
    return [cell.series for cell in found if cell]
