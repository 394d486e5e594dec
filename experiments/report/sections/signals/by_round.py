"""A figure with a row a condition and a column a round: the first, the middle and the last."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report.drawing import panels
from experiments.report.labels import Group


def spread(rounds: set[int]) -> list[int]:
    """Return the first, the middle and the last of some rounds; fewer where there are fewer."""
    known = sorted(rounds)
    return sorted({known[0], known[len(known) // 2], known[-1]}) if known else []


def figure(
    rows: Mapping[Group, Sequence[int]],
    draw: Callable[[Axes, Group, int], None],
    finish: Callable[[Axes], None],
    label: str,
    legend: tuple[Sequence[Group], Sequence[Group]],
) -> Figure:
    """Draw a panel for each condition and round.

    Args:
        rows: condition -> its rounds; some may have fewer than others.
        draw: draws a panel.
        finish: gives a panel its axes, once all are drawn, since they share the upright one.
        label: of the upright axis.
        legend: the series that are drawn, and all.
    """
    columns = max(map(len, rows.values()))
    places = [
        (condition, number)
        for condition, rounds in rows.items()
        for number in [*rounds, *[None] * (columns - len(rounds))]
    ]
    titles = [
        f"{condition}, round {number}" if len(rows) > 1 else f"round {number}"
        for condition, number in places
    ]
    with panels.grid(titles, height=2.6, top=0.5, most=columns) as drawn:
        there = list(zip(drawn.all, places, strict=True))
        for panel, (condition, number) in there:
            if number is None:
                panel.remove()
            else:
                draw(panel, condition, number)
        for panel, (_, number) in there:
            if number is not None:
                finish(panel)
        for panel in drawn.leftmost:
            panel.set_ylabel(label)
        drawn.legend(*legend)
    return drawn.figure
