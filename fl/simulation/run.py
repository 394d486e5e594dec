"""A simulation from start to end: who trains the clients, and the rounds that are played."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace

import platformdirs

from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.data.own.keeping import SCHEME
from fl.reproducibility.determinism import hidden_from_gc, prepare_process
from fl.reproducibility.provenance import cores
from fl.reproducibility.temporary import remove_leftovers
from fl.server.app import OpenRun, play, prepare, replay
from fl.server.contents import Found
from fl.server.failures import EXPECTED, ClientsFailed, Failure
from fl.server.journal import Journal
from fl.server.opening import opened
from fl.server.watching.callback import Audience, Callback
from fl.simulation.engine import Choice, choose
from fl.simulation.grid import InlineGrid, SimulatedGrid
from fl.simulation.process_pool import ProcessPool
from fl.simulation.worker_pool import PoolGrid, WorkerPool
from fl.simulation.workers.clock import Clock, watched
from fl.simulation.workers.profile import Profile
from fl.training.checks.estimate import check_workers


def run(
    knobs: Experiment,
    journal: Journal,
    *,
    workers: int | None = 1,
    pool: WorkerPool | None = None,
    debug: bool = False,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    command: str = "",
    profile: Profile | None = None,
) -> dict:
    """Run an experiment on this machine and return its result; see `fl.server.app.serve`.

    Args:
        knobs: what to run.
        journal: where to write it.
        workers: processes that train its clients; 1: this one; None: as it began, and at its
            beginning as `fl.simulation.engine` thinks best. Other than 1, the program's own file
            has to be importable (``if __name__ == "__main__":``), as always with
            `multiprocessing`.
        pool: who trains its clients instead, and goes on to live.
        debug: train clients in this process, one after another, and raise the first exception of
            one as it is, so that a debugger stops where it came from.
        resume: whether an unfinished run in that folder may be gone on with, as it began.
        callbacks: are told of the run.
        command: how to repeat it, for `experiment.json`.
        profile: hears when workers are at what. With a pool on several machines it would compare
            their clocks.
    """
    prepare_process()  # before anything starts a pool of threads, which would forbid forks
    clear_cache()
    with opened(journal, knobs, resume) as found, Audience(callbacks, as_is=debug) as audience:
        if found.result:
            return replay(journal, knobs, found, audience)
        begun, recorded = _begun(found)
        if debug and begun.get("engine", "sequential") != "sequential":
            raise ConfigError(
                "--debug trains one client after another, and this run began with "
                f"engine={begun['engine']}; choose another folder"
            )
        if debug and knobs.round.deadline:
            raise ConfigError(
                f"--debug trains in this process, where round.deadline={knobs.round.deadline:g} "
                "can end no client; add --set round.deadline=0"
            )
        if debug:
            begun, workers, pool = {"engine": "sequential"}, 1, None
        asked = pool.size if pool else check_workers(workers or recorded)
        prepared = prepare(knobs, found.checkpoint is not None)
        choice = choose(replace(prepared, knobs=knobs.replace(begun)), asked)
        started_by = {
            "command": command,
            "runtime": pool.runtime if pool else "inline",
            "engine": choice.told,
        }
        this = OpenRun(prepared, journal, found, started_by)
        clock = Clock(knobs.round.deadline, str(journal.folder))
        carried_out = _grid(choice, pool, clock, debug, profile)
        with hidden_from_gc(), carried_out as grid, _kept(journal, debug):
            return play(this, grid, audience)


def clear_cache() -> None:
    """Remove what processes that were killed left in the user's cache, and nobody will finish."""
    cache = platformdirs.user_cache_path("fednf")
    for place in (cache, cache / SCHEME):
        remove_leftovers(place)


@contextmanager
def _kept(journal: Journal, debug: bool) -> Iterator[None]:
    """Keep the traceback of an exception that is not one client's in `errors/`."""
    try:
        yield
    except Exception as error:
        expected = isinstance(error, EXPECTED)
        trace = getattr(error, "trace", "") if expected else Failure.of(error).trace
        if trace and not (debug or isinstance(error, ClientsFailed)):
            with suppress(OSError, ConfigError):  # what went wrong first is what is to be told
                journal.keep_error(len(journal.rounds()), "server", trace)
        raise


def _begun(found: Found) -> tuple[dict, int | None]:
    """Return the engine with which a run began, as knobs, and its workers; it goes on with them.

    A run that began on another machine, or on a cluster, may have had more workers than there are
    cores here. Runs from before there were workers had one.
    """
    begun = found.engine
    recorded = min(begun.pop("workers", 1), cores()) if begun else None
    return begun, recorded


@contextmanager
def _grid(
    choice: Choice, pool: WorkerPool | None, clock: Clock, debug: bool, profile: Profile | None
) -> Iterator[SimulatedGrid]:
    """Give the grid on which a choice is carried out.

    With a deadline, one worker is a process of its own: what hangs in this one, nothing can end.
    """
    if pool:
        yield PoolGrid(choice, pool, clock, profile)
    elif choice.workers == 1 and not clock.deadline:
        at_once = choice.at_once if choice.knobs.engine == "vectorized" else 1
        grid = InlineGrid(choice.knobs, at_once=at_once, catch=not debug, profile=profile)
        with nullcontext() if debug else watched(grid, clock):
            yield grid
    else:
        with closing(ProcessPool(choice.workers)) as processes:
            yield PoolGrid(choice, processes, clock, profile)
