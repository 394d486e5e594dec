"""What tuning came to, as files: a row a run and rung, and the winners for a study."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.studies.tuning.plan import FIRST_SEED, Plan, named
from experiments.studies.tuning.rungs import Candidate, Race
from fl.config.parsing import Value, to_toml
from fl.reproducibility.files import write_whole

TABLE, WINNERS = "tuning.csv", "winners.toml"


def rows(races: Sequence[Race]) -> Iterator[dict[str, Value | None]]:
    """Yield a row for each run at each rung: knobs, score, and whether its candidate goes on.

    `images` counts those of all seeds of the candidate, from its first round on.
    """
    for race in races:
        for row in race.table:
            for seed, value in row.scores.items():
                yield {
                    **race.contender,
                    **row.knobs,
                    "extension": row.added,
                    "rung": row.rung,
                    "seed": seed,
                    "score": value,
                    "mean": row.mean,
                    "images": row.images,
                    "kept": row.kept,
                }


def write_table(races: Sequence[Race], folder: Path) -> Path:
    """Write `tuning.csv`, whole or not at all, and return its path.

    Its columns are those of all contenders: a cell is empty where a knob does not bear on one.
    """
    text, found = io.StringIO(), list(rows(races))
    apart = dict.fromkeys(key for race in races for key in race.contender)
    columns = list(dict.fromkeys([*apart, *(key for row in found for key in row)]))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    write_whole(folder / TABLE, text.getvalue())
    return folder / TABLE


def write_winners(plan: Plan, races: Sequence[Race], folder: Path, command: str) -> Path:
    """Write `winners.toml`, whole or not at all, and return its path; see `fl.Study.tuned`.

    A contender whose candidates all diverged has no winner there.
    """
    seeds = {f"seeds.{n + 1}": FIRST_SEED + n for n in range(plan.seeds)}
    told: dict[str, Value] = {"command": command, "scored-on": plan.scored_on, **seeds}
    for number, race in enumerate(races, 1):
        name, winner = f"winner.{number}", race.winner
        if winner is None or winner.mean is None:
            continue
        told[f"{name}.score"] = winner.mean
        told |= {f"{name}.contender.{key}": value for key, value in race.contender.items()}
        told |= {f"{name}.knobs.{key}": value for key, value in winner.knobs.items()}
    write_whole(folder / WINNERS, to_toml(told))
    return folder / WINNERS


def cost(plan: Plan, races: Sequence[Race]) -> tuple[int, int, float]:
    """Return what was trained: rounds, images, and images as a multiple of a run to the last rung.

    A run is what the winners' took, in the mean.
    """
    rounds = images = 0
    for race in races:
        latest: dict[str, Candidate] = {repr(row.knobs): row for row in race.table}
        images += sum(row.images for row in latest.values())
        rounds += sum(row.rung for row in latest.values()) * plan.seeds
    whole = [row.images for race in races for row in race.at(plan.rungs[-1])]
    counted = len(whole) * plan.seeds
    return rounds, images, images * counted / max(sum(whole), 1)


def cautions(races: Sequence[Race]) -> Iterator[str]:
    """Yield what a reader should mind: budgets that differ, and winners at an edge."""
    for race in races:
        if race.winner is None:
            yield f"{named(race.contender)}: all candidates diverged, so it has no winner"
        if race.extensions:
            more = len(race.added)
            yield (
                f"{named(race.contender)}: the best was at an edge, so the grid was extended by "
                f"{more} {'candidate' if more == 1 else 'candidates'} beyond it"
            )
        if race.edge:
            yield (
                f"{named(race.contender)}: the winner is at the edge of what was tried of "
                f"{' and '.join(race.edge)}; a value beyond may be better"
            )
