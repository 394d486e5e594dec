"""A simulation from start to end: who trains the clients, and the rounds that are played."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from fl.client.app import app as client_app
from fl.config import Experiment
from fl.reproducibility.determinism import settle, unwatched
from fl.reproducibility.provenance import cores
from fl.server import app as server
from fl.server.journal import Journal
from fl.simulation import engine
from fl.simulation.grid import InlineGrid, SimulatedGrid
from fl.simulation.process_pool import Processes
from fl.simulation.worker_pool import Team, TeamGrid


def run(
    knobs: Experiment,
    journal: Journal,
    *,
    workers: int | None = 1,
    team: Team | None = None,
    resume: bool = False,
    watch: server.Watch = lambda line: None,
    command: str = "",
) -> dict:
    """Run an experiment on this machine and return its result; see `fl.server.app.serve`.

    Args:
        knobs: what to run.
        journal: where to write it.
        workers: processes that train its clients; 1: this one; None: as it began, and at its
            beginning as `fl.simulation.engine` thinks best. Other than 1, the program's own file
            has to be importable (``if __name__ == "__main__":``), as always with `multiprocessing`.
        team: who trains its clients instead, and goes on to live.
        resume: whether an unfinished run in that folder may be gone on with, as it began.
        watch: called after every round.
        command: how to repeat it, for `experiment.json`.
    """
    settle()  # before anything starts a pool of threads, which would forbid forks
    journal.check(knobs, resume)
    begun, finished = journal.engine(), journal.result()
    # Of another machine, maybe, or of a cluster; runs from before there were workers had none.
    recorded = min(begun.pop("workers", 1), cores()) if begun else None
    # A run goes on as it began, and a finished one needs no engine.
    settled = knobs.replace({**begun, "engine": "sequential"} if finished else begun)
    asked = team.size if team else workers or recorded
    choice = engine.choose(settled, 1 if finished else asked)
    started_by = {
        "command": command,
        "runtime": team.runtime if team else "inline",
        "engine": choice.told,
    }
    with unwatched(), _grid(choice, team) as grid:
        return server.serve(grid, knobs, journal, resume=resume, watch=watch, started_by=started_by)


@contextmanager
def _grid(choice: engine.Choice, team: Team | None) -> Iterator[SimulatedGrid]:
    if team:
        yield TeamGrid(choice, team)
    elif choice.workers == 1:
        cohort = choice.at_once if choice.knobs.engine == "cohort" else 1
        yield InlineGrid(client_app, choice.knobs, cohort)
    else:
        with closing(Processes(choice.workers)) as processes:
            yield TeamGrid(choice, processes)
