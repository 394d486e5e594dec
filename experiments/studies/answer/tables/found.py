"""What committed rows say: the tables of `docs/answer.md`, as lines of Markdown.

``python -m experiments.studies.answer docs/studies/answer`` prints them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.statistics.endpoints import differences
from experiments.statistics.interaction import retained, retained_interval
from experiments.statistics.paired import t_interval
from experiments.statistics.power import blocks_for_difference
from experiments.statistics.variance import variance_parts, variance_shares
from experiments.statistics.verdicts import judge
from experiments.studies import ledger
from experiments.studies.answer.cause import AT_LATER_RATES
from experiments.studies.answer.cause import compared as in_cause
from experiments.studies.answer.conditions import GUESSING, SKEWS
from experiments.studies.answer.hypotheses import (
    ALPHA,
    ASKED,
    BASELINE,
    MARGIN,
    NO_GAP,
    Claim,
    Scores,
    better,
    closes_the_gap,
    holds_up,
    micro_batches,
)
from experiments.studies.answer.hypotheses import cause as cause_of_the_lead
from experiments.studies.answer.judged import at_the_last_look, by_batch
from experiments.studies.answer.rows import (
    DRAWN,
    Ended,
    best_validated,
    broken,
    by_cell,
    by_draw,
    ended,
    scores,
    tried_at_one,
    tried_to_the_end,
    won,
)
from experiments.studies.answer.tables.words import NAMES, plain, points

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
    yield from _by_rate("contender | clients", tried_to_the_end(folder))


def tried_with_one(folder: Path) -> Iterator[str]:
    """Yield the same of batches of one."""
    yield from _by_rate("contender, batches of 1 | clients", tried_at_one(folder))


def _by_rate(head: str, cells: Mapping[tuple[str, str], Mapping[float, float]]) -> Iterator[str]:
    rates = sorted({rate for of in cells.values() for rate in of})
    yield f"| {head} | {' | '.join(f'{rate:g}' for rate in rates)} |"
    yield f"|---|---|{'---|' * len(rates)}"
    for name, skew in ((name, skew) for skew in SKEWS for name in NAMES if (name, skew) in cells):
        of = cells[name, skew]
        best = max(of, key=of.__getitem__)
        shown = {rate: f"{100 * y:.1f}" for rate, y in of.items()}
        shown[best] = f"**{shown[best]}**"
        yield f"| {NAMES[name]} | {skew} | {' | '.join(shown.get(rate, '') for rate in rates)} |"


def runs_of_cause(folder: Path) -> list[Ended]:
    """Return the runs of block B3, and of what was asked for after it."""
    tables = [folder / name for name in ("cause", "cause/rate", "cause/late")]
    return [run for path in tables if path.exists() for run in ended(path)]


def parts_of_zc_swish(runs: Sequence[Ended]) -> Iterator[str]:
    """Yield the table of block B3: ZC-Swish less what is like it but for one thing, at α 1."""
    found = scores(runs, in_cause())
    others = [n for n in found if n not in ("zc-swish", *ASKED, *AT_LATER_RATES)]
    families = [[n for n in names if n in found] for names in (ASKED, AT_LATER_RATES, others)]
    yield from _beside("zc-swish", found, families)


def beside_frozen(runs: Sequence[Ended]) -> Iterator[str]:
    """Yield the same of ZC-Swish with frozen scalars, beside H5's two at the rate that all have."""
    yield from _beside("frozen", scores(runs, in_cause()), [list(AT_LATER_RATES)])


def after_the_last_round(folder: Path) -> Iterator[str]:
    """Yield H5's comparisons at later rates after the last round alone, which was not planned.

    Args:
        folder: of the blocks.
    """
    tables = [folder / name for name in ("cause", "cause/late")]
    runs = [run for path in tables for run in ledger.read(path) if run.result]
    ends = [Ended(run.header["knobs"], run.rounds[-1]["test_accuracy"]) for run in runs]
    yield from _beside("zc-swish", scores(ends, in_cause()), [list(AT_LATER_RATES)])


def with_one(found: Scores) -> Iterator[str]:
    """Yield the table of batches of one: ZC-Swish less the others, at α 1.

    Args:
        found: see `judged.with_one`.
    """
    yield from _beside("zc-swish", found, [[name for name in found if name != "zc-swish"]])


def beside_instance(found: Scores) -> Iterator[str]:
    """Yield the same of instance normalization, beside SaluNet and BatchNorm."""
    yield from _beside("instancenorm", found, [["salunet", "bn-average", "bn-recalibrate"]])


def _beside(name: str, found: Scores, families: Iterable[Sequence[str]]) -> Iterator[str]:
    own = found[name]
    yield f"| | blocks | accuracy | {NAMES[name]} less this | 95 % | verdict |"
    yield "|---|---|---|---|---|---|"
    yield f"| {NAMES[name]} | {len(own)} | {100 * np.mean(list(own.values())):.1f} | | | |"
    for family in families:
        apart = {name: list(differences(own, found[name]).values()) for name in family}
        for name, verdict in judge(apart, MARGIN).items():
            cells = [NAMES.get(name, f"ZC-Swish, {name}"), str(verdict.n)]
            cells += [f"{100 * np.mean(list(found[name].values())):.1f}", points(verdict.mean)]
            yield f"| {' | '.join(cells)} | {points(*(verdict.interval or ()))} | {verdict} |"


def accuracies(runs: Mapping[str, Scores]) -> Iterator[str]:
    """Yield the table of block B2: accuracy, and what skew leaves of the lead over guessing.

    Args:
        runs: by skew; see `judged.at_the_last_look`.
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


def batches(of_size: Mapping[int, Scores]) -> Iterator[str]:
    """Yield the table of block B4: accuracy by batch size, and what the larger batch gains.

    Args:
        of_size: by batch size; see `judged.by_batch`.
    """
    small, large = of_size
    yield f"| contender | batches of {small} | batches of {large} | gained | 95 % | blocks |"
    yield "|---|---|---|---|---|---|"
    for name in of_size[small]:
        one, other = of_size[small][name], of_size[large][name]
        d = list(differences(other, one).values())
        means = " | ".join(f"{100 * np.mean(list(of.values())):.1f}" for of in (one, other))
        cells = f"{points(float(np.mean(d)))} | {points(*t_interval(d))} | {len(d)}"
        yield f"| {NAMES[name]} | {means} | {cells} |"


def _in_order(runs: Mapping[str, Scores]) -> list[str]:
    """Return the contenders of a block in the order of names."""
    return [name for name in NAMES if all(name in of for of in runs.values())]


def claims(folder: Path) -> Iterator[Claim]:
    """Yield H1 to H6 as far as there are runs: of B2 at its looks alone, of B4 when it is whole.

    Args:
        folder: has a folder of tables a block, and the winners of tuning.
    """
    if looked_at := at_the_last_look(folder):
        yield from better(looked_at, best_validated(folder))
        yield from holds_up(looked_at, "even")
        yield from closes_the_gap(looked_at["α 1"])
    if of_size := by_batch(folder):
        yield from micro_batches(of_size)
    if (folder / "cause").exists():
        found = scores(runs_of_cause(folder), in_cause())
        yield from cause_of_the_lead(found)
        if found.keys() >= AT_LATER_RATES.keys():
            yield from cause_of_the_lead(found, tuple(AT_LATER_RATES))


def hypotheses(found: Iterable[Claim]) -> Iterator[str]:
    """Yield claims as a table, in the order of hypotheses."""
    yield "| hypothesis | where | against | value | interval | blocks | verdict | holds |"
    yield "|---|---|---|---|---|---|---|---|"
    for claim in sorted(found, key=lambda claim: claim.name):
        yes = "not refuted" if claim.name == "H5" else "yes"
        holds = {True: yes, False: "no", None: "undecided"}[claim.holds]
        holds = "–" if claim.word == NO_GAP else holds
        of_points = claim.name not in ("H3", "H6") or claim.word == NO_GAP
        spelled = points if of_points else plain
        values = f"{spelled(claim.value)} | {spelled(*(claim.interval or ()))}"
        where = ", ".join(NAMES.get(part, part) for part in claim.where.split(", "))
        against = NAMES.get(claim.against, claim.against)
        cells = f"{where} | {against} | {values} | {claim.n} | {claim.word} | {holds}"
        yield f"| {claim.name} | {cells} |"
