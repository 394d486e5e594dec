"""What a person sees while runs are under way: bars in a terminal, plain lines elsewhere."""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from experiments.cli.terminal import plots, say, show, written
from experiments.studies.workers import Job
from fl.config.parsing import ConfigError
from fl.data.dataset import said
from fl.reproducibility.files import write_whole
from fl.server.result import ending
from fl.server.watching.callback import Callback, Line, RunInfo
from fl.simulation.python import Rows
from fl.simulation.workers.profile import Profile
from fl.tasks import Metric, objective


def shortened(name: str, width: int) -> str:
    """Return a name without its middle, if it is too long: it begins and ends with what differs."""
    if len(name) <= width:
        return name
    end = (width - 1) // 2
    return f"{name[: width - 1 - end]}…{name[-end:]}"


class Display:
    """Shows the rounds of jobs as they finish.

    In a terminal: one bar over all rounds, and one bar per run that is under way. Elsewhere, or
    when quiet: a line per finished run, and for a single run a line per round.
    """

    def __init__(self, jobs: Sequence[Job], console: Console, quiet: bool) -> None:
        self.console, self.single = console, len(jobs) == 1
        self.bars = console.is_terminal and not quiet
        self.rounds = sum(job.experiment.rounds for job in jobs)
        self.finished, self.jobs = 0, len(jobs)
        self.tasks: dict[str, TaskID] = {}
        self.begun: dict[str, float] = {}
        self.lines: dict[str, list[dict]] = {}
        whole: list[ProgressColumn] = [
            TextColumn("{task.description}"),
            BarColumn(bar_width=10, table_column=Column(no_wrap=True)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        ]
        self.progress = Progress(*whole, console=console, disable=not self.bars)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bars while the block runs."""
        with self.progress:
            self.total = self.progress.add_task("rounds", total=self.rounds, figures="")
            yield

    def round(self, job: Job, line: Line) -> None:
        """Take note of a finished round."""
        number, last = line["round"], job.experiment.rounds
        self.begun.setdefault(job.name, time.monotonic())
        figures = _figures(line, objective(job.experiment).primary)
        if line["refused"] and not line.replayed:
            first = line["refused"][0]
            reason = " ".join(first["reason"].split())
            say(
                f"{job.name}, round {number}: {len(line['refused'])} of {line['asked']} replies "
                f"refused; client {first['partition']}: {reason}",
                self.console,
            )
        if number:
            self._advance(line.replayed)
        lines = self.lines.setdefault(job.name, [])
        lines.append(line)
        ended = ending(lines, job.experiment) is not None
        self._bar(job, number, figures, ended)
        if ended:
            self.finished += 1
            self.rounds -= last - number  # which patience may leave out
            self.progress.update(self.total, total=self.rounds)
        if self.bars or line.replayed or not (self.single or ended):
            return
        prefix = "" if self.single else f"[{self.finished}/{self.jobs}] {job.name}, "
        seconds = time.monotonic() - self.begun[job.name]
        say(f"{prefix}round {number}/{last}: {figures}, {seconds:.0f} s", self.console)

    def _advance(self, replayed: bool) -> None:
        """Move the bar over all rounds; those that were there say nothing of the time left."""
        if not replayed:
            self.progress.advance(self.total)
            return
        (total,) = [task for task in self.progress.tasks if task.id == self.total]
        self.progress.reset(self.total, completed=int(total.completed) + 1)

    def _bar(self, job: Job, number: int, figures: str, ended: bool) -> None:
        """Show, move or remove a run's bar."""
        label = shortened(job.name, min(max(self.console.width - 60, 12), 48))
        if self.single:
            self.progress.update(self.total, description=label, figures=figures)
            return
        if job.name not in self.tasks:
            self.tasks[job.name] = self.progress.add_task(
                label, total=job.experiment.rounds, figures=figures
            )
        task = self.tasks[job.name]
        self.progress.update(task, completed=number, figures=figures)
        if ended:
            self.progress.update(task, visible=False)


def new_profile(on_a_cluster: bool) -> Profile:
    """Return a profile that hears of nothing yet.

    Raises:
        ConfigError: it could not be made, or not be drawn.
    """
    if on_a_cluster:
        raise ConfigError("--profile compares clocks of one machine; leave --runtime ray out")
    plots()
    return Profile()


def profiled(profile: Profile, folder: Path) -> None:
    """Show a profile, and write it to a run's folder.

    The table has the shares of workers' time that they spent at what, in the first round and after.
    """
    numbers = list(profile.begins)
    if not numbers:
        say("no client was trained, so there is nothing to profile")
        return
    plots().save(plots().timeline(profile), folder / "profile")
    write_whole(folder / "profile.csv", Rows(profile.rows()).to_csv())
    table = Table("rounds", box=None)
    for title in ("seconds", "train", "answer queries", "evaluate", "wait", "clients at a time"):
        table.add_column(title, justify="right")
    parts = [range(numbers[0], numbers[0] + 1)]
    if len(numbers) > 1:
        parts.append(range(numbers[1], numbers[-1] + 1))
    for part in parts:
        found = profile.shares(part)
        shares = [found.train, found.query, found.evaluate, found.wait]
        figures = [f"{found.seconds:.2f}", *(f"{share:.1%}" for share in shares)]
        name = f"{part.start}" if len(part) == 1 else f"{part.start} to {part.stop - 1}"
        table.add_row(name, *figures, f"{found.lanes:.1f}")
    show(table)
    say(f"drawn: {folder / 'profile.png'}, and as svg; every span: {folder / 'profile.csv'}")


def _figures(line: Mapping, metric: Metric) -> str:
    """Return a round's score and speed in few words."""
    score = line[f"test_{metric.name}"]
    if f"sample_{metric.name}" in line:
        said = [f"{metric.title} {written(line[f'sample_{metric.name}'], metric)} of a sample"]
    else:
        said = [f"{metric.title} {written(score, metric)}"]
    if line["train_seconds"]:
        said.append(f"{line['images'] / line['train_seconds']:,.0f} images/s")
    return ", ".join(said)


class Shown(Callback):
    """Shows one run on a display, and accounts for its time.

    Args:
        display: that of the job.
        job: what is run.
    """

    def __init__(self, display: Display, job: Job) -> None:
        self.display, self.job = display, job
        self.created = self.begun = time.monotonic()
        self.engine: Mapping = {}
        self.lines: list[Line] = []

    def run_begun(self, run: RunInfo) -> None:
        """Say how much was done before."""
        self.begun = time.monotonic()
        self.engine = dict(run.conditions.get("engine") or {})  # pyrefly: ignore
        if told := run.conditions.get("data"):  # not where devices bring all data
            say(said(told), self.display.console)  # pyrefly: ignore
        if (last := run.resumed_after) is not None:
            rounds = run.knobs.rounds
            say(f"resumed: {last} of {rounds} rounds were done before", self.display.console)

    def round_done(self, line: Line) -> None:
        """Show a round."""
        self.display.round(self.job, line)
        if not line.replayed:
            self.lines.append(line)

    def account(self) -> str:
        """Return, in one line, who trained and what took how long; rounds from before left out."""
        engine, workers = self.engine.get("engine", "sequential"), self.engine.get("workers", 1)
        trained = [line["train_seconds"] for line in self.lines if line["round"]]
        prepared, evaluated = (
            self.begun - self.created,
            sum(line["eval_seconds"] for line in self.lines),
        )
        spent = f"{sum(trained):.1f} s of training"
        if len(trained) > 2 and trained[0] > 2 * statistics.median(trained[1:]):
            spent += f" ({trained[0]:.1f} s in its first round, for caches and traces)"
        why = f" ({self.engine['why']})" if self.engine.get("why") else ""
        return (
            f"engine {engine}{why}, {workers} worker{'s' if workers != 1 else ''}; "
            f"{prepared:.1f} s of preparing, {spent}, {evaluated:.1f} s of evaluating"
        )
