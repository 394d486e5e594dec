"""Run one contender on one job once, in its own interpreter.

As a program: ``python -m experiments.bench.repetition CONTENDER KNOBS.json ROUNDS.jsonl``.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.bench.contenders.catalogue import CONTENDERS
from experiments.bench.contenders.record import Record
from experiments.bench.processes import ProcessTree
from fl.config import Experiment

_QUIET = {
    "OMP_NUM_THREADS": "1",  # of each process; contenders that use all cores have one on each
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # not 15: else whatever else runs would starve Flower's clients
}
_CACHES = ("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR")
"""The variables that name where compiled operators, traced graphs and programs are cached."""
_LIMIT = 3600.0  # seconds; a contender that hangs must not hold up the others for ever


@dataclass(frozen=True)
class Repetition:
    """The figures of one repetition."""

    startup: float
    """Seconds from the start of the interpreter to the end of the first round."""
    seconds: float
    """Seconds from there to the end of the last."""
    rounds: int
    """Rounds in that time."""
    images: int
    """Images trained on in that time."""
    losses: tuple[float, ...]
    """Mean training loss of every round, the first among them."""
    whole: float
    """Seconds from the start of the interpreter to its end."""
    accuracies: tuple[float, ...]
    """On the test images after every round."""
    peak_bytes: int | None
    """Most memory in use by all its processes at once, shared pages counted once; None where it
    was not looked at."""

    @property
    def images_per_second(self) -> float:
        """Images per second, without the startup."""
        return self.images / self.seconds

    @property
    def seconds_per_round(self) -> float:
        """Mean seconds per round, without the startup."""
        return self.seconds / self.rounds


class Failed(RuntimeError):
    """A contender did not do the job; says why in one line."""


def repeat(
    contender: str, job: Experiment, images: Sequence[int], *, watch_memory: bool
) -> Repetition:
    """Run a contender on a job in its own processes, and end all of them afterwards.

    Args:
        contender: a row of the table.
        job: what to do.
        images: that each round has to train on.
        watch_memory: whether to look at its memory all the while, which takes time from it.

    Raises:
        Failed: it did not, or not with all images.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record, errors = Record(folder / "rounds.jsonl"), folder / "errors.txt"
        (folder / "knobs.json").write_text(json.dumps(job.to_flat()))
        tree = ProcessTree(str(uuid.uuid4()))
        environment = {**os.environ, **environment_of(contender, folder), **tree.mark}
        words = ["-m", __name__, contender, str(folder / "knobs.json"), str(record.path)]
        begun = time.monotonic()
        with errors.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *words], env=environment, stdout=file, stderr=file
            )
        try:
            peak = tree.peak(process, _LIMIT) if watch_memory else None
            status = process.wait(_LIMIT)
            ended = time.monotonic()
        except subprocess.TimeoutExpired:
            raise Failed(f"not finished after {_LIMIT:.0f} s") from None
        finally:
            tree.end(process)
        if status:
            raise Failed(_reason(errors.read_text(errors="replace"), status))
        return summarize((begun, ended), record.lines(), images, peak)


def environment_of(contender: str, folder: Path) -> dict[str, str]:
    """Return what a contender's environment has of its own; a cold one's caches are in a folder."""
    caches = {}
    if CONTENDERS[contender].cold:
        caches = dict.fromkeys(_CACHES, str(folder / "cache"))
    return {**_QUIET, "FLWR_HOME": str(folder), **caches}


def summarize(
    lived: tuple[float, float], lines: list[dict], images: Sequence[int], peak: int | None
) -> Repetition:
    """Summarize the lines of a record, of an interpreter that lived from one time to another."""
    if len(lines) != len(images):
        raise Failed(f"it finished {len(lines)} rounds of {len(images)}")
    for line, due in zip(lines, images, strict=True):
        if line["images"] != due:
            raise Failed(f"it trained on {line['images']} images in a round that has {due}")
    return Repetition(
        startup=lines[0]["at"] - lived[0],
        seconds=lines[-1]["at"] - lines[0]["at"],
        rounds=len(images) - 1,
        images=sum(images[1:]),
        losses=tuple(line["loss"] for line in lines),
        whole=lived[1] - lived[0],
        accuracies=tuple(line["accuracy"] for line in lines),
        peak_bytes=peak,
    )


def _reason(errors: str, status: int) -> str:
    """Return the last line that is not blank, which in a traceback is the exception."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return f"{lines[-1] if lines else 'no message'} (exit status {status})"


if __name__ == "__main__":
    name, knobs, rounds = sys.argv[1:]
    flat = json.loads(Path(knobs).read_text())
    CONTENDERS[name].run(Experiment.from_flat(flat), Record(Path(rounds)))
