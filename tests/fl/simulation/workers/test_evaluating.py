"""Workers evaluate the server's network, and its figures are those of one process, bit for bit."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.config import Experiment
from fl.data import Dataset, Form, Split
from fl.server.failures import Failure
from fl.server.journal import Journal
from fl.simulation import pipeline, run, worker_pool
from fl.simulation.pickling import unpack
from fl.simulation.worker_pool import WorkerReply
from fl.simulation.workers.chunks import read_parts, work
from fl.simulation.workers.evaluating import Told
from fl.simulation.workers.profile import Profile
from fl.tasks import METRICS, PLAIN
from fl.tasks.metrics import Part
from fl.training.loop import Evaluation
from fl.training.parameters import build_network
from tests.callbacks import EachRound
from tests.fl.simulation.test_worker_pool import FakePool

OWN = '''
import fl
import numpy as np
import torch


def images(labels):
    """700 images to test, which are three batches, with labels of a kind."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (1000, 1, 8, 8), dtype=np.uint8)
    answers = {
        "classes": rng.integers(0, 3, 1000),
        "labels": rng.integers(0, 2, (1000, 3)),
        "numbers": rng.normal(size=(1000, 3)).astype(np.float32),
    }[labels]
    train, test = ((pixels[part], answers[part]) for part in (slice(300), slice(300, None)))
    return fl.Dataset(train=train, test=test, classes=["a", "b", "c"])


class Net(torch.nn.Module):
    """It draws in evaluation, too, and counts its calls."""

    def __init__(self, shape, classes):
        super().__init__()
        self.last, self.calls = torch.nn.LazyLinear(classes), 0
        self(torch.zeros(1, *shape))

    def forward(self, inputs):
        self.calls += 1
        noise = torch.rand(len(inputs), 1) + self.calls / 10
        return self.last(inputs.flatten(1) * noise)


class Spread(fl.Metric):
    """The standard deviation of all largest outputs: it keeps them, in their order."""

    name = "spread"
    add = staticmethod(lambda first, second: torch.cat([first, second]))

    def sums(self, outputs, labels):
        return outputs.amax(1).flatten()

    def value(self, sums):
        return float(torch.cumsum(sums, 0).std())
'''


def figures(journal: Journal) -> list[dict]:
    """Return all that lines say of evaluation but for its seconds."""
    return [
        {key: line[key] for key in line if key.startswith(("test_", "validation_"))}
        for line in journal.rounds()
    ]


SAME = ("model_sha256", "final_loss", "best_round")
CASES = {
    "classes": {"task.metrics": ",".join(METRICS["classification"]), "data.validation": 0.5},
    "labels": {"task.kind": "multilabel", "task.metrics": "macro-f1,accuracy,auc"},
    "numbers": {"task.kind": "regression", "task.metrics": "mae,r2"},
}


@pytest.fixture
def experiment(tiny, tmp_path):
    """Make an experiment with images that take three batches, or more with validation images."""

    def make(case: str, flat: dict | None = None) -> Experiment:
        (path := tmp_path / "own.py").write_text(OWN)
        changes = {"data.name": f"{path}:images", "engine": "sequential", **CASES.get(case, {})}
        changes["data.options.labels"] = case if case in CASES else "classes"
        if case == "own":
            plain = Experiment().to_flat()
            changes |= {key: plain[key] for key in ("network.depth", "network.width")}
            changes |= {"network.kind": f"{path}:Net", "task.metrics": f"{path}:Spread,accuracy"}
        return tiny({**changes, "partition.kind": "iid", **(flat or {})})

    return make


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_it_does_not_matter_who_evaluates_which_batches(data):
    """Parts of any ranges, made in any order, come to the same bits as those of one pass."""
    knobs = Experiment.from_flat({"network.kind": "ffnn", "network.depth": 2, "network.width": 4})
    sizes = data.draw(st.lists(st.integers(0, 1200), min_size=1, max_size=3))
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (1200, 1, 3, 3), generator=generator, dtype=torch.uint8)
    whole = Split(images, torch.randint(0, 2, (1200,), generator=generator))
    dataset = Dataset("noise", whole, whole, ("a", "b"), "none", "nowhere")
    network = build_network(knobs, generator, Form((1, 3, 3), 2))
    splits = {str(at): whole.only(torch.arange(size)) for at, size in enumerate(sizes)}
    model = {name: tensor.numpy() for name, tensor in network.state().items()}
    evaluation = Evaluation(network, dataset, PLAIN, splits, model)
    count = sum(-(-size // 250) for size in sizes)
    assert evaluation.batches == range(count)
    cuts = sorted({0, count, *data.draw(st.lists(st.integers(0, count)))})
    ranges = [range(*pair) for pair in pairwise(cuts)]
    found = {at.start: list(evaluation.parts(at)) for at in data.draw(st.permutations(ranges))}
    expected = evaluation.figures(evaluation.parts())
    assert evaluation.figures(part for at in sorted(found) for part in found[at]) == expected
    assert [x["loss"] is None for x in expected.values()] == [size == 0 for size in sizes]


@given(st.integers(0, 3000), st.integers(1, 32))
def test_pieces_are_all_batches_and_end_with_small_ones(count, workers):
    found = list(pipeline.pieces(range(count), workers))
    assert [batch for piece in found for batch in piece] == list(range(count))
    sizes = [len(piece) for piece in found]
    assert sizes == sorted(sizes, reverse=True)
    left = count
    for size in sizes:
        assert size == 1 or size <= min(left / (2 * workers), math.ceil(count / (8 * workers)))
        left -= size
    assert len(found) <= 2 * workers * (6 + math.log(max(1, count)))


@pytest.mark.parametrize(
    ("case", "size"),
    [
        pytest.param(case, size, marks=() if (case, size) == ("own", 2) else pytest.mark.slow)
        for case in [*CASES, "own"]
        for size in (1, 2, 3)
    ],
)
def test_figures_are_the_same_whoever_evaluates(experiment, tmp_path, case, size):
    knobs = experiment(case)
    expected, found = (Journal(tmp_path / name) for name in ("alone", "pool"))
    alone = run(knobs, expected)
    together = run(knobs, found, pool=(pool := Pieces(size)))
    assert pool.pieces > 2 * knobs.rounds
    assert not pool.failed
    assert figures(found) == figures(expected)
    assert [together[key] for key in SAME] == [alone[key] for key in SAME]


class Pieces(FakePool):
    """Counts the pieces of evaluations that it is given, and fails them if it is to."""

    def __init__(self, size: int, fails: str = "") -> None:
        super().__init__(size)
        self.fails, self.pieces, self.failed = fails, 0, 0

    def wait(self, timeout: float | None = None) -> WorkerReply | None:
        worker, chunk = self.busy[-1]
        if not isinstance(unpack(chunk), range):
            return super().wait()
        self.pieces += 1
        if not self.fails:
            self.failed += isinstance(unpack(b"".join(work(chunk, self.request))), Failure)
            return super().wait()
        self.busy.pop()
        if self.fails == "dies":
            return WorkerReply(worker, reason="exit code -9")
        return WorkerReply(worker, memoryview(b"".join(work(chunk, Told()))))  # an exception


LANES = {
    "engine": "vectorized",
    "vectorized.level": "native",
    "vectorized.lanes": 2,
    "recipe": "zc-swish",
}
"""With these, networks are evaluated by operators of ours, which round in another way."""


@pytest.mark.slow
@pytest.mark.parametrize(("fails", "flat"), [("dies", {}), ("raises", {}), ("dies", LANES)])
def test_a_piece_that_a_worker_fails_is_evaluated_all_the_same(experiment, tmp_path, fails, flat):
    knobs = experiment("classes", flat)
    expected, found = (Journal(tmp_path / name) for name in ("undisturbed", "disturbed"))
    run(knobs, expected, pool=Pieces(2))
    run(knobs, found, pool=(pool := Pieces(2, fails)))
    assert pool.pieces
    assert figures(found) == figures(expected)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_processes_evaluate_as_one_does(experiment, tmp_path, monkeypatch, workers):
    knobs = experiment("own", {"rounds": 3, "data.validation": 0.9})
    expected, found = (Journal(tmp_path / name) for name in ("alone", "together"))
    run(knobs, expected)
    read = list[bool]()

    def noted(reply: WorkerReply, profile: Profile | None) -> list[Part] | None:
        parts = read_parts(reply, profile)
        read.append(parts is not None)
        return parts

    monkeypatch.setattr(worker_pool, "read_parts", noted)
    run(knobs, found, workers=workers)
    assert read.count(True) == len(read) > knobs.rounds
    assert figures(found) == figures(expected)


@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_pieces_come_behind_clients_unless_rounds_are_long(experiment, tmp_path, monkeypatch, long):
    """A round is permanent before the next one is, and before the one after that begins."""
    if long:
        monkeypatch.setattr(pipeline, "_LONG", 0.0)
    said: list[object] = []

    class Telling(FakePool):
        def submit(self, worker: int, chunk: bytes) -> None:
            piece = isinstance(unpack(chunk), range)
            said.append("piece" if piece else "client")
            super().submit(worker, chunk)

    callback = EachRound(lambda line: said.append(line["round"]))
    journal = Journal(tmp_path / "run")
    run(experiment("classes", {"rounds": 3}), journal, pool=Telling(2), callbacks=[callback])
    clients, pieces = ["client"] * 2, ["piece"] * 4
    assert [word for word in said if type(word) is int] == [0, 1, 2, 3]
    ends = [said.index(number) for number in range(4)]
    assert said[: ends[0]] == [*clients, *pieces]
    if long:
        assert said[ends[0] + 1 :][:4] == pieces
    else:
        assert said[ends[0] + 1 : ends[1]] == [*clients, *pieces]
    assert said[ends[2] + 1 : ends[3]] == pieces


def test_a_metric_that_raises_ends_the_run_once(experiment, tmp_path):
    (tmp_path / "bad.py").write_text(
        "def late(outputs, labels):\n"
        "    if len(labels) == 233:\n"
        "        raise RuntimeError('of the user')\n"
        "    return outputs.sum(1)\n"
    )
    knobs = experiment("classes", {"task.metrics": f"{tmp_path / 'bad.py'}:late"})
    journal = Journal(tmp_path / "run")
    with pytest.raises(RuntimeError, match="of the user") as raised:
        run(knobs, journal, pool=(pool := Pieces(2)))
    assert raised.traceback[-1].path.name == "bad.py"
    assert not pool.busy
    assert "bad.py" in (journal.folder / "errors" / "round-0-server.txt").read_text()


@pytest.mark.slow
def test_a_run_that_is_interrupted_at_a_piece_goes_on(experiment, tmp_path):
    class Interrupted(Pieces):
        def wait(self, timeout: float | None = None) -> WorkerReply | None:
            if self.pieces == 6:
                self.pieces += 1
                raise KeyboardInterrupt
            return super().wait(timeout)

    knobs, journal = experiment("classes", {"rounds": 3}), Journal(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(knobs, journal, pool=(pool := Interrupted(2)))
    assert not pool.busy
    assert (checkpoint := journal.checkpoint()) is not None
    assert checkpoint.round == 1  # it was evaluated, and so it is finished before the run ends
    found = run(knobs, journal, pool=Pieces(2), resume=True)
    expected = run(knobs, Journal(tmp_path / "undisturbed"), pool=Pieces(2))
    assert found["model_sha256"] == expected["model_sha256"]
    assert figures(journal) == figures(Journal(tmp_path / "undisturbed"))
