"""The conditions of a study as axes: which aspects vary, and what goes across and into panels."""

import math

from experiments.report.labels import Group, Setting
from experiments.report.results import Results


def across(results: Results) -> str | None:
    """Return the aspect that pictures have on their level axis: the skew, or what varies most."""
    found = results.conditions[0].settings
    values = {
        one.aspect: {c.settings[place] for c in results.conditions}
        for place, one in enumerate(found)
    }
    varying = {aspect: len(each) for aspect, each in values.items() if len(each) > 1}
    if "partition" in varying:
        return "partition"
    return max(varying, key=lambda aspect: varying[aspect], default=None)


def without(condition: Group, aspect: str) -> Group:
    """Return what else a condition is."""
    return Group(tuple(one for one in condition.settings if one.aspect != aspect))


def setting(condition: Group, aspect: str) -> Setting:
    """Return a condition's setting of an aspect."""
    return next(one for one in condition.settings if one.aspect == aspect)


def step(condition: Group, aspect: str) -> str:
    """Name a condition's setting of an aspect in as little room as it takes."""
    text = setting(condition, aspect).text
    return text.rpartition("Dirichlet ")[2] or text


def title(rest: Group) -> str:
    """Name what the conditions of a panel have in common."""
    return str(rest) or "all"


def panels(results: Results, aspect: str) -> dict[Group, list[Group]]:
    """Return conditions that have cells by what they have in common but for an aspect."""
    found: dict[Group, list[Group]] = {}
    for condition in results.conditions:
        if results.column(condition):
            found.setdefault(without(condition, aspect), []).append(condition)
    return found


def ladders(results: Results) -> list[tuple[str, list[Group]]]:
    """Return ordered steps, three or more, along the skew or along a factor that is a number.

    Returns:
        The aspect, and conditions that differ in it alone, in order.
    """
    found = [("partition", steps) for steps in results.ladders()]
    for one in results.conditions[0].settings:
        if one.aspect != "partition":
            for steps in panels(results, one.aspect).values():
                ranks = [setting(c, one.aspect).rank[0] for c in steps]
                if len(steps) > 2 and sum(map(math.isfinite, ranks)) >= len(steps) - 1:
                    found.append((one.aspect, steps))
    return found
