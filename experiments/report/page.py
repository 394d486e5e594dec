"""The report of a folder of runs: one page that opens anywhere, its figures, its numbers as CSV."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib.figure import Figure

from experiments.report import csv_files
from experiments.report.drawing import figures
from experiments.report.markup import Html, element, inline_svg
from experiments.report.markup import join as joined
from experiments.report.results import Results, join
from experiments.report.sections import (
    accuracy,
    answers,
    appendix,
    circumstances,
    collapse,
    devices,
    held_out,
    introduction,
    personal,
    signals,
)
from experiments.report.sections.decision import dose, forest, heat, holding_up, studies
from experiments.studies.joining import gather
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.reproducibility.errors import in_words
from fl.reproducibility.files import write_whole
from fl.reproducibility.temporary import remove_leftovers
from fl.server.contents import EXPERIMENT
from fl.server.journal import Journal

_CSS = Path(__file__).with_name("page.css")


def write(
    out: Path,
    *,
    folders: Sequence[Path] | None = None,
    tables: Sequence[Path] = (),
    run_code: bool = False,
) -> Path:
    """Write one report of all runs below some folders, and return the page's path.

    Writes ``report.html``, ``figures/*.png`` and ``*.svg``, ``runs.csv``, ``rounds.csv``,
    ``clients.csv`` and ``summary.csv``, with signals ``signals.csv`` and ``divergence.csv``, each
    whole or not at all, and the same bytes for the same runs.

    Args:
        out: where the report goes.
        folders: where the runs are; None: there.
        tables: folders with `runs.csv` and `rounds.csv`, whose runs are reported, too.
        run_code: whether to run the code that runs of a user's own data or deal have in their
            folders, to draw who held what. Without it only what this process has run before.

    Raises:
        ConfigError: there is no run, a run can't be read, or two folders have a run otherwise;
            nothing was written.
    """
    folders = [out] if folders is None else folders
    for place in (out, out / "figures"):
        remove_leftovers(place)
    with _damage_told(folders):
        results = join(folders, tables, out)
        if run_code:
            for run in results.runs:
                Experiment.from_flat(run.knobs)
        measured = signals.read(results)
        page = _page(results, _body(results, measured, out / "figures"))
        sheets = {
            f.__name__: f(results)
            for f in (csv_files.runs, csv_files.rounds, csv_files.clients, csv_files.summary)
        }
    for name, rows in sheets.items():
        write_whole(out / f"{name}.csv", rows)
    for sheet in (signals.signals, signals.divergence):
        path = out / f"{sheet.__name__}.csv"
        if measured:
            write_whole(path, sheet(measured))
        else:
            path.unlink(missing_ok=True)
    write_whole(out / "report.html", page)
    return out / "report.html"


def data_read(
    out: Path, folders: Sequence[Path] | None = None, tables: Sequence[Path] = ()
) -> list[str]:
    """Say what data the runs of `write` read, a line a distinct reading.

    Raises:
        ConfigError: the `experiment.json` of a run can't be read.
    """
    sources = gather([out] if folders is None else folders, tables, out)
    runs = [run for source in sources for run in source.runs]
    return circumstances.data_read(run.header for run in runs)


@contextmanager
def _damage_told(folders: Sequence[Path]) -> Iterator[None]:
    """Tell an exception in one line, if a run is there whose files can't say that they are whole.

    Raises:
        ConfigError: instead of what has no file and no line of a user's.
    """
    try:
        yield
    except (ConfigError, OSError):
        raise
    except Exception as error:
        paths = [path for folder in folders for path in sorted(folder.rglob(EXPERIMENT))]
        old = [path for path in paths if not Journal(path.parent).run]
        if not old:
            raise
        told = ", ".join(map(str, folders))
        raise ConfigError(
            f"can't report {told}: {in_words(error)}; {old[0].parent} has no checksums, as an "
            "earlier version wrote it, and a file there may be damaged"
        ) from error


def _body(results: Results, measured: list[signals.Signals], folder: Path) -> Html:
    """Make all sections; their figures are also written as files."""
    parts = [introduction.heading(results), answers.answer(results)]
    parts += [_listed(studies.origins(results)), answers.notices(results)]
    if results.finished:
        measure = results.measure
        title = f"{measure.heading} {results.when}"
        parts.append(_at_a_glance(results, folder))
        dots = _picture(folder / measure.name, accuracy.dots(results), title)
        title = f"{measure.heading} by skew, or another ordered factor"
        trend = _optional(folder / "skew", dose.figure(results), title)
        parts.append(answers.accuracy(results, dots, trend))
        parts.append(_listed(holding_up.section(results)))
        gradients = _optional(folder / "gradients", collapse.figure(results), "Gradient norms")
        parts.append(collapse.section(results, gradients))
    title = f"{results.measure.heading} over rounds"
    curves = _picture(folder / "rounds", accuracy.curves(results), title)
    parts.append(answers.over_rounds(results, curves))
    parts.append(_signals(results, measured, folder))
    deals, faults = circumstances.deals(results.runs)
    for old in folder.glob("deal-*"):
        old.unlink()
    drawn = [figures.deal(deal.counts, deal.classes, deal.title) for deal in deals]
    pictures = [
        _picture(
            folder / f"deal-{_slug(deal.title)}", figure, f"Who holds which classes: {deal.title}"
        )
        for deal, figure in zip(deals, drawn, strict=True)
    ]
    parts.append(answers.holders(list(zip(deals, pictures, strict=True)), faults))
    cost = appendix.cost(results) if results.finished else None
    gains = _optional(folder / "gains", personal.figure(results), "Each client's gain")
    end = [
        personal.section(results, gains),
        held_out.every_client(results),
        devices.fleet(results),
        appendix.contenders(results),
        cost,
        appendix.privacy(results),
    ]
    return joined(*parts, *end, appendix.conditions(results))


def _at_a_glance(results: Results, folder: Path) -> list[Html]:
    """Make the pictures that a decision is made by, where there is anything to compare."""
    title = f"{results.measure.heading} {results.when}, a row a contender"
    heights = _optional(folder / "heat", heat.figure(results), title)
    differences = _optional(folder / "forest", forest.figure(results), "Differences, and verdicts")
    return _listed(answers.pictures(heights, differences))


def _listed(part: Html | None) -> list[Html]:
    """Return a part of the page that only some reports have."""
    return [] if part is None else [part]


def _signals(results: Results, measured: list[signals.Signals], folder: Path) -> list[Html]:
    """Make the section on signals, where they were measured."""
    drawn = {key: signals.figure(measured, results, key) for key in signals.FIGURES}
    drawn |= {key: signals.divergence_figure(measured, results, key) for key in signals.DIVERGENCES}
    pictures = {
        key: _optional(folder / f"signals-{_slug(key)}", figure, signals.CAPTIONS[key])
        for key, figure in drawn.items()
    }
    return [signals.section(measured, results, pictures)] if measured else []


def _picture(path: Path, figure: Figure, description: str) -> Html:
    """Write a figure beside the page, and return it as a part of the page."""
    return inline_svg(figures.save(figure, path), path.name, description)


def _optional(path: Path, figure: Figure | None, description: str) -> Html | None:
    """Write a figure that only some reports have; without one, a file of an older report goes."""
    if figure is not None:
        return _picture(path, figure, description)
    for old in path.parent.glob(f"{path.name}.*"):
        old.unlink()
    return None


def _page(results: Results, body: Html) -> str:
    beside = (
        "Beside this page: runs.csv, rounds.csv, clients.csv and summary.csv, and all figures as "
        "PNG and SVG. `fednf report DIR --from` this folder draws it again from the first three."
    )
    return document(f"fednf: {results.question}", body, beside)


def document(title: str, body: Html, beside: str) -> str:
    """Return a whole page, which needs no other file.

    Args:
        title: of the window.
        body: its sections.
        beside: what other files there are; stands at its foot.
    """
    head = element(
        "head",
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        element("style", Html(_CSS.read_text(encoding="utf-8"))),
    )
    inner = element("body", body, element("footer", beside))
    return "<!doctype html>\n" + element("html", head, inner, lang="en") + "\n"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower().replace("α", "alpha")).strip("-")
