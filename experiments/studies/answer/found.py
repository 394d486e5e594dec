"""What committed rows say: the tables of `docs/answer.md`, as lines of Markdown.

``python -m experiments.studies.answer docs/studies/answer`` prints them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.statistics.interaction import retained, retained_interval
from experiments.statistics.paired import t_interval
from experiments.statistics.power import blocks_for_difference
from experiments.statistics.variance import variance_parts, variance_shares
from experiments.statistics.verdicts import judge
from experiments.studies.answer.cause import AT_LATER_RATES
from experiments.studies.answer.cause import compared as in_cause
from experiments.studies.answer.conditions import FULL, GUESSING, SKEWS
from experiments.studies.answer.hypotheses import (
    ALPHA,
    ASKED,
    BASELINE,
    LOOKS,
    MARGIN,
    NO_GAP,
    Claim,
    Scores,
    better,
    closes_the_gap,
    holds_up,
)
from experiments.studies.answer.hypotheses import cause as cause_of_the_lead
from experiments.studies.answer.primary import RATES
from experiments.studies.answer.primary import compared as in_primary
from experiments.studies.answer.rows import (
    DRAWN,
    Ended,
    best_validated,
    broken,
    by_cell,
    by_draw,
    ended,
    scores,
    tried_to_the_end,
    won,
)
from experiments.studies.answer.words import NAMES, plain, points

TESTS = 6
"""Of H1 and H2 together, at one look."""


def noise(runs: Sequence[Ended]) -> Iterator[str]:
    """Yield the table of block B0: how far results spread, and what by."""
    yield "| network | clients | runs | accuracy | deviation | deal | weights | order | rest |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for (name, skew), of in by_cell(runs).items():
        rows = [{**run.knobs, "y": 100 * run.y} for run in of]
        y = np.array([run.y for run in of]) * 100
        shares = variance_shares(rows, "y", (), DRAWN)
        parts = " | ".join(f"{100 * shares[key]:.0f} %" for key in (*DRAWN, "rest"))
        cells = f"{NAMES[name]} | {skew} | {len(of)} | {y.mean():.1f} | {y.std(ddof=1):.2f}"
        yield f"| {cells} | {parts} |"


def pairs(runs: Sequence[Ended]) -> Iterator[str]:
    """Yield how far differences of the two networks of B0 spread, paired and with pairs broken."""
    yield "| clients | pairs | deviation | with pairs broken | of a fresh draw | blocks |"
    yield "|---|---|---|---|---|---|"
    of_cell = by_cell(runs)
    for skew in SKEWS:
        if not {("bn-recalibrate", skew), ("none", skew)} <= of_cell.keys():
            continue
        one, other = (by_draw(of_cell[name, skew]) for name in ("bn-recalibrate", "none"))
        paired = {draw: 100 * (one[draw] - other[draw]) for draw in one if draw in other}
        rows = [{**dict(zip(DRAWN, draw, strict=True)), "d": d} for draw, d in paired.items()]
        fresh = sum(variance_parts(rows, "d", (), DRAWN).values()) ** 0.5
        cells = [skew, str(len(paired)), f"{np.std(list(paired.values()), ddof=1):.2f}"]
        cells += [f"{broken(one, other):.2f}", f"{fresh:.2f}"]
        cells += [str(blocks_for_difference(fresh, 100 * MARGIN, ALPHA / TESTS))]
        yield f"| {' | '.join(cells)} |"


def halved(folder: Path) -> Iterator[str]:
    """Yield the table of the rates that halving left in block B1, with accuracy at round 39."""
    best = won(folder, ["primary.csv"])
    skews = [skew for skew in SKEWS if any(of == skew for _, of in best)]
    yield f"| contender | {' | '.join(f'rate, {skew} | accuracy' for skew in skews)} |"
    yield f"|---|{'---|---|' * len(skews)}"
    for name in NAMES:
        rows = [best[name, skew] for skew in skews if (name, skew) in best]
        told = " | ".join(f"{row['client.lr']:g} | {100 * row['score']:.1f}" for row in rows)
        if told:
            yield f"| {NAMES[name]} | {told} |"


def tried(folder: Path) -> Iterator[str]:
    """Yield the table of rates that were tried to the end, with the best of each row in bold."""
    cells = tried_to_the_end(folder)
    rates = sorted({rate for of in cells.values() for rate in of})
    yield f"| contender | clients | {' | '.join(f'{rate:g}' for rate in rates)} |"
    yield f"|---|---|{'---|' * len(rates)}"
    for skew in SKEWS:
        for name in NAMES:
            if of := cells.get((name, skew)):
                best = max(of, key=of.__getitem__)
                shown = {rate: f"{100 * y:.1f}" for rate, y in of.items()}
                shown[best] = f"**{shown[best]}**"
                told = " | ".join(shown.get(rate, "") for rate in rates)
                yield f"| {NAMES[name]} | {skew} | {told} |"


def runs_of_cause(folder: Path) -> list[Ended]:
    """Return the runs of block B3, and of what was asked for after it."""
    tables = [folder / name for name in ("cause", "cause-rate", "cause-late")]
    return [run for path in tables if path.exists() for run in ended(path)]


def parts_of_zc_swish(runs: Sequence[Ended]) -> Iterator[str]:
    """Yield the table of block B3: ZC-Swish less what is like it but for one thing, at α 1."""
    found = scores(runs, in_cause())
    own = found.pop("zc-swish")
    contrasts = {
        name: [own[block] - y for block, y in of.items() if block in own]
        for name, of in found.items()
    }
    others = [name for name in found if name not in (*ASKED, *AT_LATER_RATES)]
    families = [[n for n in names if n in found] for names in (ASKED, AT_LATER_RATES, others)]
    told = {
        name: verdict
        for family in families
        for name, verdict in judge({name: contrasts[name] for name in family}, MARGIN).items()
    }
    yield "| | blocks | accuracy | ZC-Swish less this | 95 % | verdict |"
    yield "|---|---|---|---|---|---|"
    yield f"| ZC-Swish | {len(own)} | {100 * np.mean(list(own.values())):.1f} | | | |"
    for name, verdict in told.items():
        cells = [NAMES.get(name, f"ZC-Swish, {name}"), str(verdict.n)]
        cells += [f"{100 * np.mean(list(found[name].values())):.1f}", points(verdict.mean)]
        yield f"| {' | '.join(cells)} | {points(*(verdict.interval or ()))} | {verdict} |"


def accuracies(runs: Mapping[str, Scores]) -> Iterator[str]:
    """Yield the table of block B2: accuracy, and what skew leaves of the lead over guessing.

    Args:
        runs: by skew; see `at_the_last_look`.
    """
    even, *skewed = runs
    yield f"| contender | {' | '.join(runs)} | {' | '.join(f'left at {s}' for s in skewed)} |"
    yield f"|---|{'---|' * (len(runs) + len(skewed))}"
    for name in _in_order(runs):
        ys = {skew: list(of[name].values()) for skew, of in runs.items()}
        cells = [f"{100 * np.mean(y):.1f}" for y in ys.values()]
        for skew in skewed:
            share = retained(ys[skew], ys[even], GUESSING)
            low, high = retained_interval(ys[skew], ys[even], GUESSING, 1 - ALPHA)
            cells.append(f"{100 * share:.0f} % [{100 * low:.0f}, {100 * high:.0f}]")
        yield f"| {NAMES[name]} | {' | '.join(cells)} |"


def beside_batchnorm(runs: Mapping[str, Scores]) -> Iterator[str]:
    """Yield by how much each contender is ahead of BatchNorm, at the level of a look.

    Each skew is a family of its own.
    """
    yield f"| less BatchNorm | {' | '.join(f'{skew} | verdict' for skew in runs)} |"
    yield f"|---|{'---|---|' * len(runs)}"
    names = [name for name in _in_order(runs) if name != BASELINE]
    cells: dict[str, list[str]] = {name: [] for name in names}
    for of in runs.values():
        d = {name: [y - of[BASELINE][block] for block, y in of[name].items()] for name in names}
        for name, found in judge(d, MARGIN, ALPHA).items():
            interval = points(*t_interval(d[name], 1 - ALPHA))
            cells[name] += [f"{points(found.mean)} {interval}", str(found)]
    for name, told in cells.items():
        yield f"| {NAMES[name]} | {' | '.join(told)} |"


def _in_order(runs: Mapping[str, Scores]) -> list[str]:
    """Return the contenders of a block in the order of names."""
    return [name for name in NAMES if all(name in of for of in runs.values())]


def claims(folder: Path) -> Iterator[Claim]:
    """Yield H1 to H6 as far as there are runs; those of block B2 at its looks alone.

    Args:
        folder: has a folder of tables a block, and the winners of tuning.
    """
    if looked_at := at_the_last_look(folder):
        yield from better(looked_at, best_validated(folder))
        yield from holds_up(looked_at, "even")
        yield from closes_the_gap(looked_at["α 1"])
    if (folder / "cause").exists():
        found = scores(runs_of_cause(folder), in_cause())
        yield from cause_of_the_lead(found)
        if found.keys() >= AT_LATER_RATES.keys():
            yield from cause_of_the_lead(found, tuple(AT_LATER_RATES))


def at_the_last_look(folder: Path) -> dict[str, dict[str, dict[int, float]]]:
    """Return endpoints by skew, contender and block, of the blocks of the last look of B2.

    Before its first look there are none.
    """
    runs = ended(folder / "primary") if (folder / "primary").exists() else []
    cells = scores(runs, in_primary(FULL.base.rounds))
    if len(cells) < len(RATES) * len(SKEWS):
        return {}
    whole = sorted(set.intersection(*(set(of) for of in cells.values())))
    blocks = whole[: max((look for look in LOOKS if look <= len(whole)), default=0)]
    return {
        skew: {name: {block: cells[name, skew][block] for block in blocks} for name in RATES}
        for skew in (SKEWS if blocks else ())
    }


def hypotheses(found: Iterable[Claim]) -> Iterator[str]:
    """Yield claims as a table."""
    yield "| hypothesis | where | against | value | interval | blocks | verdict | holds |"
    yield "|---|---|---|---|---|---|---|---|"
    for claim in found:
        yes = "not refuted" if claim.name == "H5" else "yes"
        holds = {True: yes, False: "no", None: "undecided"}[claim.holds]
        of_points = claim.name not in ("H3", "H6") or claim.word == NO_GAP
        spelled = points if of_points else plain
        values = f"{spelled(claim.value)} | {spelled(*(claim.interval or ()))}"
        cells = f"{claim.where} | {claim.against} | {values} | {claim.n} | {claim.word} | {holds}"
        yield f"| {claim.name} | {cells} |"
