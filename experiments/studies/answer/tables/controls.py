"""The plan's negative controls: the tables of `docs/studies/answer/controls.md`."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from experiments.statistics.paired import sign_flip
from experiments.statistics.verdicts import judge
from experiments.studies.answer.cause import compared as in_cause
from experiments.studies.answer.conditions import FULL, GUESSING
from experiments.studies.answer.hypotheses import ASKED, MARGIN
from experiments.studies.answer.primary import RATES
from experiments.studies.answer.primary import compared as in_primary
from experiments.studies.answer.rows import (
    TUNED_AT_FOUR,
    Ended,
    broken,
    by_cell,
    by_draw,
    played,
    scores,
)
from experiments.studies.answer.tables.words import NAMES, points


def orders(runs: Sequence[Ended]) -> Iterator[str]:
    """Yield the control of one contender with two orders, judged as if they were two contenders."""
    yield "| network | clients | pairs | difference | p | verdict |"
    yield "|---|---|---|---|---|---|"
    for (name, skew), of in by_cell(runs).items():
        drawn = by_draw(of)
        first, second = sorted({order for _, _, order in drawn})
        d = [
            drawn[deal, init, second] - y
            for (deal, init, order), y in drawn.items()
            if order == first and (deal, init, second) in drawn
        ]
        found = judge({name: d}, MARGIN)[name]
        yield (
            f"| {NAMES[name]} | {skew} | {len(d)} | {points(found.mean)} | {sign_flip(d):.2f} | "
            f"{found.verdict} |"
        )


def pairs_of_cause(runs: Sequence[Ended]) -> Iterator[str]:
    """Yield how far differences of H5's contenders spread, paired and with pairs broken."""
    yield "| ZC-Swish less | blocks | deviation | with pairs broken |"
    yield "|---|---|---|---|"
    found = scores(runs, in_cause())
    own = {(block,): y for block, y in found["zc-swish"].items()}
    for name in ASKED:
        other = {(block,): y for block, y in found[name].items()}
        paired = [100 * (y - other[block]) for block, y in own.items()]
        cells = f"{len(paired)} | {np.std(paired, ddof=1):.2f} | {broken(own, other):.2f}"
        yield f"| {NAMES[name]} | {cells} |"


def permuted(runs: Sequence[Ended]) -> Iterator[str]:
    """Yield the control of training labels that say nothing."""
    yield "| contender | accuracy | from guessing |"
    yield "|---|---|---|"
    for (name, _), of in scores(runs, in_primary(FULL.base.rounds)).items():
        y = float(np.mean(list(of.values())))
        yield f"| {NAMES[name]} | {100 * y:.1f} | {points(y - GUESSING)} |"


def permuted_again(runs: Sequence[Ended]) -> Iterator[str]:
    """Yield the same of some under other permutations."""
    yield "| contender | permutation | accuracy | from guessing |"
    yield "|---|---|---|---|"
    for (name, _), of in by_cell(runs).items():
        for run in of:
            number = json.loads(str(run.knobs["data.options"]))["draw"]
            yield f"| {NAMES[name]} | {number} | {100 * run.y:.1f} | {points(run.y - GUESSING)} |"


def at_another_s_rate(folder: Path) -> Iterator[str]:
    """Yield the control of rates: what each contender scores early at rates of others."""
    rates = sorted({rate for of in RATES.values() for rate in of})
    tables = (folder / "tuning" / name for name in TUNED_AT_FOUR)
    early = [row for path in tables if path.exists() for row in played(path)]
    first = min(row["rung"] for row, _, _ in early)
    cells: dict[tuple[str, str], dict[float, float]] = {}
    for row, name, skew in early:
        if row["rung"] == first:
            cells.setdefault((name, skew), {})[row["client.lr"]] = row["score"]
    yield f"| contender | clients | best | {' | '.join(f'{rate:g}' for rate in rates)} |"
    yield f"|---|---|---|{'---|' * len(rates)}"
    for (name, skew), of in cells.items():
        if name in (*RATES, *ASKED):
            told = " | ".join(f"{100 * of[rate]:.1f}" for rate in rates)
            yield f"| {NAMES[name]} | {skew} | {100 * max(of.values()):.1f} | {told} |"
