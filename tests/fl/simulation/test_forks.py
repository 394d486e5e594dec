"""Workers that are forks. Pytest's own process can't fork, so a process of its own does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fl.config import Experiment
from fl.server.journal import Journal
from fl.simulation import run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are used on Linux only")
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"},
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
}
KNOBS = {
    "network.depth": 3,
    "network.width": 4,
    "partition.kind": "iid",
    "partition.clients": 100,
    "sampling.clients": 4,
    "client.batch-size": 4,
    "engine": "sequential",
    "rounds": 12,
}
SET = [word for key, value in KNOBS.items() for word in ("--set", f"{key}={value}")]


def printed(code: str) -> list[str]:
    """Return the lines that a program prints."""
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stderr
    return done.stdout.splitlines()


def begin(folder: Path, *more: str) -> subprocess.Popen:
    words = [sys.executable, "-m", "experiments", "run", *SET, "--workers", "2"]
    return subprocess.Popen(
        [*words, "--out", str(folder), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
    )


def children(process: subprocess.Popen) -> dict[int, bytes]:
    """Return the command lines of a process's children."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in found}


def workers(process: subprocess.Popen, folder: Path, lines: int) -> list[int]:
    """Wait for so many rounds, and return the forks, which have their parent's command line."""
    path, deadline = folder / "rounds.jsonl", time.monotonic() + 60
    while not (path.exists() and path.read_bytes().count(b"\n") >= lines):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    own = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    return [child for child, words in children(process).items() if words == own]


@pytest.mark.slow
def test_a_run_on_forks_that_is_killed_and_resumed_has_the_same_model(tmp_path):
    """First a worker is killed and replaced, then the parent; its folder is free at once."""
    folder, whole = tmp_path / "run", run(Experiment.from_flat(KNOBS), Journal(tmp_path / "one"))
    process = begin(folder)
    first = workers(process, folder, 3)
    assert len(first) == 2
    os.kill(first[0], signal.SIGKILL)
    begun = len(Journal(folder).rounds())
    second = workers(process, folder, begun + 3)
    assert len(second) == 2
    assert first[0] not in second
    process.kill()
    process.communicate(timeout=60)  # ends only when its workers have closed their end, too
    out, _ = begin(folder, "--resume", "--json").communicate(timeout=60)
    assert json.loads(out.splitlines()[-1])["model_sha256"] == whole["model_sha256"]
    assert not any(Path(f"/proc/{worker}").exists() for worker in second)


@pytest.mark.slow
def test_ctrl_c_is_handled_by_the_parent_which_ends_all(tmp_path):
    # So many weights that PyTorch would begin to use a pool of threads.
    process = begin(tmp_path / "run", "--set", "network.width=64")
    forks = workers(process, tmp_path / "run", 2)
    assert len(forks) == 2
    for pid in (*forks, process.pid):  # as a terminal sends it
        os.kill(pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in out
    assert not any(Path(f"/proc/{fork}").exists() for fork in forks)


@pytest.mark.slow
def test_a_process_with_foreign_threads_or_a_gpu_is_not_forked():
    code = """
import threading, time, torch
from fl.reproducibility.determinism import can_fork
print("nothing", can_fork())
threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
print("a thread of Python's", can_fork())
known, torch.cuda.is_initialized = torch.cuda.is_initialized, lambda: True
print("a GPU", can_fork())
torch.cuda.is_initialized = known
torch.set_num_threads(2)
torch.ones(999, 999) @ torch.ones(999, 999)
print("a pool of threads", can_fork())
"""
    assert printed(code) == [
        "nothing True",
        "a thread of Python's True",
        "a GPU False",
        "a pool of threads False",
    ]


def test_a_lock_does_not_outlive_its_owner_in_forks(tmp_path):
    code = f"""
import os, time
from pathlib import Path
from fl.reproducibility.locks import locked
folder = Path({str(tmp_path)!r})
heard, tell = os.pipe()
with locked(folder):
    child = os.fork()
    if not child:
        os.write(tell, b"!")
        time.sleep(60)
        os._exit(0)
    os.read(heard, 1)
with locked(folder):
    print("free")
os.kill(child, 9)
"""
    assert printed(code) == ["free"]


def test_a_fork_may_leave_the_lock_of_its_parent_by_an_error(tmp_path):
    code = f"""
import os
from pathlib import Path
from fl.reproducibility.locks import locked
try:
    with locked(Path({str(tmp_path)!r})):
        if not os.fork():
            raise ValueError("its own")
        os.wait()
except ValueError as error:
    print(error)
"""
    assert printed(code) == ["its own"]
