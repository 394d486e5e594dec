"""How many files of ours one steady round runs through: a reader has to open no more than those."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fl
from fl.config.parsing import to_toml

ROOT = Path(fl.__file__).parent.parent
LAYERS = "fl/nn/"
"""The network's own layers do not count: a reader of the round does not open them."""

PROGRAM = """
import mmap, os, sys
from pathlib import Path
from fl.config import Experiment
from fl.config.parsing import read_toml
from fl.server.journal import Journal
from fl.simulation import run

root, folder, workers = sys.argv[1:]
rooms = tuple(f"{root}/{room}/" for room in ("fl", "strategies", "partitions", "experiments"))
under_way = mmap.mmap(-1, 1)  # the round, shared with workers, which are forks of this process
log = os.open(f"{folder}/files", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
seen = set()

def note(frame, event, argument):
    file = frame.f_code.co_filename
    if event == "call" and file.startswith(rooms) and (under_way[0], file) not in seen:
        seen.add((under_way[0], file))
        os.write(log, f"{under_way[0]} {os.getpid()} {file[len(root) + 1:]}\\n".encode())

class Noting(Journal):
    # Not a callback: the simplest round has none.
    def commit(self, line, *rest):
        super().commit(line, *rest)
        under_way[0] = line["round"] + 1

sys.setprofile(note)
knobs = Experiment.from_flat(read_toml(Path(folder) / "knobs.toml"))
run(knobs, Noting(Path(folder) / "run"), workers=int(workers))
"""


def files_of_a_round(knobs, folder: Path, workers: int) -> tuple[set[str], int]:
    """Return our files of which a function runs in a steady round, and in how many processes.

    A worker prepares itself in the first round in which it is given work, which on a busy machine
    is a late one. So the steady round is the one with the fewest files, from the third one on.
    """
    (folder / "knobs.toml").write_text(to_toml(knobs.to_flat()))
    words = [sys.executable, "-c", PROGRAM, str(ROOT), str(folder), str(workers)]
    # Threads of NumPy's, which no fork survives, would make workers fresh interpreters.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run(words, cwd=ROOT, env=environment, check=True)
    noted = [line.split(" ", 2) for line in (folder / "files").read_text().splitlines()]
    rounds: dict[int, set[str]] = {number: set() for number in range(3, knobs.rounds)}
    for number, _, file in noted:
        if int(number) in rounds and not file.startswith(LAYERS):
            rounds[int(number)].add(file)
    processes = {process for number, process, _ in noted if int(number) in rounds}
    return min(rounds.values(), key=len), len(processes)


@pytest.mark.parametrize(
    ("strategy", "most"),
    [("fedavg", 19), pytest.param("fedprox", 20, marks=pytest.mark.slow)],
)
def test_the_simplest_round_runs_through_19_files(tiny, tmp_path, strategy, most):
    knobs = tiny({"rounds": 4, "engine": "sequential", "strategy.kind": strategy})
    files, processes = files_of_a_round(knobs, tmp_path, workers=1)
    assert len(files) <= most, "\n".join(sorted(files))
    assert {"fl/server/rounds.py", "fl/client/task.py", "fl/training/step.py"} < files
    assert {file for file in files if file.startswith("fl/tasks/")} == {"fl/tasks/metrics.py"}
    assert processes == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="workers are forks on Linux only")
def test_a_round_with_processes_and_lanes_runs_through_32_files(tiny, tmp_path):
    flat = {"rounds": 8, "engine": "vectorized", "vectorized.lanes": 2}
    flat |= {"vectorized.level": "traced", "sampling.clients": 5, "client.batch-size": 8}
    files, processes = files_of_a_round(tiny(flat), tmp_path, workers=2)
    assert len(files) <= 32, "\n".join(sorted(files))
    assert {"fl/vectorized/scheduler.py", "fl/simulation/worker_pool.py"} < files
    assert processes == 3
