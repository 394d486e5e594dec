"""The command about knobs that suit each contender: ``fednf tune``."""

import inspect
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from experiments.cli.progress import shortened
from experiments.cli.study import Jobs, Scaled, find_study
from experiments.cli.terminal import (
    Config,
    Json,
    Out,
    Quiet,
    Settings,
    console,
    flat,
    interrupted,
    plots,
    say,
    show,
    typed,
    written,
)
from experiments.studies.tuning import rungs as halving
from experiments.studies.tuning import table as tables
from experiments.studies.tuning.contenders import as_read, of_study
from experiments.studies.tuning.plan import Plan, check_seeds, named
from experiments.studies.tuning.rungs import Race, TuningFailed
from experiments.studies.tuning.space import Axis, axis, check_not_set, combined, drawn
from experiments.studies.workers import HeldBy, Job, work_beside, work_through
from fl.config import Experiment
from fl.config.parsing import ConfigError, cut
from fl.reproducibility.provenance import cores
from fl.server.watching.callback import Line
from fl.tasks import objective


@dataclass(frozen=True)
class Asked:
    """What is typed behind ``fednf tune``."""

    study: Annotated[
        str | None,
        typer.Argument(
            help="A study by name, or a Python file with a STUDY: each of its contenders is tuned."
        ),
    ] = None
    scale: Scaled = None
    recipes: Annotated[
        str | None,
        typer.Option("--recipes", help="Contenders by recipe: names with commas between."),
    ] = None
    contenders: Annotated[
        list[str] | None,
        typer.Option(
            "--contenders",
            metavar="KEY=A,B",
            help="Contenders by another knob, such as strategy.kind=fedavg,scaffold; may be given "
            "many times, and with --recipes: each combination is one.",
        ),
    ] = None
    over: Annotated[
        list[str] | None,
        typer.Option(
            "--over",
            metavar="KEY=VALUES",
            help="A knob that is tuned: client.lr=0.02,0.05 or client.lr=0.005:0.64:log8; may be "
            "given many times.",
        ),
    ] = None
    random: Annotated[
        int | None,
        typer.Option(
            "--random",
            min=1,
            help="Draw so many candidates, each value from its list or its range, as "
            "client.lr=0.005:0.64:log. Default: all combinations.",
        ),
    ] = None
    rungs: Annotated[
        str,
        typer.Option(
            "--rungs", help="Rounds after which candidates are compared, with commas between."
        ),
    ] = "10,20,40"
    keep: Annotated[
        float,
        typer.Option("--keep", metavar="N", help="The best 1/N go on to the next rung."),
    ] = 2.0
    extend: Annotated[
        int,
        typer.Option(
            "--extend",
            min=0,
            help="How many times a contender's grid is extended beyond an edge that leads.",
        ),
    ] = 2
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="How many: 9001 and those after it.")
    ] = 1
    config: Config = None
    settings: Settings = None
    out: Out = None
    jobs: Jobs = None
    quiet: Quiet = False
    as_json: Json = False


def _with_options(command: Any) -> Any:
    """Give a command the fields of `Asked` as its options, since it takes them as one."""
    told = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=field.default,
            annotation=field.type,
        )
        for field in fields(Asked)
    ]
    command.__signature__ = inspect.Signature(told)
    return command


@_with_options
def tune(**given: Any) -> None:
    """Find the knobs that suit each contender, on validation images, by successive halving."""
    asked = Asked(**given)
    plan, folder = _plan(asked), asked.out or Path("runs/tune")
    plots()  # which says in one line what is not installed
    from experiments.studies.tuning import page  # which draws, and so needs an extra

    plan.begin(folder, typed())
    jobs, counts = asked.jobs or cores(), [len(plan.distinct(c)) for c in plan.contenders]
    some = "" if min(counts) == max(counts) else f"{min(counts)} to "
    each = f"{len(counts)} contenders, {some}{max(counts)} candidates each"
    seeds = f"{plan.seeds} seed{'s' if plan.seeds > 1 else ''}"
    say(f"{each}; {seeds}, at most {jobs} runs at a time, into {folder}")
    shown = _Shown(plan, asked.quiet)
    try:
        races = halving.tune(plan, folder, partial(_played, shown, jobs), shown.rung)
    except KeyboardInterrupt:
        interrupted(typed())
    except TuningFailed as error:
        for name, reason in error.failed.items():
            say(f"failed: {name}: {reason}")
        say(f"nothing is decided. Mend it, and go on with: {typed()}")
        raise typer.Exit(1) from None
    _tell(plan, races, folder, page.write(plan, races, folder, typed()), asked.as_json)


def _plan(asked: Asked) -> Plan:
    """Return what is asked for, checked.

    Raises:
        ConfigError: it can't be tuned.
    """
    knobs, rungs = flat(asked.config, asked.settings), _rungs(asked.rungs)
    check_seeds(knobs)
    if not asked.over:
        raise ConfigError("--over says what is tuned, as --over client.lr=0.005:0.64:log8")
    if asked.study:
        for name in ("recipes", "contenders", "config"):
            if getattr(asked, name):
                raise ConfigError(f"--{name}: study {asked.study} has contenders; leave it out")
        study = find_study(asked.study, asked.scale).fixing(knobs)
        keys = {text.partition("=")[0].strip() for text in asked.over}
        base, contenders = of_study(study, keys)
    else:
        if asked.scale:
            raise ConfigError(f"--scale={asked.scale} is of a study; name one, or leave it out")
        base = Experiment.from_flat({"rounds": max(rungs), **knobs})
        apart = [axis(text) for text in asked.contenders or []]
        if asked.recipes:
            apart.insert(0, axis(f"recipe={asked.recipes}"))
        check_not_set(apart, knobs)
        contenders = as_read(base, combined(apart or [Axis("recipe", (base.recipe,))]))
    whole = {key for key, value in base.to_flat().items() if type(value) is int}
    over = [axis(text, text.partition("=")[0].strip() in whole) for text in asked.over]
    check_not_set(over, knobs)
    flags = [one.key in whole for one in over]
    tried = drawn(over, asked.random, flags) if asked.random else combined(over)
    return Plan(
        base=base,
        contenders=contenders,
        candidates=as_read(base.replace(contenders[0]), tried),
        rungs=rungs,
        seeds=asked.seeds,
        factor=asked.keep,
        extensions=None if asked.random else asked.extend,
    )


def _rungs(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--rungs {cut(text)}: it should look like 10,20,40") from None


def _played(shown: "_Shown", jobs: int, todo: Sequence[Job]) -> Mapping[str, str]:
    """Do jobs in processes, beside other commands that are at the same tuning."""
    with shown.playing(todo):
        do = partial(work_through, workers=jobs, command=typed(), watch=shown.round)
        return work_beside(do, todo, _tell_waiting)


def _tell_waiting(busy: Mapping[str, HeldBy]) -> None:
    for name, holder in busy.items():
        say(f"waiting: {name} is held by {holder}")


class _Shown:
    """Shows a tuning: a bar over the rounds of a rung, or a line a run, and a table a rung."""

    def __init__(self, plan: Plan, quiet: bool) -> None:
        self.plan, self.bars = plan, console.is_terminal and not quiet
        self.metric = objective(plan.base).primary
        self.last = iter(plan.rungs)
        self.until = next(self.last)

    def playing(self, jobs: Sequence[Job]) -> Progress:
        """Return what shows jobs while they run."""
        self.jobs, self.done = len(jobs), 0
        self.progress = Progress(console=console, disable=not self.bars, transient=True)
        self.bar = self.progress.add_task(f"to round {self.until}", total=self.until * len(jobs))
        return self.progress

    def round(self, job: Job, line: Line) -> None:
        """Take note of a finished round."""
        if line["round"]:
            self.progress.advance(self.bar)
        if line["round"] < self.until or line.replayed:
            return
        self.done += 1
        if not self.bars:
            value = written(line[self.plan.metric], self.metric)
            name = shortened(job.name, 80)
            say(f"[{self.done}/{self.jobs}] {name}, round {self.until}: {value}")

    def rung(self, rung: int, races: Sequence[Race]) -> None:
        """Show the candidates at a rung, the best first."""
        self.until = next(self.last, rung)
        table = Table("contender", *self.plan.candidates[0], title_justify="left", box=None)
        table.title = f"round {rung}: {self.plan.scored_on}"
        for title in ("mean", "seeds", ""):
            table.add_column(title, justify="right" if title else "left")
        for race in races:
            rows = race.at(rung)
            order = sorted(rows, key=lambda row: (row.mean is None, self._badness(row.mean)))
            for row in order:
                scores = [written(value, self.metric) for value in row.scores.values()]
                mean = written(row.mean, self.metric) if row.mean is not None else "diverged"
                word = "goes on" if rung < self.plan.rungs[-1] else "winner" * (mean != "diverged")
                told = [word if row.kept else "", f"extension {row.added}" if row.added else ""]
                cells = [str(value) for value in row.knobs.values()]
                table.add_row(
                    named(race.contender), *cells, mean, " ".join(scores),
                    ", ".join(filter(None, told)),
                )  # fmt: skip
        show(table)

    def _badness(self, mean: float | None) -> float:
        return (-1 if self.metric.larger else 1) * (mean or 0.0)


def _tell(plan: Plan, races: Sequence[Race], folder: Path, page: Path, as_json: bool) -> None:
    """Write what tuning came to, and say where it is."""
    table = tables.write_table(races, folder)
    winners = tables.write_winners(plan, races, folder, typed())
    for race, winner in ((race, race.winner) for race in races if race.winner):
        chosen = {**race.contender, **winner.knobs}.items()
        words = [word for key, value in chosen for word in ("--set", f"{key}={value}")]
        say(f"winner of {named(race.contender)}: {shlex.join(words)}")
    for text in tables.cautions(races):
        say(text)
    rounds, images, times = tables.cost(plan, races)
    say(
        f"{rounds:,} rounds, {images:,} training images: as many as {times:.1f} runs of "
        f"{plan.rungs[-1]} rounds"
    )
    say(f"every run at every rung: {table}")
    say(f"for a study, --tuned {winners}; with curves: {page}")
    if as_json:
        found = [(race.contender, race.winner) for race in races]
        rows = [{"contender": c, "knobs": w and w.knobs, "score": w and w.mean} for c, w in found]
        paths = {"table": str(table), "winners": str(winners), "report": str(page)}
        say(json.dumps({"tuned": rows, **paths, "rounds": rounds, "images": images}))
