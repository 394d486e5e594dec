"""The page of a tuning: who won, how the score responds to each knob, and what it took."""

import re
from collections.abc import Sequence
from pathlib import Path

from experiments.report.drawing import figures, responses
from experiments.report.drawing.responses import Point
from experiments.report.markup import Html, element, inline_svg, join, prose, table
from experiments.report.measure import Measure
from experiments.report.web.document import document
from experiments.studies.tuning.plan import FIRST_SEED, Plan, named
from experiments.studies.tuning.rungs import Candidate, Race
from experiments.studies.tuning.space import Knobs, as_number
from experiments.studies.tuning.table import cautions, cost
from fl.config import Experiment
from fl.reproducibility.files import write_whole
from fl.tasks import objective

PAGE = "tuning.html"


def write(plan: Plan, races: Sequence[Race], folder: Path, command: str) -> Path:
    """Write `tuning.html` and its figures, and return the page's path.

    Args:
        plan: what was tuned.
        races: what came out.
        folder: where the page goes.
        command: that repeats it.
    """
    primary = objective(plan.base).primary
    measure = Measure(primary.name, primary.title, primary.larger, primary.fraction)
    curves = [_curves(plan, race, folder / "figures", measure) for race in races]
    body = join(
        _heading(plan, races),
        _answer(plan, races, measure),
        element("h2", "How the score responds"),
        element("p", _reading(plan)),
        curves,
        element("h2", "Rung by rung"),
        [_rungs(plan, race, measure) for race in races],
        element("h2", "Conditions"),
        _conditions(plan, command),
    )
    beside = "Beside this page: tuning.csv, winners.toml, a folder a run, and all figures as files."
    write_whole(folder / PAGE, document(f"fednf: tuning, {plan.scored_on}", body, beside))
    return folder / PAGE


def _heading(plan: Plan, races: Sequence[Race]) -> Html:
    told = (
        f"Each contender was tried with the same {len(plan.candidates)} candidates. After "
        f"{_listed(plan.rungs)} rounds the candidates were compared, and the best "
        f"1/{plan.factor:g} of them went on from where they were. The score is "
        f"*{plan.scored_on}*, as the mean over the last tenth of the scored rounds so far, three "
        f"at least, and over {plan.seeds} {'seed' if plan.seeds == 1 else 'seeds'}. Test images "
        "had no say in it, and this page shows none of their figures."
    )
    return element(
        "header",
        element("p", "fednf · tuning", class_="overline"),
        element("h1", f"Which values of {_listed(list(plan.candidates[0]))} suit each contender?"),
        element("p", prose(told), class_="lede"),
    )


def _answer(plan: Plan, races: Sequence[Race], measure: Measure) -> Html:
    """Make the table of winners, and say what a reader should mind."""
    titles = ["contender", *plan.candidates[0], measure.title, "seeds from–to", "candidates"]
    head = [element("th", title, scope="col") for title in titles]
    body = []
    for race in races:
        if (row := race.winner) is None:
            continue
        known = [value for value in row.scores.values() if value is not None]
        body.append(
            [
                element("th", named(race.contender), scope="row"),
                *(element("td", str(value), class_="number") for value in row.knobs.values()),
                element("td", measure.value(row.mean), class_="number"),
                element("td", measure.extent(tuple(known)) or "–", class_="number"),
                element("td", str(len(race.tried)), class_="number"),
            ]
        )
    rounds, images, times = cost(plan, races)
    took = (
        f"All of it took {rounds:,} rounds and {images:,} training images: as many as {times:.1f} "
        f"runs of {plan.rungs[-1]} rounds."
    )
    return element(
        "section",
        element("h2", "Winners"),
        table([head], [body], "winners"),
        [element("p", prose(text)) for text in cautions(races)],
        element("p", took, class_="caution"),
        class_="answer",
    )


def _reading(plan: Plan) -> str:
    spread = "The band goes from the worst to the best seed. " if plan.seeds > 1 else ""
    return (
        "A dot is a candidate at a rung, a line joins the candidates of a rung. "
        f"{spread}Later rungs have fewer dots, since only the best went on to them. A curve that "
        "still rises at an end says that the range is too narrow; a flat top says that the choice "
        "hardly matters."
    )


def _curves(plan: Plan, race: Race, folder: Path, measure: Measure) -> Html | None:
    """Draw a contender: of a grid the first knob along the axis, of random draws each knob."""
    grid = plan.extensions is not None
    wide = next((key for key in plan.candidates[0] if _is_numeric(race, key)), None)
    keys = [wide or next(iter(plan.candidates[0]))] if grid else list(plan.candidates[0])
    drawn = []
    for key in keys:
        points = [point for row in race.table if (point := _point(row, key, race, grid))]
        if not points:
            continue
        path = folder / f"response-{_slug(named(race.contender))}-{_slug(key)}"
        figure = responses.figure(points, key, measure, joined=grid)
        told = f"{measure.heading} of {named(race.contender)} by {key}"
        svg = inline_svg(figures.save(figure, path), path.name, told)
        drawn.append(element("figure", element("div", svg, class_="wide")))
    return join(element("h3", named(race.contender)), drawn) if drawn else None


def _point(row: Candidate, key: str, race: Race, grid: bool) -> Point | None:
    known = tuple(value for value in row.scores.values() if value is not None)
    if row.mean is None:
        return None
    value = row.knobs[key]
    number = as_number(value)
    at = number[1] if number and not number[0] else str(value)
    panel = named({k: v for k, v in row.knobs.items() if k != key}) if grid else ""
    panel = panel if len(row.knobs) > 1 else ""
    return Point(at, panel, row.rung, known, row == race.winner)


def _is_numeric(race: Race, key: str) -> bool:
    """Return whether a knob has several values, all of them numbers."""
    found = {as_number(knobs[key]) for knobs in race.tried}
    return len(found) > 1 and all(number and not number[0] for number in found)


def _rungs(plan: Plan, race: Race, measure: Measure) -> Html:
    """Make the table of a contender: a row a candidate, a column a rung."""
    head = [element("th", key, scope="col") for key in plan.candidates[0]]
    head += [element("th", f"round {rung}", scope="col", class_="number") for rung in plan.rungs]
    at: dict[str, dict[int, Candidate]] = {}
    for row in race.table:
        at.setdefault(repr(row.knobs), {})[row.rung] = row
    body = []
    for found in at.values():
        knobs = next(iter(found.values())).knobs
        cells = [element("th", str(value), scope="row") for value in knobs.values()]
        for rung in plan.rungs:
            row = found.get(rung)
            said = measure.value(row.mean) if row and row.mean is not None else "diverged"
            leads = "number leads" if row and row.kept else "number"
            cells.append(element("td", said if row else "", class_=leads))
        body.append(cells)
    name = f"rungs-{_slug(named(race.contender))}"
    return join(element("h3", named(race.contender)), table([head], [body], name))


def _conditions(plan: Plan, command: str) -> Html:
    usual = Experiment().to_flat()
    changed = {k: v for k, v in plan.base.to_flat().items() if v != usual[k] and k != "components"}
    seeds = range(FIRST_SEED, FIRST_SEED + plan.seeds)
    told: Knobs = {**changed, "seeds": ", ".join(map(str, seeds))}
    pairs = [
        element("div", element("dt", key), element("dd", str(value))) for key, value in told.items()
    ]
    return join(
        element("p", "Knobs that are not at their defaults, in all runs:"),
        element("dl", pairs, class_="pairs"),
        element("pre", element("code", command)),
    )


def _listed(items: Sequence[object]) -> str:
    """Write ``5, 10 and 20``."""
    *first, last = map(str, items)
    return f"{', '.join(first)} and {last}" if first else last


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")
