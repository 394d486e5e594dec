"""Rot in a run's folder is told, or changes nothing: bits, ends of files, lines, whole files.

CI flips and cuts at few places and mutates few folders, and the slow tests do at more.
`FEDNF_FULL=1` flips every 37th byte, cuts every file at 50 places, and mutates 500 folders.
"""

import json
import os
import random
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

import fl
from experiments.report.results import read
from experiments.verify import verify
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.server.journal import BEST, Journal, model_sha256
from fl.server.result import load_model
from fl.simulation import run

FULL = bool(os.environ.get("FEDNF_FULL"))
SIZES = (
    [(37, 50, 500)] if FULL else [(3989, 1, 2), pytest.param((499, 4, 12), marks=pytest.mark.slow)]
)
"""Bytes from one flipped bit to the next, a prime in CI; cuts of a file; mutated folders."""
KNOBS = {
    "device": "cpu",
    "engine": "sequential",
    "recipe": "batchnorm",
    "state.bn": "local",
    "signals.every": 1,
    "network.depth": 3,
    "network.width": 4,
    "partition.clients": 4,
    "sampling.clients": 2,
    "client.batch-size": 64,
    "rounds": 3,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Make a finished run, one that stopped a round before its end, and another finished one."""
    root = tmp_path_factory.mktemp("runs")

    class Stop(fl.Callback):
        def round_done(self, line):
            if line["round"] == 2:
                raise KeyboardInterrupt

    knobs = Experiment.from_flat(KNOBS)
    run(knobs, Journal(root / "finished"))
    with pytest.raises(KeyboardInterrupt):
        run(knobs, Journal(root / "stopped"), callbacks=[Stop()])
    run(knobs.replace({"seed": 2}), Journal(root / "other"))
    np.save(root / "one.npy", np.zeros((1, 1, 28, 28), np.uint8))
    return root


def read_all(folder: Path) -> list:
    """Read a folder by all that Python offers; a stopped run is gone on with first.

    Times are left out of what a resumed run came to.
    """
    journal = Journal(folder)
    if not (folder / "result.json").exists():
        result = run(Experiment.from_flat(journal.header()["knobs"]), journal, resume=True)
        best = model_sha256(journal.network(BEST)[0])
        lines = [(x["round"], x["test_accuracy"], x["test_loss"]) for x in journal.rounds()]
        clients = [(x["round"], x["partition"], x["loss"]) for x in journal.clients()]
        return [result["model_sha256"], best, lines, clients, journal.signals()]
    rows = fl.results(folder)
    for row in (lines := [*rows, *rows.rounds(), *rows.clients()]):
        row.pop("folder")
    report = read(folder)
    figures = [(cell.final, cell.best, cell.best_rounds) for cell in report.cells.values()]
    networks = [load_model(folder, which).network.state_dict() for which in ("last", "best")]
    hashes = [model_sha256({k: v.numpy() for k, v in net.items()}) for net in networks]
    return [lines, figures, hashes, journal.signals()]


@pytest.fixture(scope="module")
def undisturbed(runs):
    copies = {name: shutil.copytree(runs / name, runs / f"{name}-read") for name in WHICH}
    return {name: read_all(folder) for name, folder in copies.items()}


WHICH = ("finished", "stopped")


def outcome(folder: Path) -> list | str:
    """Return what a folder comes to, or why it is refused."""
    try:
        return read_all(folder)
    except ConfigError as error:
        return str(error)


class Folder:
    """A copy of a run's folder, of which one file after another is damaged."""

    def __init__(self, kept: Path, place: Path, wanted: list) -> None:
        self.kept, self.place, self.wanted = kept, place, wanted
        shutil.copytree(kept, place)
        self.files = sorted(path for path in place.rglob("*") if path.is_file())

    def check(self, path: Path, content: bytes | None) -> None:
        """Check that a file with another content is told, and that `verify` finds it."""
        whole, name = path.read_bytes(), path.relative_to(self.place).as_posix()
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        found = [finding.said for finding in verify(self.place) if finding.state == "damaged"]
        assert any(name in said for said in found), f"{name}: verify finds {found}"
        got = outcome(self.place)
        told = isinstance(got, str) and name in got and "\n" not in got
        assert told or got == self.wanted, f"{name}: another outcome, and not a word: {got}"
        if (self.place / "result.json").exists() != (self.kept / "result.json").exists():
            shutil.rmtree(self.place)  # the stopped run has come to its end
            shutil.copytree(self.kept, self.place)
        path.write_bytes(whole)


@pytest.fixture(params=WHICH)
def folder(request, runs, undisturbed, tmp_path):
    return Folder(runs / request.param, tmp_path / "run", undisturbed[request.param])


@pytest.fixture(params=SIZES, ids=str)
def sizes(request):
    return request.param


def test_no_flipped_bit_changes_an_outcome_in_silence(folder, sizes):
    place, (stride, _, _) = 0, sizes
    for path in folder.files:
        whole = path.read_bytes()
        for at in range(place % len(whole), len(whole), stride):
            flipped = bytes([whole[at] ^ 1 << at % 8])
            folder.check(path, whole[:at] + flipped + whole[at + 1 :])
        place += stride - len(whole) % stride  # on through all files


def test_no_file_that_is_cut_or_gone_changes_an_outcome_in_silence(folder, sizes):
    _, cuts, _ = sizes
    for path in folder.files:
        whole = path.read_bytes()
        for number in range(cuts):
            folder.check(path, whole[: len(whole) * number // cuts])
        if path.name not in ("experiment.json", "result.json"):  # then it is another kind of folder
            folder.check(path, None)


class Mutation:
    """Draws what happens to a folder: one to three of the ways in which people and disks harm."""

    def __init__(self, seed: int, folder: Path, other: Path) -> None:
        self.draw, self.folder, self.other = random.Random(seed), folder, other
        self.said: list[str] = []
        for _ in range(self.draw.randint(1, 3)):
            way = self.draw.choice(
                [self.gone, self.swapped, self.exchanged, self.a_folder, self.a_loop, self.empty]
                + [self.garbage, self.a_key, self.a_value, self.lines] * 2
            )
            self.path = self.draw.choice([p for p in folder.rglob("*") if p.is_file()])
            self.said.append(f"{way.__name__} {self.path.name}")
            way()

    def gone(self) -> None:
        self.path.unlink()

    def swapped(self) -> None:
        there = self.other / self.path.relative_to(self.folder)
        if there.is_file():
            shutil.copy(there, self.path)

    def exchanged(self) -> None:
        there = self.draw.choice([p for p in self.folder.rglob("*") if p.is_file()])
        mine, theirs = self.path.read_bytes(), there.read_bytes()
        self.path.write_bytes(theirs)
        there.write_bytes(mine)

    def a_folder(self) -> None:
        self.path.unlink()
        self.path.mkdir()

    def a_loop(self) -> None:
        self.path.unlink()
        self.path.symlink_to(self.path.name)

    def empty(self) -> None:
        self.path.write_bytes(b"")

    def garbage(self) -> None:
        raw = self.path.read_bytes()
        at, size = self.draw.randrange(len(raw) + 1), self.draw.choice([1, 8, 300])
        self.path.write_bytes(raw[:at] + self.draw.randbytes(size) + raw[at + size :])

    def texts(self) -> list[str]:
        raw = self.path.read_bytes()
        return raw.decode(errors="replace").split("\n") if self.path.suffix[:5] == ".json" else []

    def a_key(self) -> None:
        """Rename a key, wherever one is: also in the headers of tensors."""
        raw = self.path.read_bytes()
        keys = sorted({part.rpartition(b'"')[2] for part in raw.split(b'":')[:-1]})
        if keys:
            key = self.draw.choice(keys)
            self.path.write_bytes(raw.replace(b'"' + key + b'"', b'"' + key[:-1] + b'?"', 1))

    def a_value(self) -> None:
        texts = self.texts()
        places = [n for n, text in enumerate(texts) if ": " in text]
        if places:
            n = self.draw.choice(places)
            value = self.draw.choice(
                ["NaN", "-1", "1e999", "null", "[]", '"x"', "[" * 5000, "9" * 5000]
            )
            head, _, tail = texts[n].partition(": ")
            texts[n] = f"{head}: {value}{tail[tail.find(',') :] if ',' in tail else ''}"
            self.path.write_text("\n".join(texts))

    def lines(self) -> None:
        texts = self.texts()
        if len(texts) > 2:
            one, two = self.draw.sample(range(len(texts) - 1), 2)
            match self.draw.randrange(3):
                case 0:
                    del texts[one]
                case 1:
                    texts.insert(one, texts[two])
                case 2:
                    texts[one], texts[two] = texts[two], texts[one]
            self.path.write_text("\n".join(texts))


COMMANDS = (
    "verify RUN",
    "watch RUN --once",
    "predict RUN one.npy",
    "report RUN",
    "run --resume --json --out RUN",
)


def test_a_mutated_folder_is_refused_in_one_line_or_means_the_same(
    fednf, runs, undisturbed, tmp_path, make_unchecked, sizes
):
    (tmp_path / "one.npy").write_bytes((runs / "one.npy").read_bytes())
    begun, wrong = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for seed in range(sizes[2]):
        folder = tmp_path / f"run-{seed}"
        shutil.copytree(runs / WHICH[seed % 2], folder)
        if seed % 3 == 0:
            make_unchecked(folder)
        said, start = Mutation(seed, folder, runs / "other").said, time.process_time()
        for command in COMMANDS:
            answer = fednf(*command.replace("RUN", folder.name).split())
            lines = answer.err.splitlines()
            told = all(line.startswith("fednf: ") for line in lines) and len(lines) < 3
            if not told or answer.status not in ((0, 1, 2) if "verify" in command else (0, 2)):
                wrong.append((seed, said, command, answer.status, answer.err))
        if seed % 3 and answer.status == 0:
            model = json.loads(answer.lines[-1])["model_sha256"]
            wrong += [(seed, said, model)] if model != undisturbed["stopped"][0] else []
        if (took := time.process_time() - start) > 10:
            wrong.append((seed, said, took))
        shutil.rmtree(folder)
    assert not wrong, "\n".join(map(str, wrong))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun < 2**20  # KiB
