"""The commands about studies: ``fednf demo | study | studies | report``."""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from experiments.cli.progress import Display
from experiments.cli.terminal import (
    Callbacks,
    Json,
    Out,
    Quiet,
    Settings,
    Track,
    console,
    interrupted,
    say,
    show,
    typed,
    worker_pool,
)
from experiments.cli.terminal import flat as flat_knobs
from experiments.cli.terminal import plots as load_plots
from experiments.studies import ledger
from experiments.studies.catalogue import STUDIES
from experiments.studies.status import look
from experiments.studies.workers import HeldBy, Job, work_beside, work_through, work_with
from experiments.trackers import watchers
from fl.config.parsing import ConfigError
from fl.reproducibility.provenance import cores
from fl.server.watching.callback import Callback
from fl.simulation import study as studies_of
from fl.simulation.study import Study

Jobs = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Runs side by side; one core each. Default: all cores."),
]

TABLES = (
    "A folder with runs.csv and rounds.csv, as a report writes them, whose runs count as those "
    "below the folder do."
)
From = Annotated[Path | None, typer.Option("--from", metavar="TABLES", help=TABLES)]


@dataclass(frozen=True)
class _How:
    """How a study is done."""

    jobs: int | None
    quiet: bool
    as_json: bool
    ray: str | None = None
    watchers: Sequence[Callable[[], Callback]] = ()
    tables: Path | None = None


def demo(out: Out = None, jobs: Jobs = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Compare six recipes on shipped images, in two to three minutes, and write a report."""
    how = _How(jobs, quiet, as_json)
    _study(STUDIES["demo"]["small"](), out or Path("runs/demo"), how)


Scaled = Annotated[str | None, typer.Option("--scale", help="small (default) or full.")]


def study(
    name: Annotated[str, typer.Argument(help="A study by name, or a Python file with a STUDY.")],
    scale: Scaled = None,
    settings: Settings = None,
    out: Out = None,
    jobs: Jobs = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help="A Ray cluster that all of each run's clients train on, or local: a Ray of this "
            "machine.",
        ),
    ] = None,
    tables: From = None,
    tuned: Annotated[
        Path | None,
        typer.Option(
            "--tuned",
            metavar="FILE",
            help="The winners.toml of fednf tune: each contender at the knobs that won there.",
        ),
    ] = None,
    track: Track = None,
    callback: Callbacks = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Begin in a new folder beside the study's, which stays as it is."
        ),
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Do all runs that a question needs, skip those that are done, and write a report."""
    chosen = find_study(name, scale)
    if settings:
        chosen = chosen.fixing(flat_knobs(None, settings))
    if tuned:
        chosen = chosen.tuned(tuned)
    if ray and jobs:
        raise ConfigError("--jobs: with --ray runs follow each other; leave one of them out")
    how = _How(jobs, quiet, as_json, ray, watchers(track or [], callback or []), tables)
    folder = out or Path("runs") / chosen.name
    _study(chosen, fresh_beside(folder) if fresh else folder, how)


def find_study(name: str, scale: str | None) -> Study:
    """Return a study by its name, or by the Python file that has it.

    Raises:
        ConfigError: there is none.
    """
    if name in STUDIES:
        scales = STUDIES[name]
        if scale is not None and scale not in scales:
            raise ConfigError(f"study {name} has no scale {scale}; known: {', '.join(scales)}")
        return scales[scale or next(iter(scales))]()
    if not name.endswith(".py"):
        raise ConfigError(f"no study {name}; known: {', '.join(STUDIES)}, or a Python file")
    if scale is not None:
        raise ConfigError(f"--scale={scale}: a study of a file has one scale; leave it out")
    return studies_of.from_file(Path(name))


def studies() -> None:
    """List the studies."""
    table = Table("study", "scale", "runs", "question", box=None)
    for name, scales in STUDIES.items():
        for scale, make in scales.items():
            made = make()
            table.add_row(name, scale, str(len(made.experiments)), made.question)
    show(table)


def report(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Where the runs are; those of several folders are one table."),
    ] = None,
    tables: Annotated[
        list[Path] | None, typer.Option("--from", metavar="TABLES", help=TABLES)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Where the report goes. Default: into the folder; of several, runs/A+B.",
        ),
    ] = None,
    run_code: Annotated[
        bool,
        typer.Option(
            "--run-code",
            help="Run the code that runs have in components/, to draw who held what where data or "
            "deal are by it. Without it a report runs no code of a folder.",
        ),
    ] = False,
    pdf: Annotated[bool, typer.Option("--pdf", help="Write each figure as a PDF, too.")] = False,
    target: Annotated[
        float | None,
        typer.Option(
            "--target",
            metavar="VALUE",
            help="Also say how soon runs reach this value of the metric, such as 0.4.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn the runs below folders into tables, figures and one HTML page."""
    if not folders and not tables:
        raise ConfigError("report: give a folder of runs, or --from a folder of tables")
    plots = load_plots()
    there, tables = folders or [], tables or []
    names = "+".join(dict.fromkeys(path.resolve().name for path in there or tables))
    out = out or (there[0] if len(there) == 1 else Path("runs") / names)
    asked = {"run_code": run_code, "pdf": pdf, "target": target}
    page = plots.write(out, folders=there, tables=tables, **asked)
    for line in plots.data_read(out, there, tables):
        say(line)
    say(f"report: {page}")
    if as_json:
        say(json.dumps({"report": str(page)}))


def fresh_beside(folder: Path) -> Path:
    """Return the first of FOLDER, FOLDER-2, FOLDER-3 and so on that is not there yet."""
    later = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([folder], later) if not path.exists())


def _begin(chosen: Study, out: Path, kept: Mapping[str, ledger.Kept]) -> None:
    """Open a study's folder, and say what is not as it was there."""
    comparisons = load_plots().comparisons(chosen) if chosen.contrasts else []
    declared = ledger.declared(chosen, kept.values())
    try:
        told = chosen.begin(out, typed(), comparisons, kept, declared)
    except studies_of.ChangedStudy as error:
        for line in error.changes[: studies_of.MOST_TOLD]:
            say(line, Console(stderr=True))
        if (more := len(error.changes) - studies_of.MOST_TOLD) > 0:
            say(f"and {more} more changes", Console(stderr=True))
        raise ConfigError(
            f"{out} holds this study as it was before: put it back, or add --fresh to run it anew "
            f"in {fresh_beside(out)}"
        ) from None
    for line in told:
        say(line)


def _tell_waiting(busy: Mapping[str, HeldBy]) -> None:
    """Say which runs other processes are at work on."""
    for name, holder in busy.items():
        say(f"waiting: {name} is held by {holder}")


def _work(chosen: Study, out: Path, how: _How) -> list[Job]:
    """Open a study's folder, and return the runs that no ledger has."""
    tables = how.tables or out / ledger.FOLDER
    there = how.tables or (tables / ledger.RUNS).exists()
    kept = ledger.done(chosen, tables) if there else {}
    _begin(chosen, out, kept)
    if how.tables:
        ledger.take(how.tables, out)
    if kept:
        say(
            f"{len(kept)} of {len(chosen.experiments)} runs are in the ledger {out / ledger.FOLDER}"
        )
    return [
        Job(name, experiment, out / name, how.watchers)
        for name, experiment in zip(chosen.folders(), chosen.experiments, strict=True)
        if name not in kept
    ]


def _study(chosen: Study, out: Path, how: _How) -> None:
    """Do a study's runs and write its report."""
    plots, begun = load_plots(), time.monotonic()
    work = _work(chosen, out, how)
    ray, jobs = how.ray, 1 if how.ray else how.jobs or cores()
    given, failed, said = 0, dict[str, str](), _done_before(out, work)
    try:
        with worker_pool(None if ray == "local" else ray, None, bool(ray)) as pool:
            do = partial(work_with, pool) if pool else partial(work_through, workers=jobs)
            for part in _parts(chosen, out, work):
                display = Display(part, console, how.quiet)
                say(f"runs: {len(part)}, at most {jobs} at a time, into {out}{said}")
                do_these = partial(do, command=typed(), watch=display.round)
                with display.shown():
                    failed |= work_beside(do_these, part, _tell_waiting)
                given, said = given + len(part), ""
    except KeyboardInterrupt:
        interrupted(typed())
    for name, reason in failed.items():
        say(f"failed: {name}: {reason}")
    page = str(plots.write(out, run_code=True)) if len(failed) < given or not given else None
    say(f"{given - len(failed)} of {given} runs in {time.monotonic() - begun:.0f} s")
    if page:
        say(f"report: {page}")
    if how.as_json:
        say(json.dumps({"report": page, "runs": given, "failed": failed}))
    if failed:
        raise typer.Exit(1)


def _done_before(out: Path, work: Sequence[Job]) -> str:
    """Say how far these runs are; empty where none is begun."""
    names, rounds = {job.name for job in work}, sum(job.experiment.rounds for job in work)
    runs = [run for run in look(out).runs if run.name in names]
    if not (played := sum(run.round or 0 for run in runs)):
        return ""
    done = sum(run.state == "done" for run in runs)
    return f"; {played} of {rounds} rounds were done before, {done} runs to the end"


def _parts(chosen: Study, out: Path, work: Sequence[Job]) -> Iterator[list[Job]]:
    """Yield the runs that are to do before each look of a study; all at once if it has none."""
    if not (chosen.contrasts and chosen.contrasts.looks):
        yield list(work)
        return
    jobs = {job.name: job for job in work}
    for names in load_plots().between_looks(chosen, out, say):
        yield [jobs[name] for name in names if name in jobs]
