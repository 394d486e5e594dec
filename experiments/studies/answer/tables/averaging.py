"""What averaging does to signals, and how far clients are apart; and the same runs on two machines.

Both are of `answer-signals`, the first block of B2 once more.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.studies import ledger
from experiments.studies.answer.conditions import FULL
from experiments.studies.answer.primary import compared
from experiments.studies.answer.rows import ended, scores
from experiments.studies.answer.tables.words import NAMES, points
from fl.server.contents import COMMON

CONDITIONS = {"iid": "even", "Equal-size Dirichlet α = 1": "α 1"}
"""Of a report's tables, by our names."""
MIDDLE = FULL.base.rounds // 2
"""The round that is told: in the last one rates are near 0, and clients hardly move."""


def before_and_after(tables: Path) -> Iterator[str]:
    """Yield what averaging does in the middle of training: a row a contender at a skew.

    Told are what it cancels of updates, the gap of running means, and the variance of the first and
    of the last activation and of the gradient at the first, after averaging, as a share of what
    clients have before (their geometric mean), in one batch for all.

    Args:
        tables: `signals.csv` and `divergence.csv` of a report.
    """
    heads = ("cancelled", "first activation", "last", "gradient at the first")
    yield f"| clients | contender | {' | '.join(heads)} | gap of running means |"
    yield f"|---|---|{'---|' * (len(heads) + 1)}"
    told = [of for _, of in ledger.rows(tables / "signals.csv") if of["batch"] == COMMON]
    for _, row in ledger.rows(tables / "divergence.csv"):
        if row["round"] != MIDDLE or "layer" in row:
            continue
        keys = ("round", "series", "condition")
        networks = [of for of in told if all(of[key] == row[key] for key in keys)]
        last = max(one["station"] for one in networks)
        cells = [f"{100 * row['cancelled']:.0f} %"]
        for figure, station in (("acv", 1), ("acv", last), ("gradient_acv", 1)):
            cells.append(f"{_after(networks, figure, station):.2f}")
        cells.append(f"{row['statistics_mean']:.4f}" if "statistics_mean" in row else "")
        yield f"| {CONDITIONS[row['condition']]} | {row['series']} | {' | '.join(cells)} |"


def over_rounds(tables: Path) -> Iterator[str]:
    """Yield the mean cosine of two clients' updates by round: a row a contender at a skew.

    Args:
        tables: `divergence.csv` of a report.
    """
    apart = [row for _, row in ledger.rows(tables / "divergence.csv") if "layer" not in row]
    rounds = sorted({row["round"] for row in apart})
    yield f"| clients | contender | {' | '.join(f'round {number}' for number in rounds)} |"
    yield f"|---|---|{'---|' * len(rounds)}"
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for row in apart:
        told = f"{row['update_cosine']:.3f}".replace("-", "−")
        cells.setdefault((row["condition"], row["series"]), {})[row["round"]] = told
    for (condition, series), of in cells.items():
        told = " | ".join(of[number] for number in rounds)
        yield f"| {CONDITIONS[condition]} | {series} | {told} |"


def machines(folder: Path) -> Iterator[str]:
    """Yield accuracies of the block as B2 has it and as it was measured, on another machine.

    Args:
        folder: of the blocks.
    """
    yield "| contender | clients | in B2 | once more | more |"
    yield "|---|---|---|---|---|"
    rows = compared(FULL.base.rounds)
    there, here = (scores(ended(folder / name), rows) for name in ("primary", "signals"))
    for name, skew in ((name, skew) for name in NAMES for skew in CONDITIONS.values()):
        before, after = (of.get((name, skew), {}) for of in (there, here))
        for block in sorted(before.keys() & after.keys()):
            was, y = before[block], after[block]
            cells = f"{100 * was:.1f} | {100 * y:.1f} | {points(y - was)}"
            yield f"| {NAMES[name]} | {skew} | {cells} |"


def _after(networks: Sequence[Mapping], figure: str, station: int) -> float:
    """Return a figure of the averaged network as a share of clients' geometric mean."""
    there = [one for one in networks if one["station"] == station]
    (shared,) = (one[figure] for one in there if "partition" not in one)
    clients = [one[figure] for one in there if "partition" in one]
    return shared / np.exp(np.mean(np.log(clients)))
