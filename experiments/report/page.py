"""The report of a folder of runs: one page that opens anywhere, its figures, its numbers as CSV."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from experiments.report import csv_files
from experiments.report.drawing import figures
from experiments.report.drawing.gallery import Gallery, slug
from experiments.report.markup import Html
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
)
from experiments.report.sections.decision import (
    dose,
    forest,
    heat,
    holding_up,
    images,
    published,
    reached,
    studies,
)
from experiments.report.sections.signals import apart, by_depth, section
from experiments.report.sections.signals.measured import Signals, read
from experiments.report.tables import sheets
from experiments.report.tables.runs import every_run
from experiments.report.web.document import document
from experiments.studies.joining import gather
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.reproducibility.errors import in_words
from fl.reproducibility.files import write_whole
from fl.reproducibility.temporary import remove_leftovers
from fl.server.contents import EXPERIMENT
from fl.server.journal import Journal


def write(
    out: Path,
    *,
    folders: Sequence[Path] | None = None,
    tables: Sequence[Path] = (),
    run_code: bool = False,
    pdf: bool = False,
    target: float | None = None,
) -> Path:
    """Write one report of all runs below some folders, and return the page's path.

    Writes ``report.html``, ``figures/*.png`` and ``*.svg``, each table of the page as
    ``tables/*.csv`` and ``*.tex``, ``runs.csv``, ``rounds.csv``, ``clients.csv`` and
    ``summary.csv``, with signals ``signals.csv`` and ``divergence.csv``, each whole or not at all,
    and the same bytes for the same runs.

    Args:
        out: where the report goes.
        folders: where the runs are; None: there.
        tables: folders with `runs.csv` and `rounds.csv`, whose runs are reported, too.
        run_code: whether to run the code that runs of a user's own data or deal have in their
            folders, to draw who held what. Without it only what this process has run before.
        pdf: whether figures are written as PDF, too.
        target: a value of the primary metric, in its unit; the page then says how soon runs reach
            it.

    Raises:
        ConfigError: there is no run, a run can't be read, or two folders have a run otherwise, or
            the metric can't have the target; nothing was written.
    """
    folders = [out] if folders is None else folders
    for place in (out, out / "figures", out / "tables"):
        remove_leftovers(place)
    with _damage_told(folders):
        results = join(folders, tables, out)
        reached.check(results, target)
        if run_code:
            for run in results.runs:
                Experiment.from_flat(run.knobs)
        measured = read(results)
        page = _page(results, _body(results, measured, Gallery(out / "figures", pdf), out, target))
        ledger = {
            f.__name__: f(results)
            for f in (csv_files.runs, csv_files.rounds, csv_files.clients, csv_files.summary)
        }
    for name, rows in ledger.items():
        write_whole(out / f"{name}.csv", rows)
    for sheet in (by_depth.signals, apart.divergence):
        path = out / f"{sheet.__name__}.csv"
        if measured:
            write_whole(path, sheet(measured))
        else:
            path.unlink(missing_ok=True)
    sheets.write(page, out / "tables")
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


def _body(
    results: Results,
    measured: list[Signals],
    gallery: Gallery,
    out: Path,
    target: float | None,
) -> Html:
    """Make all sections; their figures are also written as files."""
    parts = [introduction.heading(results), answers.answer(results)]
    parts += [_listed(studies.origins(results)), answers.notices(results)]
    if results.finished:
        measure = results.measure
        title = f"{measure.heading} {results.when}"
        parts.append(_at_a_glance(results, gallery))
        dots = gallery.picture(measure.name, accuracy.dots(results), title)
        title = f"{measure.heading} by skew, or another ordered factor"
        trend = gallery.optional("skew", dose.figure(results), title)
        parts.append(answers.accuracy(results, dots, trend))
        parts.append(_listed(published.section(results)))
        parts.append(_listed(holding_up.section(results)))
        parts.append(_listed(images.section(results)))
        gradients = gallery.optional("gradients", collapse.figure(results), "Gradient norms")
        parts.append(collapse.section(results, gradients))
    title = f"{results.measure.heading} over rounds"
    curves = gallery.picture("rounds", accuracy.curves(results), title)
    parts.append(answers.over_rounds(results, curves))
    parts += _listed(reached.section(results, target))
    parts.append(_signals(results, measured, gallery))
    parts.append(_deals(results, gallery))
    cost = appendix.cost(results) if results.finished else None
    gains = gallery.optional("gains", personal.figure(results), "Each client's gain")
    end = [
        personal.section(results, gains),
        held_out.every_client(results),
        devices.fleet(results),
        appendix.contenders(results),
        cost,
        appendix.privacy(results),
        every_run(results, out),
    ]
    return joined(*parts, *end, appendix.conditions(results))


def _at_a_glance(results: Results, gallery: Gallery) -> list[Html]:
    """Make the pictures that a decision is made by, where there is anything to compare."""
    title = f"{results.measure.heading} {results.when}, a row a contender"
    heights = gallery.optional("heat", heat.figure(results), title)
    differences = gallery.optional("forest", forest.figure(results), "Differences, and verdicts")
    return _listed(answers.pictures(heights, differences))


def _listed(part: Html | None) -> list[Html]:
    """Return a part of the page that only some reports have."""
    return [] if part is None else [part]


def _signals(results: Results, measured: list[Signals], gallery: Gallery) -> list[Html]:
    """Make the section on signals, where they were measured."""
    drawn = {key: by_depth.figure(measured, results, key) for key in by_depth.CAPTIONS}
    drawn |= {key: apart.figure(measured, results, key) for key in apart.WORDS}
    drawn[apart.BY_LAYER] = apart.layer_figure(measured, results)
    captions = {**by_depth.CAPTIONS, **apart.CAPTIONS}
    pictures = {
        key: gallery.optional(f"signals-{slug(key)}", drawn[key], caption)
        for key, caption in captions.items()
    }
    return [section.section(measured, results, pictures)] if measured else []


def _deals(results: Results, gallery: Gallery) -> Html:
    """Make the section on who holds what, as far as the deals can be repeated here."""
    deals, faults = circumstances.deals(results.runs)
    gallery.remove("deal-*")
    drawn = []
    for deal in deals:
        figure = figures.deal(deal.counts, deal.classes, deal.title)
        title = f"Who holds which classes: {deal.title}"
        drawn.append((deal, gallery.picture(f"deal-{slug(deal.title)}", figure, title)))
    return answers.holders(drawn, faults)


def _page(results: Results, body: Html) -> str:
    beside = (
        "Beside this page: each figure as PNG and SVG (with --pdf also as PDF), each table as CSV "
        "and LaTeX in tables/, and runs.csv, rounds.csv, clients.csv and summary.csv. `fednf "
        "report DIR --from` this folder draws it again from the first three of these."
    )
    return document(f"fednf: {results.question}", body, beside)
