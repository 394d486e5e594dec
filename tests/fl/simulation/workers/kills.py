"""A program that kills commands at random moments, repeats them, and looks at what is left.

It imports all of fednf once. Each command is a fork of it, in a process group of its own, which
runs the command line as `fednf` does. Usage: ``kills.py FOLDER SEED RUNS STUDIES``. What is killed
and when is a function of the seed. It prints a line of JSON per case, and a last one that counts.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import experiments.report
from experiments.cli import main as command_line
from fl.reproducibility.determinism import prepare_process
from fl.reproducibility.seeds import stream
from fl.server.journal import Journal
from tests.smallest import MOMENTUM

ROUNDS = 6
BASE = {
    "network.kind": "ffnn",
    "network.depth": 3,
    "network.width": 64,  # 200 kB: replies pass through shared memory
    "partition.kind": "iid",
    "partition.clients": 100,
    "sampling.clients": 3,
    "client.batch-size": 32,
    "engine": "sequential",
    "rounds": ROUNDS,
}
STUDY = """
import fl

BASE = fl.Experiment.from_flat({base!r} | {{"rounds": 3}})
STUDY = fl.Study("mine", "Why?", fl.grid(BASE, fl.each("recipe", ["none", "zc-swish"]),
                                         fl.each("seed", [1, 2])))
"""


def kinds(root: Path) -> dict[str, list[str]]:
    """Return the commands that are killed, without their folder."""
    (root / "mine.py").write_text(MOMENTUM)
    (root / "study.py").write_text(STUDY.format(base=BASE))
    changes: dict[str, dict] = {
        "plain": {"recipe": "zc-swish"},
        "client-state": {"recipe": "batchnorm", "state.bn": "local"},
        "strategy-state": {"recipe": "none", "strategy.kind": f"{root / 'mine.py'}:Momentum"},
        "signals": {"recipe": "none", "signals.every": 2, "data.validation": 0.01},
    }
    found = {}
    for name, change in changes.items():
        knobs = [x for k, v in {**BASE, **change}.items() for x in ("--set", f"{k}={v}")]
        for workers in (1, 2):
            found[f"{name}-{workers}"] = ["run", "--resume", "--workers", str(workers), *knobs]
    return {**found, "study": ["study", str(root / "study.py"), "--jobs", "2"]}


def begin(words: list[str], out: Path) -> int:
    """Start a command as a fork in a process group of its own; returns its process id."""
    if process := os.fork():
        with contextlib.suppress(PermissionError):
            os.setpgid(process, process)
        return process
    os.setpgid(0, 0)
    log = os.open(out.with_suffix(".log"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["fednf", *words, "--out", str(out), "--quiet"]
    status = 1
    try:
        command_line.main()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(status)


def done(process: int, out: Path) -> None:
    """Wait for a command to end well."""
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status == 0, (status, out.with_suffix(".log").read_text()[-2000:])


def parts(out: Path) -> list[str]:
    """Return temporary files and folders below a folder."""
    return [str(p.relative_to(out)) for p in out.rglob(".*") if p.suffix == ".part"] + [
        str(p.relative_to(out)) for p in out.rglob(".fednf-*")
    ]


def at_time(out: Path, rng, seconds: float) -> Callable[[], bool]:
    """Return a moment: somewhere in the time that the command takes."""
    moment = time.monotonic() + rng.uniform(0, seconds)
    return lambda: time.monotonic() >= moment


def at_line(out: Path, rng, seconds: float) -> Callable[[], bool]:
    """Return a moment: a round's line is on the disk, its checkpoint perhaps not."""
    lines = int(rng.integers(1, ROUNDS + 1))

    def there() -> bool:
        files = [out / "rounds.jsonl", *out.glob("*/rounds.jsonl")]
        return sum(f.read_bytes().count(b"\n") for f in files if f.exists()) >= lines

    return there


def at_write(out: Path, rng, seconds: float) -> Callable[[], bool]:
    """Return a moment: a file is being written, mostly a checkpoint."""
    name = str(rng.choice(["checkpoint", "checkpoint", "checkpoint", "best", "model", ""]))
    begun, folders = time.monotonic() + rng.uniform(0, 0.7 * seconds), [out]

    def there() -> bool:
        if time.monotonic() < begun:
            return False
        folders[:] = [out, *(p for p in out.glob("*") if p.is_dir())] if out.exists() else []
        for folder in folders:
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as there:
                if any(e.name.startswith(f".{name}") and e.name.endswith("part") for e in there):
                    return True
        return False

    return there


MOMENTS = {"time": at_time, "line": at_line, "write": at_write}


def members(group: int) -> list[int]:
    """Return the living processes of a group."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, of = (place / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state != "Z":
                found.append(int(place.name))
    return found


def orphans() -> set[str]:
    """Return what is in /dev/shm and no living process has mapped."""
    mapped = set()
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            lines = (place / "maps").read_text().splitlines()
            mapped |= {line.rpartition("/dev/shm/")[2] for line in lines if "/dev/shm/" in line}
    return set(os.listdir("/dev/shm")) - mapped


def hashes(out: Path) -> dict[str, str]:
    """Return the hash of every finished run."""
    results = [out / "result.json", *sorted(out.glob("*/result.json"))]
    found = {p.parent.name: json.loads(p.read_text()) for p in results if p.exists()}
    return {"" if n == out.name else n: result["model_sha256"] for n, result in found.items()}


def check(out: Path, cache: Path, expected: dict[str, str], before: set[str]) -> None:
    """Look at a folder whose command has ended well."""
    assert hashes(out) == expected, out
    assert not (left := parts(out) + parts(cache)), left
    assert not (left := orphans() - before), left
    for header in (out / "experiment.json", *out.glob("*/experiment.json")):
        if header.exists():
            journal = Journal(header.parent)
            rounds = [line["round"] for line in journal.rounds()]
            assert rounds == list(range(journal.result()["rounds"] + 1)), header
            asked = Counter(line["round"] for line in journal.clients())
            assert set(asked.values()) == {3}, header
            assert sorted(asked) == rounds[1:], header


class Killer:
    """Kills commands below a folder, and checks each that was gone on with.

    Args:
        root: the folder.
        seed: of the moments.
    """

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.seed, self.cache = root, seed, root / "cache"
        os.environ["XDG_CACHE_HOME"] = str(self.cache)
        self.commands, self.counts = kinds(root), Counter[str]()
        self.expected: dict[str, tuple[dict[str, str], float]] = {}
        self.before = orphans()

    def undisturbed(self, kind: str) -> tuple[dict[str, str], float]:
        """Return what a command comes to that nobody kills, and its seconds."""
        if kind not in self.expected:
            out, begun = self.root / f"undisturbed-{kind}", time.monotonic()
            done(begin(self.commands[kind], out), out)
            self.expected[kind] = hashes(out), time.monotonic() - begun
        return self.expected[kind]

    def case(self, number: int, study: bool) -> None:
        """Kill a command once or more, go on to its end, and check it."""
        rng = stream(self.seed, "study" if study else "run", number)
        names = [name for name in self.commands if (name == "study") == study]
        kind, out = str(rng.choice(names)), self.root / f"{'s' if study else 'r'}{number}"
        expected, seconds = self.undisturbed(kind)
        deaths = [self.kill(kind, out, rng, seconds) for _ in range(int(rng.integers(1, 4)))]
        done(begin(self.commands[kind], out), out)
        check(out, self.cache, expected, self.before)
        say({"case": number, "kind": kind, "deaths": deaths})
        self.counts["studies" if study else "runs"] += 1
        shutil.rmtree(out, ignore_errors=True)

    def kill(self, kind: str, out: Path, rng, seconds: float) -> str:
        """Begin a command, and kill it and perhaps its group; returns when and where."""
        moment, group = str(rng.choice(list(MOMENTS))), bool(rng.integers(2))
        process = begin(self.commands[kind], out)
        due, status = MOMENTS[moment](out, rng, seconds), None
        while not due() and status is None:
            if os.waitpid(process, os.WNOHANG)[0]:
                status = 0
            time.sleep(0.0002)
        if status is not None:
            self.counts["ended before"] += 1
            return f"{moment}: ended before"
        (os.killpg if group else os.kill)(process, signal.SIGKILL)
        os.waitpid(process, 0)
        deadline = time.monotonic() + 20
        while members(process) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert not members(process), f"{kind}: processes outlive it"
        left = parts(out) if out.exists() else []
        self.counts["kills"] += 1
        self.counts["kills of a group"] += group
        self.counts["kills inside a write"] += bool(left)
        self.counts["kills inside a checkpoint's write"] += any("checkpoint" in x for x in left)
        self.counts["kills before the first file"] += not (out / "experiment.json").exists()
        return f"{moment}{', group' * group}{f', inside {left[0]}' if left else ''}"


def say(line: dict) -> None:
    """Print a line of JSON."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(root: Path, seed: int, runs: int, studies: int) -> None:
    """Kill so many runs and studies."""
    prepare_process()
    assert experiments.report is not None  # imported once, for the reports of studies
    killer, begun = Killer(root, seed), time.monotonic()
    for number in range(runs):
        killer.case(number, study=False)
    for number in range(studies):
        killer.case(number, study=True)
    say({**killer.counts, "seconds": round(time.monotonic() - begun)})


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
