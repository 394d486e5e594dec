"""What committed rows say: the tables of `docs/answer.md`, as lines of Markdown.

``python -m experiments.studies.answer docs/studies/answer`` prints them.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.statistics.paired import sign_flip
from experiments.statistics.power import blocks_for_difference
from experiments.statistics.variance import variance_parts, variance_shares
from experiments.statistics.verdicts import judge
from experiments.studies.answer.cause import AT_ITS_RATE, AT_LATER_RATES
from experiments.studies.answer.cause import compared as in_cause
from experiments.studies.answer.conditions import FULL, SKEWS
from experiments.studies.answer.hypotheses import (
    ALPHA,
    LOOKS,
    MARGIN,
    NO_GAP,
    Claim,
    better,
    closes_the_gap,
    holds_up,
)
from experiments.studies.answer.hypotheses import cause as cause_of_the_lead
from experiments.studies.answer.primary import RATES
from experiments.studies.answer.primary import compared as in_primary
from experiments.studies.answer.rows import (
    TUNING,
    Ended,
    best_validated,
    by_cell,
    ended,
    played,
    scores,
    tried_to_the_end,
    won,
)
from fl.config.parsing import Value

ASKED = ("leaky-relu", "swish")
"""Whom H5 compares ZC-Swish with."""
GUESSING = 0.1
TESTS = 6
"""Of H1 and H2 together, at one look."""
Draw = tuple[Value, ...]
"""Seeds of deal, initial weights and order."""
DRAWN = ("seed.deal", "seed.init", "seed.order")
NAMES = {
    "nf": "NF (scaled weight standardization)",
    "bn-average": "BatchNorm",
    "bn-recalibrate": "BatchNorm, recalibrated",
    "bn-fixbn": "BatchNorm, fixed from half of the rounds on",
    "ws-groupnorm": "weight standardization with GroupNorm",
    "zc-swish": "ZC-Swish",
    "salunet": "SaluNet",
    "none": "ReLU",
    "groupnorm": "GroupNorm, 4 groups",
    "layernorm": "LayerNorm",
    "groupnorm-2": "GroupNorm, 2 groups",
    "leaky-relu": "leaky ReLU",
    "swish": "Swish",
    **{name: name for name in (AT_ITS_RATE, *AT_LATER_RATES)},
    "frozen": "ZC-Swish, scalars frozen",
    "gated": "ZC-Swish, gated",
    "shifted": "ZC-Swish, shifted",
}


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
        one, other = (_by_draw(of_cell[name, skew]) for name in ("bn-recalibrate", "none"))
        paired = {draw: 100 * (one[draw] - other[draw]) for draw in one if draw in other}
        rows = [{**dict(zip(DRAWN, draw, strict=True)), "d": d} for draw, d in paired.items()]
        fresh = sum(variance_parts(rows, "d", (), DRAWN).values()) ** 0.5
        cells = [skew, str(len(paired)), f"{np.std(list(paired.values()), ddof=1):.2f}"]
        cells += [f"{_broken(one, other):.2f}", f"{fresh:.2f}"]
        cells += [str(blocks_for_difference(fresh, 100 * MARGIN, ALPHA / TESTS))]
        yield f"| {' | '.join(cells)} |"


def _broken(one: Mapping[tuple, float], other: Mapping[tuple, float]) -> float:
    """Return the deviation, in points, of differences of runs that share no draw."""
    crossed = itertools.product(one.items(), other.items())
    apart = [a - b for (d, a), (e, b) in crossed if all(x != y for x, y in zip(d, e, strict=True))]
    return 100 * float(np.std(apart, ddof=1))


def orders(runs: Sequence[Ended]) -> Iterator[str]:
    """Yield the control of one contender with two orders, judged as if they were two contenders."""
    yield "| network | clients | pairs | difference | p | verdict |"
    yield "|---|---|---|---|---|---|"
    for (name, skew), of in by_cell(runs).items():
        drawn = _by_draw(of)
        first, second = sorted({order for _, _, order in drawn})
        d = [
            drawn[deal, init, second] - y
            for (deal, init, order), y in drawn.items()
            if order == first and (deal, init, second) in drawn
        ]
        found = judge({name: d}, MARGIN)[name]
        yield (
            f"| {NAMES[name]} | {skew} | {len(d)} | {_points(found.mean)} | {sign_flip(d):.2f} | "
            f"{found.verdict} |"
        )


def pairs_of_cause(runs: Sequence[Ended]) -> Iterator[str]:
    """Yield the same of the three contenders of H5, whose blocks share all draws."""
    yield "| ZC-Swish less | blocks | deviation | with pairs broken |"
    yield "|---|---|---|---|"
    found = scores(runs, in_cause())
    own = {(block,): y for block, y in found["zc-swish"].items()}
    for name in ASKED:
        other = {(block,): y for block, y in found[name].items()}
        paired = [100 * (y - other[block]) for block, y in own.items()]
        cells = f"{len(paired)} | {np.std(paired, ddof=1):.2f} | {_broken(own, other):.2f}"
        yield f"| {NAMES[name]} | {cells} |"


def permuted(runs: Sequence[Ended]) -> Iterator[str]:
    """Yield the control of training labels that say nothing."""
    yield "| contender | accuracy | from guessing |"
    yield "|---|---|---|"
    for (name, _), of in scores(runs, in_primary(FULL.base.rounds)).items():
        y = float(np.mean(list(of.values())))
        yield f"| {NAMES[name]} | {100 * y:.1f} | {_points(y - GUESSING)} |"


def permuted_again(runs: Sequence[Ended]) -> Iterator[str]:
    """Yield the same of some under other permutations."""
    yield "| contender | permutation | accuracy | from guessing |"
    yield "|---|---|---|---|"
    for (name, _), of in by_cell(runs).items():
        for run in of:
            number = json.loads(str(run.knobs["data.options"]))["draw"]
            yield f"| {NAMES[name]} | {number} | {100 * run.y:.1f} | {_points(run.y - GUESSING)} |"


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


def at_another_s_rate(folder: Path) -> Iterator[str]:
    """Yield the control of rates: what each contender scores early at rates of others."""
    rates = sorted({rate for of in RATES.values() for rate in of})
    tables = (folder / "tuning" / name for name in TUNING)
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
        cells += [f"{100 * np.mean(list(found[name].values())):.1f}", _points(verdict.mean)]
        yield f"| {' | '.join(cells)} | {_points(*(verdict.interval or ()))} | {verdict} |"


def claims(folder: Path) -> Iterator[Claim]:
    """Yield H1 to H6 as far as there are runs; those of block B2 at its looks alone.

    Args:
        folder: has a folder of tables a block, and the winners of tuning.
    """
    if (folder / "primary").exists() and (looked_at := _looked_at(ended(folder / "primary"))):
        yield from better(looked_at, best_validated(folder))
        yield from holds_up(looked_at, "even")
        yield from closes_the_gap(looked_at["α 1"])
    if (folder / "cause").exists():
        found = scores(runs_of_cause(folder), in_cause())
        yield from cause_of_the_lead(found)
        if found.keys() >= AT_LATER_RATES.keys():
            yield from cause_of_the_lead(found, tuple(AT_LATER_RATES))


def _looked_at(runs: Sequence[Ended]) -> dict[str, dict[str, dict[int, float]]]:
    """Return endpoints by skew, contender and block, of the blocks of the last look of B2."""
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
        spelled = _points if of_points else _plain
        values = f"{spelled(claim.value)} | {spelled(*(claim.interval or ()))}"
        cells = f"{claim.where} | {claim.against} | {values} | {claim.n} | {claim.word} | {holds}"
        yield f"| {claim.name} | {cells} |"


def _by_draw(runs: Iterable[Ended]) -> dict[Draw, float]:
    return {tuple(run.knobs[key] for key in DRAWN): run.y for run in runs}


def _points(*fractions: float) -> str:
    """Write differences of accuracies in points; two are an interval, none a dash."""
    return _spelled([f"{100 * value:+.1f}" for value in fractions])


def _plain(*values: float) -> str:
    return _spelled([f"{value:+.2f}" for value in values])


def _spelled(values: Sequence[str]) -> str:
    text = ", ".join(values).replace("-", "−") or "–"
    return f"[{text}]" if len(values) > 1 else text
