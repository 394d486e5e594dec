"""The answer in ten lines at most: what verdicts carry, and what is undecided."""

from experiments.report import verdicts
from experiments.report.labels import Group
from experiments.report.results import Results
from experiments.report.verdicts import wording

MOST = 9
"""Lines; one more says what the study declared."""
_SAID = {
    "BETTER": "better than {}",
    "BETTER-SMALL": "better than {} by less than the margin",
    "EQUIVALENT": "as good as {}",
    "WORSE": "worse than {}",
    "UNDECIDED": "UNDECIDED",
}
"""Verdicts in words, in the order in which they are told."""

Named = tuple[tuple[str, tuple[Group, ...]], ...]


def lines(results: Results) -> list[str]:
    """Return which contender to take under which condition, as far as verdicts say it.

    Conditions with the same verdicts share a line. Nothing where there are no verdicts.
    """
    alike: dict[tuple[Group, Named], list[Group]] = {}
    for condition in results.conditions:
        other, judged = verdicts.reference(results, condition), verdicts.judged(results, condition)
        named = tuple(
            (verdict, tuple(series for series, one in judged.items() if one.verdict == verdict))
            for verdict in _SAID
        )
        if other and any(names for _, names in named):
            alike.setdefault((other.series, named), []).append(condition)
    groups = sorted(alike.items(), key=lambda item: -len(item[1]))
    whole = len(groups) <= MOST
    told = [
        f"**{_places(where, results)}:** {_verdicts(results, reference, named, where)}"
        for (reference, named), where in (groups if whole else groups[: MOST - 1])
    ]
    if not whole:
        rest = sum(len(where) for _, where in groups[MOST - 1 :])
        told.append(f"**{rest} more conditions:** see the differences below.")
    return told


def _places(where: list[Group], results: Results) -> str:
    if len(where) == len(results.conditions) > 1:
        return "Everywhere"
    return "; ".join(str(condition) for condition in where)


def _verdicts(results: Results, reference: Group, named: Named, where: list[Group]) -> str:
    """Write the verdicts that some conditions have in common."""
    parts = []
    for verdict, names in named:
        said = [_contender(results, series, where) for series in names]
        if said:
            parts.append(f"{_SAID[verdict].format(reference)}: {', '.join(said)}")
    return "; ".join(parts) + "."


def _contender(results: Results, series: Group, where: list[Group]) -> str:
    """Name a contender with what its verdict rests on: mean, interval, n; or what is missing."""
    found = [verdicts.judged(results, condition)[series] for condition in where]
    more = [one.more for one in found if one.more]
    if more:
        return f"{series} ({max(more)} more seeds)"
    if len(found) == 1:
        return f"{series} ({wording.numbers(found[0], results.measure)})"
    sign = 1 if results.measure.larger else -1
    low, high = sorted((min(one.mean for one in found) * sign, max(o.mean for o in found) * sign))
    n = sorted({one.n for one in found})
    seeds = f"{n[0]}" if len(n) == 1 else f"{n[0]} to {n[-1]}"
    return (
        f"{series} ({results.measure.change(low)} to {results.measure.change(high)}, n = {seeds})"
    )
