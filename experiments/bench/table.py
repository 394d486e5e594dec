"""Print the figures of cases, and how rounds grow with the number of clients."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from experiments.bench.growth import lines, title
from experiments.cli import terminal
from experiments.cli.terminal import say


def print_case(case: dict, against: str) -> None:
    """Print a case's table, and who failed."""
    say(
        f"{title(case)}: {case['parameters']:,} parameters, "
        f"{case['flops_per_image'] / 1e6:.1f} MFLOP an image; "
        f"{case['images']:,.0f} images a round, of {case['clients']:,} of "
        f"{len(case['sizes']):,} clients, each {case['sizes'][0]} to {case['sizes'][-1]}"
    )
    table = Table("contender", box=None)
    for heading in (
        "images/s",
        "s/round",
        f"x {against}",
        "start, s",
        "whole, s",
        f"whole x {against}",
        "peak MB",
        "of peak",
        "loss",
        "tested",
    ):
        table.add_column(heading, justify="right")
    for name, row in case["contenders"].items():
        memory = "–" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:,.0f}"
        share = "–" if row["share_of_peak"] is None else f"{row['share_of_peak']:.1%}"
        table.add_row(
            name,
            _spread(row["images_per_second"], ",.0f"),
            _spread(row["seconds_per_round"], ".3f"),
            _spread(row["ratio"], ".2f"),
            _spread(row["startup"], ".1f"),
            _spread(row["whole"], ".1f"),
            _spread(row["whole_ratio"], ".2f"),
            memory,
            share,
            f"{row['losses'][0]:.3f} → {row['losses'][-1]:.3f}",
            f"{row['accuracy']:.3f}",
        )
    terminal.show(table)
    for name, reason in case["failed"].items():
        say(f"failed: {name}: {reason}")


def print_growth(cases: Sequence[dict]) -> None:
    """Print how rounds grow with their clients, where there are enough numbers of them."""
    for (name, contender), (clients, line) in lines(cases).items():
        off = ", ".join(f"{n:,}: {r:+.0%}" for n, r in zip(clients, line.residuals, strict=True))
        say(
            f"{name}, {contender}: {line.fixed:.3f} s a round and "
            f"{1000 * line.each:.3f} ms a client; off by {off}"
        )


def _spread(figure: Mapping[str, float] | None, how: str) -> str:
    """Spell a median, and between which values it lies."""
    if figure is None:
        return "–"
    return f"{figure['median']:{how}} ({figure['least']:{how}}–{figure['most']:{how}})"
