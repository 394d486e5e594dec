"""TensorBoard: event files that `tensorboard --logdir` draws."""

from pathlib import Path

from experiments.trackers.figures import figures, shortened
from fl.server.watching.callback import Callback, Line, RunInfo

_SUFFIX = ".fednf"


class TensorBoard(Callback):
    """Writes the figures of every round as scalars, and the knobs as a table of text.

    A resumed run goes on in its folder, and logs only what is not there yet.

    Args:
        folder: each run gets a folder in it. Default: `tensorboard/` in the run's own folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._there: set[tuple[str, int]] = set()

    def run_begun(self, run: RunInfo) -> None:
        """Open the run's event file."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self._place(run)
        if run.resumed_after is None:
            for path in _files(folder):  # of a former run of that name, whose folder is gone
                path.unlink()
        self._there = {entry for path in _files(folder) for entry in _logged(path)}
        self._writer = SummaryWriter(str(folder), filename_suffix=_SUFFIX)
        if not self._there:
            rows = [f"| {key} | {value} |" for key, value in shortened(run.knobs.to_flat()).items()]
            self._writer.add_text("knobs", "\n".join(["| knob | value |", "|---|---|", *rows]), 0)

    def round_done(self, line: Line) -> None:
        """Log a round."""
        for name, value in figures(line).items():
            if (name, line["round"]) not in self._there:
                self._writer.add_scalar(name, value, line["round"])
        self._writer.flush()

    def run_ended(self, result: object) -> None:
        """Close the event file."""
        self._writer.close()

    def run_stopped(self, reason: str) -> None:
        """Close the event file."""
        self._writer.close()

    def _place(self, run: RunInfo) -> Path:
        if self._folder is None:
            return run.folder / "tensorboard"
        return self._folder / f"{run.folder.name}_{run.knobs.identity[:8]}"


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"events.out.tfevents.*{_SUFFIX}"))


def _logged(path: Path) -> set[tuple[str, int]]:
    """Return (name, round) of what an event file holds, up to where a killed process cut it."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    events = LegacyEventFileLoader(str(path)).Load()
    return {(value.tag, event.step) for event in events for value in event.summary.value}
