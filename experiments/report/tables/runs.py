"""The table of all runs: what each reached, and the folder that has the rest."""

import os
from pathlib import Path
from urllib.parse import quote

from experiments.report import tables, words
from experiments.report.markup import Html, element, table
from experiments.report.results import Results, Run


def every_run(results: Results, out: Path) -> Html:
    """Make the section of all runs, folded, with a link to the folder of each that is here.

    Args:
        results: all runs.
        out: the page's folder, which links start from.
    """
    measure = results.measure
    titles = ("condition", "seed", f"{measure.title} {results.when}", "best", "rounds", "folder")
    numbers = (False, True, True, True, True, False)
    head = [element("th", words.series_noun(results), scope="col")]
    head += [
        element("th", title, scope="col", **({"class_": "number"} if number else {}))
        for title, number in zip(titles, numbers, strict=True)
    ]
    rows = [_row(run, results, out) for run in results.runs]
    return element(
        "section",
        element("h2", "Every run"),
        element(
            "details",
            element("summary", words.count(len(rows), "run")),
            table([head], [rows], "runs", class_="unbroken"),
        ),
    )


def _row(run: Run, results: Results, out: Path) -> list[Html]:
    measure, result = run.measure, run.result or {}
    asked, done = run.knobs["rounds"], run.rounds_done
    best = result.get(f"best_{measure.name}")
    figures = (
        str(run.seed),
        measure.value(run.outcome if run.result else None),
        measure.value(best),
        f"{done}" if run.result else f"{done} of {asked}",
    )
    return [
        tables.contender(run.series, results),
        element("td", str(run.condition)),
        *(element("td", text, class_="number") for text in figures),
        element("td", _link(run, out)),
    ]


def _link(run: Run, out: Path) -> Html | str:
    """Return a link from the page, which stays true where all is moved together."""
    if run.journal is None:
        return run.name
    path = os.path.relpath(run.journal.folder.resolve(), out.resolve())
    return element("a", run.name, href=f"{quote(Path(path).as_posix())}/")
