"""All contenders do the same work, and do it."""

import importlib.util
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.bench.contenders.catalogue import CONTENDERS
from experiments.bench.contenders.record import Record
from experiments.bench.contenders.workload import draws, workload
from experiments.bench.jobs import JOBS, MISSION, Size, flops_per_image, job, network
from experiments.bench.repetition import repeat
from fl.config import Experiment
from fl.data import deal, load
from fl.simulation.engine import longest_first

ELSEWHERE = ["flower", "pfl"]
SMALL = Size(clients=3, images=20, unequal=True, rounds=2)


@pytest.fixture
def losses(tmp_path):
    """Let a contender do a job in this process; returns the losses of its rounds."""

    def play(name: str, knobs: Experiment) -> list[float]:
        record = Record(tmp_path / f"{name}.jsonl")
        CONTENDERS[name].run(knobs, record)
        assert [line["images"] for line in record.lines()] == [60] * knobs.rounds
        return [line["loss"] for line in record.lines()]

    return play


def some(folder: Path, rounds: int = 2) -> Experiment:
    """Return a job of which a round has three clients of seven."""
    return job("cnn", 20, Size(clients=3, images=20, rounds=rounds, of=7), folder)


def whole_batches(folder: Path) -> Experiment:
    """Return a job in which a client's batch is all that it holds: no order matters."""
    return job("cnn", 60, SMALL, folder)


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> list[float]:
    """Return the losses that a job of whole batches has to have."""
    folder = tmp_path_factory.mktemp("reference")
    record = Record(folder / "rounds.jsonl")
    CONTENDERS["sequential"].run(whole_batches(folder), record)
    return [line["loss"] for line in record.lines()]


@pytest.mark.parametrize(
    "name",
    ["loop", *(pytest.param(n, marks=pytest.mark.slow) for n in ("vectorized", "loop-per-core"))],
)
def test_all_average_the_same_networks(losses, tmp_path, reference, name):
    assert len(reference) == 3
    assert losses(name, whole_batches(tmp_path)) == pytest.approx(reference, rel=1e-4)


def test_pooled_images_are_one_batch_whatever_the_job_s(losses, tmp_path, reference):
    # The mean of clients' single steps, weighted by their images, is the step of all together.
    assert losses("pooled", job("cnn", 2, SMALL, tmp_path)) == pytest.approx(reference, rel=1e-4)


@pytest.mark.parametrize("name", ["sequential", "loop"])  # a loop per core trains as the loop
def test_all_learn_in_micro_batches(losses, tmp_path, name):
    found = losses(name, job("cnn", 2, SMALL, tmp_path))
    assert found[-1] < found[0]


@pytest.mark.parametrize(
    "name",
    [
        "sequential",
        pytest.param("vectorized", marks=pytest.mark.slow),
        "loop",
        pytest.param("loop-per-core", marks=pytest.mark.slow),
        "pooled",
    ],
)
def test_rounds_of_some_clients_are_of_as_many_images(losses, tmp_path, name):
    assert len(losses(name, some(tmp_path))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ELSEWHERE)
def test_simulators_train_as_many_clients_as_a_round_has(tmp_path, name):
    if reason := CONTENDERS[name].missing():
        pytest.skip(reason)
    assert repeat(name, some(tmp_path), [60] * 3, watch_memory=False).images == 120


@pytest.fixture(scope="module")
def missions() -> Experiment:
    """Return a small job of the mission: unequal clients, clipped steps, many test images."""
    changes = {"data.name": "fashion-mnist-small", "recipe": "batchnorm", "client.clip": "norm:0.1"}
    changes |= {"network.depth": 3, "network.width": 4, "partition.min-size": 1}
    size = Size(clients=3, rounds=1, of=250)
    return job(MISSION, 500, size, Path("nowhere"), changes)


@pytest.fixture(scope="module")
def ours(missions, tmp_path_factory) -> list[dict]:
    """Return what our rounds of that job come to."""
    record = Record(tmp_path_factory.mktemp("ours") / "rounds.jsonl")
    CONTENDERS["sequential"].run(missions, record)
    return record.lines()


MISSIONARIES = [
    "loop",
    *(pytest.param(n, marks=pytest.mark.slow) for n in ("loop-per-core", *ELSEWHERE)),
]


@pytest.mark.parametrize("name", MISSIONARIES)
def test_all_clip_and_test_the_same_unequal_clients_on_the_mission_s_job(
    missions, ours, tmp_path, name
):
    """The same clients each round, BatchNorm's statistics averaged, steps clipped, all tested."""
    if reason := CONTENDERS[name].missing():
        pytest.skip(reason)
    record = Record(tmp_path / "rounds.jsonl")
    if name in ELSEWHERE:
        images = [line["images"] for line in ours]
        losses = repeat(name, missions, images, watch_memory=False).losses
        assert losses[0] == pytest.approx(ours[0]["loss"], rel=1e-4)
        return
    workload.cache_clear()  # another contender has trained its network in this process
    CONTENDERS[name].run(missions, record)
    found = record.lines()
    assert [line["images"] for line in found] == [line["images"] for line in ours]
    assert ours[0]["images"] != ours[1]["images"]
    for key in ("loss", "accuracy"):
        mine = [line[key] for line in found]
        assert mine == pytest.approx([line[key] for line in ours], rel=1e-4)


def test_clients_of_a_round_are_drawn_anew_from_all(tmp_path):
    drawn = list(draws(some(tmp_path, rounds=20)))
    assert len(drawn) == 21
    for clients in drawn:
        assert len(clients) == len(set(clients)) == 3
    assert {client for clients in drawn for client in clients} == set(range(7))
    assert list(draws(whole_batches(tmp_path))) == [[0, 1, 2]] * 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ELSEWHERE)
def test_simulators_average_the_same_networks_and_learn(tmp_path, reference, name):
    if reason := CONTENDERS[name].missing():
        pytest.skip(reason)
    found = repeat(name, whole_batches(tmp_path), [60] * 3, watch_memory=True)
    assert found.losses == pytest.approx(reference, rel=1e-4)
    assert (found.peak_bytes or 0) > 100e6
    found = repeat(name, job("cnn", 2, SMALL, tmp_path), [60] * 3, watch_memory=False)
    assert found.losses[-1] < found.losses[0]
    assert found.peak_bytes is None


def test_what_is_not_installed_is_said() -> None:
    for row in CONTENDERS.values():
        absent = [name for name in row.needs if importlib.util.find_spec(name) is None]
        assert (row.missing() is None) == (absent == [])
        assert absent == [] or absent[0] in str(row.missing())


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.integers(1, 8))
def test_clients_are_dealt_evenly(sizes: list[int], hands: int) -> None:
    dealt = longest_first(sizes, hands)
    assert sorted(client for hand in dealt for client in hand) == list(range(len(sizes)))
    loads = [sum(sizes[client] for client in hand) for hand in dealt]
    assert max(loads) - min(loads) <= max(sizes)


@cache
def shared(folder: Path, name: str, batch: int) -> Experiment:
    return job(name, batch, Size(clients=4, images=30), folder)


@pytest.mark.parametrize("name", [name for name in JOBS if name != MISSION])
def test_every_job_has_its_network_and_images(tmp_path, name):
    knobs = shared(tmp_path, name, 2)
    dataset = load(knobs.data.name)
    assert [len(part) for part in deal(knobs)] == [30] * 4
    assert (len(dataset.train), len(dataset.test), len(dataset.classes)) == (120, 10, 10)
    assert dataset.shape == ((3, 32, 32) if name == "cnn" else (1, 28, 28))
    logits = network(knobs)(dataset.inputs(dataset.train.images[:2]))
    assert logits.shape == (2, 10)


def test_operations_by_pencil(tmp_path):
    # Forward, and backward to the weights and, behind the first layer, to the inputs.
    first, second, last = 2 * 27 * 16 * 32**2, 2 * 144 * 32 * 16**2, 2 * 2048 * 10
    for batch in (1, 4):
        found = flops_per_image(shared(tmp_path, "cnn", batch))
        assert found == 2 * first + 3 * (second + last)


def test_unequal_clients_hold_as_much_together(tmp_path):
    sizes = [len(part) for part in deal(job("cnn", 1, SMALL, tmp_path))]
    assert sum(sizes) == 60
    assert len(set(sizes)) > 1
