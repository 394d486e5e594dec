"""A round's work shared between workers: the same replies, whoever gives them, and none is lost."""

import multiprocessing
import os
import pickle
import signal
from collections import deque
from contextlib import closing

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.client import app
from fl.config import Experiment
from fl.data import share
from fl.messages import records
from fl.reproducibility.seeds import torch_stream
from fl.server.app import serve
from fl.server.journal import Journal
from fl.simulation import InlineGrid, engine, pickling, run
from fl.simulation.process_pool import Processes
from fl.simulation.shared_memory import Reader, Slab, _held, send
from fl.simulation.worker_pool import Heard, TeamGrid
from fl.training.parameters import network
from strategies import arrays as npy


class Imagined:
    """A team without workers: parcels are answered when somebody asks, the latest given first."""

    runtime = "none"

    def __init__(self, size: int, dies: int = 0, killer: int = 0) -> None:
        self.size, self.dies, self.killer = size, dies, killer
        self.request = RecordDict()
        self.busy: deque[tuple[int, bytes]] = deque()
        self.most = 0

    def tell(self, request: bytes) -> None:
        assert not self.busy
        self.request = pickle.loads(request)

    def give(self, worker: int, parcel: bytes) -> None:
        assert worker not in [busy for busy, _ in self.busy]
        self.busy.append((worker, parcel))

    def hear(self) -> Heard:
        worker, parcel = self.busy.pop()
        nodes = [m.metadata.dst_node_id for m, _ in pickling.unpack(parcel, self.request)]
        if self.dies or self.killer in nodes:
            self.dies -= bool(self.dies)
            return Heard(worker, why="out of memory")
        return Heard(worker, memoryview(b"".join(pickling.work(parcel, self.request))))

    def drop(self) -> None:
        self.busy.clear()


def questions(grid: InlineGrid | TeamGrid, knobs: Experiment, number: int = 1) -> list[Message]:
    state = network(knobs, torch_stream(1, "init")).state()
    config = ConfigRecord({records.ROUND: number})
    content = RecordDict({records.ARRAYS: records.pack_network(state), records.CONFIG: config})
    return [Message(content, node, "train") for node in grid.get_node_ids()]


def told(replies: list[Message]) -> list[tuple]:
    """Return what replies say, but for the seconds, in the order of nodes."""
    found = []
    for reply in sorted(replies, key=lambda reply: reply.metadata.src_node_id):
        arrays: ArrayRecord = reply.content[records.ARRAYS]
        figures = {k: v for k, v in records.figures(reply.content).items() if k != "seconds"}
        found.append((figures, {name: array.data for name, array in arrays.items()}))
    return found


def chosen(knobs: Experiment, at_once: int = 100) -> engine.Choice:
    return engine.Choice(knobs, 2, at_once, "")


@pytest.fixture(scope="module")
def crew():
    team = Processes(2)
    yield team
    team.close()


@given(st.lists(st.integers(0, 3 * npy.LARGE), max_size=4))
def test_what_is_packed_comes_out_again(sizes):
    request = RecordDict()
    given = [request, *(os.urandom(size) for size in sizes), {"a": 1}, request]
    packed = b"".join(pickling.pack(given, request))
    found = pickling.unpack(packed, request)
    assert found == given
    assert found[0] is found[-1] is request


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 6))
def test_all_clients_are_dealt_once_and_evenly(steps, hands):
    dealt = engine.longest_first(steps, hands)
    assert sorted(place for part in dealt for place in part) == list(range(len(steps)))
    loads = [sum(steps[place] for place in part) for part in dealt]
    assert max(loads) - min(loads) <= max(steps)


@pytest.mark.parametrize("at_once", [1, 3, 100])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_team_of_any_size_replies_as_one_process_does(tiny, size, at_once):
    knobs = tiny({"engine": "sequential"})
    alone = InlineGrid(app.app, knobs)
    together = TeamGrid(chosen(knobs, at_once), Imagined(size))
    expected = told(list(alone.send_and_receive(questions(alone, knobs))))
    assert told(list(together.send_and_receive(questions(together, knobs)))) == expected


def test_a_round_is_made_permanent_while_workers_are_at_the_next(tiny, tmp_path):
    team, journal, busy = Imagined(2), Journal(tmp_path / "run"), {}

    def watch(line: dict) -> None:
        assert journal.rounds()[-1] == line
        busy[line["round"]] = len(team.busy)

    run(tiny({"engine": "sequential", "rounds": 3}), journal, team=team, watch=watch)
    assert busy == {0: 2, 1: 2, 2: 2, 3: 0}


def test_what_fails_in_a_round_does_not_cost_the_round_before(tiny, tmp_path):
    class Gone(Imagined):
        def hear(self) -> Heard:
            if len(seen) == 2:  # rounds 0 and 1 are permanent, and clients are at round 2
                raise KeyboardInterrupt
            return super().hear()

    seen: list[dict] = []
    knobs, journal = tiny({"engine": "sequential", "rounds": 3}), Journal(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(knobs, journal, team=Gone(2), watch=seen.append)
    assert journal.checkpoint().round == 1
    expected = run(knobs, Journal(tmp_path / "other"), team=Imagined(2))
    found = run(knobs, journal, team=Imagined(2), resume=True)
    assert found["model_sha256"] == expected["model_sha256"]


def test_whoever_stops_a_run_leaves_nobody_at_work(tiny, tmp_path):
    def stop(line: dict) -> None:
        if line["round"] == 1:
            raise KeyboardInterrupt

    team, journal = Imagined(2), Journal(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(tiny({"engine": "sequential", "rounds": 3}), journal, team=team, watch=stop)
    assert not team.busy
    assert journal.checkpoint().round == 1


def test_the_longest_begins_first_where_memory_has_room(tiny):
    knobs = tiny({"partition.alpha": 0.1, "client.batch-size": 8})
    grid = TeamGrid(chosen(knobs), Imagined(1))
    order = [reply.metadata.src_node_id for reply in grid.send_and_receive(questions(grid, knobs))]
    sizes = [len(share(grid.contexts[node].node_config, knobs).train) for node in order]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 1


def test_replies_that_wait_for_an_older_one_are_few(tiny):
    knobs = tiny({"partition.clients": 30})

    class Slow(Imagined):
        """Its first parcel is answered when nothing else is there."""

        def hear(self):
            self.busy.rotate(-1)
            return super().hear() if len(self.busy) == 1 else self._latest()

        def _latest(self):
            worker, parcel = self.busy.popleft()
            return Heard(worker, memoryview(b"".join(pickling.work(parcel, self.request))))

    grid = TeamGrid(chosen(knobs, 2), Slow(2))
    waiting, most, expected = set(), 0, iter(grid.get_node_ids())
    oldest = next(expected)
    for reply in grid.send_and_receive(questions(grid, knobs)):
        waiting.add(reply.metadata.src_node_id)
        while oldest in waiting:
            waiting.remove(oldest)
            oldest = next(expected, 0)
        most = max(most, len(waiting))
    assert most <= 4


@pytest.mark.parametrize(("deaths", "lost"), [(1, 0), (2, 1), (9, 5)])
def test_a_dead_worker_s_clients_are_asked_again_once(tiny, deaths, lost):
    knobs = tiny({"engine": "sequential"})
    grid = TeamGrid(chosen(knobs), Imagined(1, deaths))
    replies = list(grid.send_and_receive(questions(grid, knobs)))
    errors = [reply.error.reason for reply in replies if reply.has_error()]
    assert (len(replies), len(errors)) == (5, lost if deaths < 9 else 4)
    assert set(errors) <= {"2 workers died of it: out of memory"}


@pytest.mark.parametrize("size", [1, 2])
def test_of_clients_that_train_together_only_the_killer_is_refused(tiny, size):
    knobs = tiny({"engine": "cohort", "cohort.lanes": 3, "cohort.level": "eager"})
    grid = TeamGrid(chosen(knobs), Imagined(size, killer=4))
    replies = list(grid.send_and_receive(questions(grid, knobs)))
    assert len(replies) == 5
    assert [r.metadata.src_node_id for r in replies if r.has_error()] == [4]


def test_where_all_workers_die_the_run_ends(tiny):
    knobs = tiny({"engine": "sequential"})
    grid = TeamGrid(chosen(knobs), Imagined(2, dies=99))
    with pytest.raises(RuntimeError, match="no worker lives long enough to answer: out of memory"):
        list(grid.send_and_receive(questions(grid, knobs)))


def test_what_is_no_client_s_fault_ends_the_run(tiny, monkeypatch):
    knobs = tiny({"engine": "sequential"})
    grid = TeamGrid(chosen(knobs), Imagined(2))
    monkeypatch.setattr("fl.client.app._trained", lambda clients: 1 / 0)
    with pytest.raises(RuntimeError, match="in a worker: ZeroDivisionError"):
        list(grid.send_and_receive(questions(grid, knobs)))


@pytest.mark.slow
def test_an_idle_process_may_die_and_a_round_may_be_left(tiny, crew):
    knobs = tiny({"engine": "sequential"})
    alone = InlineGrid(app.app, knobs)
    expected = told(list(alone.send_and_receive(questions(alone, knobs))))
    left = TeamGrid(chosen(knobs), crew).send_and_receive(questions(alone, knobs))
    next(left)
    left.close()  # whoever still worked is ended
    list(TeamGrid(chosen(knobs), crew).send_and_receive(questions(alone, knobs)))
    os.kill(crew.processes()[0], signal.SIGKILL)
    grid = TeamGrid(chosen(knobs), crew)
    assert told(list(grid.send_and_receive(questions(grid, knobs)))) == expected


def test_replies_come_through_where_no_memory_can_be_shared(tiny, monkeypatch):
    monkeypatch.setattr("fl.simulation.shared_memory._room", lambda: 0)
    ours, theirs = multiprocessing.Pipe()
    slab = Slab()
    send(theirs, slab.write([b"ab", b"c"]), [b"ab", b"c"])
    assert slab.memory is None
    assert bytes(Reader().receive(ours)) == b"abc"
    knobs = tiny({"engine": "sequential"})
    alone = InlineGrid(app.app, knobs)
    expected = told(list(alone.send_and_receive(questions(alone, knobs))))
    with closing(Processes(2)) as crew:
        grid = TeamGrid(chosen(knobs), crew)
        assert told(list(grid.send_and_receive(questions(grid, knobs)))) == expected
        assert crew._slab.memory is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3 * npy.LARGE), min_size=1, max_size=5), st.randoms())
def test_arrays_that_are_packed_into_a_slab_are_read_as_they_were(sizes, chance):
    ours, theirs = multiprocessing.Pipe()
    slab, reader, request = Slab(), Reader(), RecordDict()
    noise = np.random.default_rng(len(sizes))
    for turn in range(4):
        expected = [noise.integers(0, 256, size + turn % 3, np.uint8) for size in sizes]
        with npy.packed_into(slab.place()):
            packed = [npy.pack(array) for array in expected]
        order = list(range(len(packed)))
        if turn == 3:
            chance.shuffle(order)
        pieces = pickling.pack([packed[place] for place in order], request)
        del packed
        send(theirs, slab.write(pieces), pieces)
        with reader.receive(ours) as received:
            found = pickling.unpack(received, request)
        for place, array in zip(order, found, strict=True):
            assert np.array_equal(npy.unpack(array), expected[place])
    del pieces
    slab.close()
    assert not _held
    reader.take_over()


def test_a_network_is_packed_where_it_is_read_and_not_copied_there():
    slab, request, values = Slab(), RecordDict(), np.zeros(npy.LARGE, np.uint8)
    slab.write(pickling.pack([npy.pack(values), npy.pack(values)], request))
    with npy.packed_into(slab.place()):
        packed = [npy.pack(values), npy.pack(values)]
    assert [type(array.data) for array in packed] == [memoryview, memoryview]
    assert slab._there(pickling.pack(packed, request))
    assert not slab._there(pickling.pack(packed[::-1], request))
    assert type(npy.pack(values).data) is bytes
    assert np.array_equal(npy.unpack(packed[0]), values)
    packed.clear()
    slab.close()


def test_a_slab_that_grows_is_read_where_it_is_now_and_leaves_nothing_behind():
    ours, theirs = multiprocessing.Pipe()
    slab, reader, names = Slab(), Reader(), set()
    for size in (3, 2, 100_000, 5):
        piece = bytes(range(size % 256)) * (size // 255 + 1)
        send(theirs, told := slab.write([piece]), [piece])
        names.add(told[0])
        with reader.receive(ours) as found:
            assert bytes(found) == piece
    assert len(names) == 2
    slab.close()
    reader.take_over()
    assert not [name for name in names if os.path.exists(f"/dev/shm/{name}")]


def test_processes_reply_as_one_process_does_and_remember_for_their_clients(tiny, tmp_path, crew):
    knobs = tiny({"recipe": "batchnorm", "state.bn": "local", "engine": "sequential"})
    expected = run(knobs, Journal(tmp_path / "alone"))
    grid = TeamGrid(chosen(knobs), crew)
    found = serve(grid, knobs, Journal(tmp_path / "team"), started_by={})
    assert found["model_sha256"] == expected["model_sha256"]
    assert found["final_loss"] == expected["final_loss"]
    states = Journal(tmp_path / "team").checkpoint()
    assert states is not None
    assert states.clients


def test_a_killed_process_costs_nothing(tiny, crew):
    knobs = tiny({"engine": "sequential"})
    grid, alone = TeamGrid(chosen(knobs), crew), InlineGrid(app.app, knobs)
    replies = grid.send_and_receive(questions(grid, knobs))
    found = [next(replies)]
    victim = crew.processes()[0]
    os.kill(victim, signal.SIGKILL)
    found += replies
    assert victim not in crew.processes()
    expected = told(list(alone.send_and_receive(questions(alone, knobs))))
    assert told(found) == expected


def test_larger_replies_than_before_fit_too(tiny, crew):
    for width in (4, 16, 8):
        knobs = tiny({"engine": "sequential", "network.width": width})
        grid, alone = TeamGrid(chosen(knobs), crew), InlineGrid(app.app, knobs)
        expected = told(list(alone.send_and_receive(questions(alone, knobs))))
        assert told(list(grid.send_and_receive(questions(grid, knobs)))) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "knobs",
    [
        {"partition.held-out": 0.2, "signals.every": 1},
        {"recipe": "batchnorm", "state.bn": "recalibrate"},
        {"strategy.kind": "fedprox", "strategy.mu": 0.1, "network.dropout": 0.2},
    ],
    ids=["signals", "recalibrate", "fedprox"],
)
def test_the_number_of_workers_is_no_part_of_a_result(tiny, tmp_path, knobs):
    knobs = tiny({**knobs, "sampling.clients": 4, "engine": "sequential"})
    found = [run(knobs, Journal(tmp_path / str(n)), workers=n)["model_sha256"] for n in (1, 2, 3)]
    assert len(set(found)) == 1


@pytest.mark.slow
def test_a_run_goes_on_with_the_workers_that_it_began_with(tiny, tmp_path):
    knobs = tiny({"engine": "sequential", "sampling.clients": 4})
    journal = Journal(tmp_path)
    run(knobs, journal, workers=2)
    assert journal.header()["engine"]["workers"] == 2
