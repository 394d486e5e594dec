"""What a person sees while runs are under way: bars in a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from experiments.cli.terminal import say
from experiments.studies.workers import Job


class Display:
    """Shows the rounds of jobs as they finish.

    In a terminal: one bar over all rounds, and one bar per run that is under way. Elsewhere, or
    when quiet: a line per finished run, and for a single run a line per round.
    """

    def __init__(self, jobs: Sequence[Job], console: Console, quiet: bool) -> None:
        self.console, self.single = console, len(jobs) == 1
        self.bars = console.is_terminal and not quiet
        self.rounds = sum(job.experiment.rounds for job in jobs)
        self.done = 0
        self.finished, self.jobs = 0, len(jobs)
        self.tasks: dict[str, TaskID] = {}
        self.begun: dict[str, float] = {}
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self.bars,
        )

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bars while the block runs."""
        with self.progress:
            self.total = self.progress.add_task("rounds", total=self.rounds, figures="")
            yield

    def round(self, job: Job, line: dict) -> None:
        """Take note of a finished round."""
        number, last = line["round"], job.experiment.rounds
        self.begun.setdefault(job.name, time.monotonic())
        figures = f"accuracy {line['test_accuracy']:.3f}"
        if line["train_seconds"]:
            figures += f", {line['images'] / line['train_seconds']:,.0f} images/s"
        if line["refused"]:
            first = line["refused"][0]
            reason = " ".join(first["reason"].split())
            say(
                f"{job.name}, round {number}: {len(line['refused'])} of {line['asked']} replies "
                f"refused; client {first['partition']}: {reason}",
                self.console,
            )
        if number:
            self.progress.advance(self.total)
        self._bar(job, number, figures)
        if number == last:
            self.finished += 1
        if self.bars or not (self.single or number == last):
            return
        prefix = "" if self.single else f"[{self.finished}/{self.jobs}] {job.name}, "
        seconds = time.monotonic() - self.begun[job.name]
        say(f"{prefix}round {number}/{last}: {figures}, {seconds:.0f} s", self.console)

    def _bar(self, job: Job, number: int, figures: str) -> None:
        """Show, move or remove a run's bar."""
        if self.single:
            self.progress.update(self.total, description=job.name, figures=figures)
            return
        if job.name not in self.tasks:
            self.tasks[job.name] = self.progress.add_task(
                job.name, total=job.experiment.rounds, figures=figures
            )
        task = self.tasks[job.name]
        self.progress.update(task, completed=number, figures=figures)
        if number == job.experiment.rounds:
            self.progress.update(task, visible=False)
