"""What a run's folder holds: the names, the state after a round, and lines, checked when read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fl.config.parsing import ConfigError
from fl.reproducibility.checking import Damaged, Line, parsed, read_chain
from fl.reproducibility.errors import in_words
from fl.reproducibility.files import NOTHING, Mark
from strategies.arrays import Arrays

EXPERIMENT, ROUNDS = "experiment.json", "rounds.jsonl"
CLIENTS, SIGNALS = "clients.jsonl", "signals.jsonl"
COMMON, OWN = "common", "own"
"""In which batch a line of signals says a network was measured: in one that is the same for all, or
in its client's."""
CHECKPOINT, MODEL, RESULT = "checkpoint.safetensors", "model.safetensors", "result.json"
BEST = "best.safetensors"
ERRORS, COMPONENTS = "errors", "components"
FIXED = ("data_sha256", "deal_sha256")
"""Conditions under which alone a run may go on."""
CODE = ("code_sha256", "packages")
"""Conditions whose change is written down."""
ABOUT = "fednf"
"""The key in a network's metadata under which there is what using it takes, as JSON."""
RIGHT = "test_right"
"""The key of a round's bits, one a test example: whether it was answered rightly."""
RUN = "run"
"""The key under which a file says whose it is."""
LINES = (ROUNDS, CLIENTS, SIGNALS)
"""Files of lines."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after a round: all that the next round depends on."""

    round: int
    """Rounds that are finished; the sampler's position, since it draws by the round's number."""
    model: Arrays
    clients: Mapping[int, int] = field(default_factory=dict)
    """Partition id -> the round in which that client's saved state was written."""
    strategy: Arrays = field(default_factory=dict)
    """What the strategy remembers on the server."""
    covers: Mapping[str, Mark] = field(default_factory=dict)
    """How far each file of lines went; empty where an earlier version wrote it."""


@dataclass(frozen=True)
class Found:
    """What a folder holds of a run."""

    header: dict = field(default_factory=dict)
    """`experiment.json`; empty before it is written."""
    checkpoint: Checkpoint | None = None
    """Of a run that is begun and not finished."""
    result: dict | None = None
    """Of a finished run that is not to go on."""

    @property
    def engine(self) -> dict:
        """What was chosen of engine and workers at the run's beginning; nothing before."""
        told = self.header.get("engine", {})
        return {key: value for key, value in told.items() if key != "why"}


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file leads to into one line that names it."""
    try:
        yield
    except ConfigError:  # which names another file
        raise
    except Exception as error:
        what = str(error) if isinstance(error, Damaged) else in_words(error)
        raise ConfigError(f"{path} is damaged: {what}; choose another folder") from None


def covered(header: Mapping) -> dict[str, Mark]:
    """Return how far a checkpoint or a result says that each file of lines goes.

    Where an earlier version wrote it, it says nothing.
    """
    said = {name: Mark(int(n), str(link)) for name, (n, link) in header.get("covers", {}).items()}
    return {**dict.fromkeys(LINES, NOTHING), **said} if said else {}


def read_permanent(path: Path, run: str, end: Mark | None) -> list[dict]:
    """Return the lines of a file that are permanent; where that is not known, all.

    Args:
        path: of the file.
        run: whose it is; empty where an earlier version began it.
        end: how far it has to go.

    Raises:
        ConfigError: a line is not as it was written, not in its place, or gone.
    """
    with readable(path):
        return _parsed(_chain(path, run, end), run)


def permanent(folder: Path, run: str, checkpoint: Checkpoint) -> dict[str, list[Line]]:
    """Return the lines that a checkpoint covers, of each file, as they are there.

    Raises:
        ConfigError: a line is not as it was written, not in its place, or gone.
    """
    kept, last = dict[str, list[Line]](), checkpoint.round
    for name in LINES:
        with readable(folder / name):
            chain = _chain(folder / name, run, checkpoint.covers.get(name))
            numbers = [line["round"] for line in _parsed(chain, run)]
            kept[name] = [line for line, n in zip(chain, numbers, strict=True) if n <= last]
            if name == ROUNDS and [n for n in numbers if n <= last] != list(range(last + 1)):
                raise Damaged(f"it lacks rounds that the checkpoint, of round {last}, covers")
    return kept


def _chain(path: Path, run: str, end: Mark | None) -> list[Line]:
    chain = read_chain(path, run, linked=bool(run), most=end.lines if end else None)
    if end and len(chain) < end.lines:
        raise Damaged(f"it ends before line {len(chain) + 1}, and had {end.lines}")
    if end and chain and chain[-1].link != end.link:
        raise Damaged(f"line {len(chain)} is not the last one that the run wrote")
    return chain


def _parsed(chain: list[Line], run: str) -> list[dict]:
    """Return what is in lines; where they have no links, what can be told without is checked.

    Raises:
        Damaged: a line is not JSON, has no round or that of an earlier line, or lacks what the
            first one has.
    """
    found, first, before = list[dict](), set[str](), 0
    for number, line in enumerate(chain, 1):
        told = parsed(number, line)
        if type(told.get("round")) is not int or told["round"] < before:
            raise Damaged(f"line {number} has no round that could follow")
        first = first if found or run else set(told)
        if "asked" in first and (gone := first - told.keys()):  # a line of rounds.jsonl
            raise Damaged(f"line {number} has no {min(gone)}, which line 1 has")
        before = told["round"]
        found.append(told)
    return found


def check_run(told: dict[str, Any], run: str) -> dict[str, Any]:
    """Return what a file tells of itself, if that is of a run.

    Raises:
        Damaged: it is of another run.
    """
    if run and told.get(RUN) != run:
        raise Damaged(f"it is of another run than {EXPERIMENT} beside it")
    return told


def check_checkpoint(folder: Path, run: str) -> None:
    """Refuse a run without its checkpoint, which would begin anew.

    A process that died in round 0 leaves no checkpoint, and lines of that round at most.

    Raises:
        ConfigError: the checkpoint is gone.
    """
    signs = [name for name in (RESULT, MODEL, BEST, CLIENTS) if _has_bytes(folder / name)]
    if not signs and _has_bytes(folder / ROUNDS):
        kept = read_permanent(folder / ROUNDS, run, None)
        signs = [ROUNDS] if kept and kept[-1]["round"] else []
    if signs and not (folder / CHECKPOINT).exists():  # in this order: others may be writing
        raise ConfigError(
            f"{folder} has {signs[0]} of a run that was under way, and its {CHECKPOINT} is gone; "
            "put it back, or begin anew in another folder (--out DIR; of a study, --fresh)"
        )


def _has_bytes(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0
