"""Worker pools: the replies do not depend on who trains which client, and none is lost."""

import errno
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from contextlib import closing

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.config import Experiment
from fl.data import share
from fl.messages import records
from fl.reproducibility.seeds import torch_stream
from fl.server.app import serve
from fl.server.journal import Journal
from fl.simulation import InlineGrid, engine, run
from fl.simulation.pickling import _LARGE, Pieces, pack, unpack
from fl.simulation.process_pool import ProcessPool
from fl.simulation.worker_pool import PoolGrid, WorkerReply
from fl.simulation.workers.chunks import unpack_chunk, work
from fl.simulation.workers.evaluating import Told
from fl.simulation.workers.shared_memory import SMALL, SharedBuffer, receive
from fl.training.parameters import build_network
from strategies import arrays as npy
from tests.callbacks import EachRound


class FakePool:
    """A pool without workers: `wait` trains a chunk, the one that was submitted last first."""

    runtime = "none"

    def __init__(self, size: int, dies: int = 0, killer: int = 0) -> None:
        self.size, self.dies, self.killer = size, dies, killer
        self.request = Told()
        self.busy: deque[tuple[int, bytes]] = deque()
        self.most = 0

    def broadcast(self, request: Pieces) -> None:
        assert not self.busy
        self.request = unpack(b"".join(request))

    def submit(self, worker: int, chunk: bytes) -> None:
        assert worker not in [busy for busy, _ in self.busy]
        self.busy.append((worker, chunk))

    def since(self, worker: int) -> float | None:
        return time.monotonic()

    def end(self, worker: int) -> str:
        self.busy = deque(one for one in self.busy if one[0] != worker)
        return "ended"

    def wait(self, timeout: float | None = None) -> WorkerReply | None:
        worker, chunk = self.busy.pop()
        piece = isinstance(unpack(chunk), range)
        trained = [] if piece else unpack_chunk(chunk, self.request)
        nodes = [message.metadata.dst_node_id for message, _ in trained]
        if self.dies or self.killer in nodes:
            self.dies -= bool(self.dies)
            return WorkerReply(worker, reason="out of memory")
        return WorkerReply(worker, memoryview(b"".join(work(chunk, self.request))))

    def cancel(self) -> None:
        self.busy.clear()


def requests(grid: InlineGrid | PoolGrid, knobs: Experiment, number: int = 1) -> list[Message]:
    state = build_network(knobs, torch_stream(1, "init")).state()
    config = ConfigRecord({records.ROUND: number})
    content = RecordDict({records.ARRAYS: records.pack_network(state), records.CONFIG: config})
    return [Message(content, node, "train") for node in grid.get_node_ids()]


def contents(replies: list[Message]) -> list[tuple]:
    """Return what replies say, but for the seconds, in the order of nodes."""
    found = []
    for reply in sorted(replies, key=lambda reply: reply.metadata.src_node_id):
        arrays: ArrayRecord = reply.content[records.ARRAYS]
        figures = {k: v for k, v in records.figures(reply.content).items() if k != "seconds"}
        found.append((figures, {name: array.data for name, array in arrays.items()}))
    return found


def choice(knobs: Experiment, at_once: int = 100) -> engine.Choice:
    return engine.Choice(knobs, 2, at_once, "")


@pytest.fixture(scope="module")
def processes():
    pool = ProcessPool(2)
    yield pool
    pool.close()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3 * _LARGE), max_size=4))
def test_what_is_packed_is_unpacked(sizes):
    arrays = [npy.pack(np.frombuffer(os.urandom(size), np.uint8)) for size in sizes]
    given = [*arrays, {"a": 1}, *arrays[:1]]
    pieces = pack(given)
    memory = bytearray(b"".join(pieces))
    found = unpack(memoryview(memory))
    memory[:] = bytes(len(memory))  # what was unpacked does not depend on it
    assert found == given
    assert all(type(x.data) is bytes for x in found if isinstance(x, Array))
    large = [x for x in arrays if len(x.data) >= _LARGE]
    assert len(pieces) == 2 + len(large)  # a header, a pickle, and views of large arrays


def test_large_arrays_are_not_copied_into_a_pickle():
    array = npy.pack(np.zeros(_LARGE, np.uint8))
    _, pickled, view = pack(RecordDict({"a": ArrayRecord({"w": array})}))
    assert len(pickled) < 2_000
    assert isinstance(view, memoryview)
    assert np.shares_memory(np.frombuffer(view, np.uint8), np.frombuffer(array.data, np.uint8))


def test_content_that_is_not_shared_travels_with_its_chunk(tiny):
    """A strategy may send clients different things; most send the same record to all."""
    knobs = tiny({"engine": "sequential"})
    alone, pool = InlineGrid(knobs), PoolGrid(choice(knobs), FakePool(2))

    def unlike(grid: InlineGrid | PoolGrid) -> list[Message]:
        return [*requests(grid, knobs)[:3], *requests(grid, knobs, number=2)[3:]]

    found, expected = (list(g.send_and_receive(unlike(g))) for g in (pool, alone))
    assert contents(found) == contents(expected)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 6))
def test_all_clients_are_in_one_part_each_and_parts_are_even(steps, parts):
    dealt = engine.longest_first(steps, parts)
    assert sorted(place for part in dealt for place in part) == list(range(len(steps)))
    loads = [sum(steps[place] for place in part) for part in dealt]
    assert max(loads) - min(loads) <= max(steps)


def test_queries_are_dealt_to_workers_by_images(tiny):
    flat = {"partition.kind": "dirichlet", "partition.clients": 20, "recipe": "batchnorm"}
    knobs = tiny({**flat, "engine": "vectorized", "vectorized.lanes": 2, "state.bn": "recalibrate"})
    loads, sizes = [], []

    class Counting(FakePool):
        def submit(self, worker: int, chunk: bytes) -> None:
            super().submit(worker, chunk)
            clients = [context for _, context in unpack_chunk(chunk, self.request)]
            sizes.extend(held := [len(share(c.node_config, knobs).train) for c in clients])
            loads.append(sum(held))

    grid = PoolGrid(choice(knobs), Counting(2))
    asked = requests(grid, knobs)
    queries = [Message(m.content, m.metadata.dst_node_id, records.RECALIBRATE) for m in asked]
    replies = list(grid.send_and_receive(queries))
    assert len(replies) == len(sizes) == 20
    assert not any(reply.has_error() for reply in replies)
    assert len(loads) == 2
    assert abs(loads[0] - loads[1]) <= min(sizes)


@pytest.mark.parametrize("at_once", [1, 3, 100])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_pool_of_any_size_replies_as_one_process_does(tiny, size, at_once):
    knobs = tiny({"engine": "sequential"})
    alone = InlineGrid(knobs)
    together = PoolGrid(choice(knobs, at_once), FakePool(size))
    expected = contents(list(alone.send_and_receive(requests(alone, knobs))))
    assert contents(list(together.send_and_receive(requests(together, knobs)))) == expected


def test_a_round_is_committed_while_workers_train_the_next(tiny, tmp_path):
    """Where there are few images to evaluate, by the process that commits it."""
    images, labels = np.zeros((100, 8, 8, 1), np.uint8), np.arange(100) % 2
    split = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(tmp_path / "few.npz", **split)
    pool, journal, busy = FakePool(2), Journal(tmp_path / "run"), {}

    def watch(line: dict) -> None:
        assert journal.rounds()[-1] == line
        busy[line["round"]] = len(pool.busy)

    run(
        tiny({"engine": "sequential", "rounds": 3, "data.name": str(tmp_path / "few.npz")}),
        journal,
        pool=pool,
        callbacks=[EachRound(watch)],
    )
    assert busy == {0: 2, 1: 2, 2: 2, 3: 0}


def test_a_round_that_fails_does_not_cost_the_round_before(tiny, tmp_path):
    class Gone(FakePool):
        def wait(self, timeout: float | None = None) -> WorkerReply | None:
            if len(seen) == 2:  # rounds 0 and 1 are permanent, and clients are at round 2
                raise KeyboardInterrupt
            return super().wait()

    seen: list[dict] = []
    knobs, journal = tiny({"engine": "sequential", "rounds": 3}), Journal(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(knobs, journal, pool=Gone(2), callbacks=[EachRound(seen.append)])
    assert journal.checkpoint().round == 1
    expected = run(knobs, Journal(tmp_path / "other"), pool=FakePool(2))
    found = run(knobs, journal, pool=FakePool(2), resume=True)
    assert found["model_sha256"] == expected["model_sha256"]


def test_a_run_that_is_stopped_leaves_no_worker_busy(tiny, tmp_path):
    def stop(line: dict) -> None:
        if line["round"] == 1:
            raise KeyboardInterrupt

    pool, journal = FakePool(2), Journal(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(
            tiny({"engine": "sequential", "rounds": 3}),
            journal,
            pool=pool,
            callbacks=[EachRound(stop)],
        )
    assert not pool.busy
    assert journal.checkpoint().round == 1


def test_a_caller_that_stops_reading_cancels_the_pool(tiny):
    knobs, pool = tiny({"engine": "sequential"}), FakePool(2)
    grid = PoolGrid(choice(knobs), pool)
    replies = grid.send_and_receive(requests(grid, knobs))
    next(replies)
    assert pool.busy
    replies.close()
    assert not pool.busy


def test_clients_with_most_steps_begin_first_where_memory_allows(tiny):
    knobs = tiny({"partition.alpha": 0.1, "client.batch-size": 8})
    grid = PoolGrid(choice(knobs), FakePool(1))
    order = [reply.metadata.src_node_id for reply in grid.send_and_receive(requests(grid, knobs))]
    sizes = [len(share(grid.contexts[node].node_config, knobs).train) for node in order]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 1


def test_replies_that_wait_for_an_older_one_are_few(tiny):
    knobs = tiny({"partition.clients": 30})

    class Slow(FakePool):
        """Its first chunk is trained when it has no other."""

        def wait(self, timeout=None):
            self.busy.rotate(-1)
            return super().wait() if len(self.busy) == 1 else self._latest()

        def _latest(self):
            worker, chunk = self.busy.popleft()
            return WorkerReply(worker, memoryview(b"".join(work(chunk, self.request))))

    grid = PoolGrid(choice(knobs, 2), Slow(2))
    waiting, most, expected = set(), 0, iter(grid.get_node_ids())
    oldest = next(expected)
    for reply in grid.send_and_receive(requests(grid, knobs)):
        waiting.add(reply.metadata.src_node_id)
        while oldest in waiting:
            waiting.remove(oldest)
            oldest = next(expected, 0)
        most = max(most, len(waiting))
    assert most <= 4


@pytest.mark.parametrize(("deaths", "lost"), [(1, 0), (2, 1), (9, 5)])
def test_a_dead_worker_s_clients_are_retried_once(tiny, deaths, lost):
    knobs = tiny({"engine": "sequential"})
    grid = PoolGrid(choice(knobs), FakePool(1, deaths))
    replies = list(grid.send_and_receive(requests(grid, knobs)))
    errors = [reply.error.reason for reply in replies if reply.has_error()]
    assert (len(replies), len(errors)) == (5, lost if deaths < 9 else 4)
    assert set(errors) <= {"2 workers died while they trained it: out of memory"}


@pytest.mark.parametrize("size", [1, 2])
def test_of_clients_that_train_together_only_the_killer_is_refused(tiny, size):
    knobs = tiny({"engine": "vectorized", "vectorized.lanes": 3, "vectorized.level": "eager"})
    grid = PoolGrid(choice(knobs), FakePool(size, killer=4))
    replies = list(grid.send_and_receive(requests(grid, knobs)))
    assert len(replies) == 5
    assert [r.metadata.src_node_id for r in replies if r.has_error()] == [4]


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_client_whose_deadline_passes_is_refused_alone(tiny, lanes):
    class Asleep(FakePool):
        """Client 4 never replies."""

        def since(self, worker: int) -> float | None:
            return time.monotonic() - 31 * lanes  # at work for so long

        def wait(self, timeout: float | None = None) -> WorkerReply | None:
            assert timeout == 0
            awake = [one for one in self.busy if not self.sleeps(one[1])]
            if not awake:
                return None
            self.busy.remove(awake[0])
            self.busy.append(awake[0])
            return super().wait()

        def sleeps(self, packed: bytes) -> bool:
            chunk = unpack_chunk(packed, self.request)
            return 4 in [message.metadata.dst_node_id for message, _ in chunk]

    lane_knobs = {"vectorized.lanes": lanes, "vectorized.level": "eager"} if lanes > 1 else {}
    engine_kind = "vectorized" if lanes > 1 else "sequential"
    knobs = tiny({"engine": engine_kind, **lane_knobs, "round.deadline": 30.0})
    grid = PoolGrid(choice(knobs), Asleep(2))
    replies = list(grid.send_and_receive(requests(grid, knobs)))
    late = {r.metadata.src_node_id: r.error.reason for r in replies if r.has_error()}
    assert late == {4: "deadline of 30 s passed"}
    assert len(replies) == 5
    assert not grid.clock.at_work


def test_where_all_workers_die_the_run_ends(tiny):
    knobs = tiny({"engine": "sequential"})
    grid = PoolGrid(choice(knobs), FakePool(2, dies=99))
    with pytest.raises(RuntimeError, match="no worker lived long enough to reply: out of memory"):
        list(grid.send_and_receive(requests(grid, knobs)))


def test_an_error_that_is_no_client_s_ends_the_run(tiny, monkeypatch):
    knobs = tiny({"engine": "sequential"})
    grid = PoolGrid(choice(knobs), FakePool(2))
    monkeypatch.setattr("fl.client.task._trained", lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match="in a worker: ZeroDivisionError"):
        list(grid.send_and_receive(requests(grid, knobs)))


@pytest.mark.slow
def test_an_idle_process_may_die_and_a_round_may_be_abandoned(tiny, processes):
    knobs = tiny({"engine": "sequential"})
    alone = InlineGrid(knobs)
    expected = contents(list(alone.send_and_receive(requests(alone, knobs))))
    left = PoolGrid(choice(knobs), processes).send_and_receive(requests(alone, knobs))
    next(left)
    left.close()  # busy workers are ended
    list(PoolGrid(choice(knobs), processes).send_and_receive(requests(alone, knobs)))
    os.kill(processes.processes()[0], signal.SIGKILL)
    grid = PoolGrid(choice(knobs), processes)
    assert contents(list(grid.send_and_receive(requests(grid, knobs)))) == expected


def passed(buffer: SharedBuffer, pieces: Pieces) -> tuple[memoryview, int | None]:
    """Return what a reader gets of pieces, and how many bytes of it are in shared memory."""
    ours, theirs = multiprocessing.Pipe()
    sent = buffer.write(pieces)
    buffer.send(theirs, sent, pieces)
    return receive(ours), sent


@pytest.mark.slow
def test_replies_come_through_pipes_where_no_memory_can_be_shared(tiny, monkeypatch):
    def full() -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("fl.simulation.workers.shared_memory.nameless", full)
    monkeypatch.setattr("fl.simulation.workers.shared_memory.SMALL", 0)
    found, sent = passed(SharedBuffer(), [b"ab", b"c"])
    assert (bytes(found), sent) == (b"abc", None)
    knobs = tiny({"engine": "sequential"})
    alone = InlineGrid(knobs)
    expected = contents(list(alone.send_and_receive(requests(alone, knobs))))
    with closing(ProcessPool(2)) as pool:
        grid = PoolGrid(choice(knobs), pool)
        assert contents(list(grid.send_and_receive(requests(grid, knobs)))) == expected
        assert pool._buffer.file is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3 * _LARGE), min_size=1, max_size=5))
def test_arrays_pass_through_a_buffer_that_is_written_again(sizes):
    buffer = SharedBuffer()
    noise = np.random.default_rng(len(sizes))
    for turn in range(4):
        expected = [noise.integers(0, 256, size + turn % 3, np.uint8) for size in sizes]
        packed, sent = passed(buffer, pieces := pack([npy.pack(array) for array in expected]))
        assert (sent is not None) == (sum(map(len, pieces)) > SMALL)
        with packed:
            found = unpack(packed)
        for array, values in zip(found, expected, strict=True):
            assert np.array_equal(npy.unpack(array), values)
    buffer.close()


def test_a_buffer_grows_and_keeps_what_readers_have():
    buffer = SharedBuffer()
    first, _ = passed(buffer, [b"a" * 100_000])
    second, _ = passed(buffer, [b"b" * 90_000, b"c" * 200_000])
    assert bytes(second) == b"b" * 90_000 + b"c" * 200_000
    assert bytes(first) == b"b" * 90_000 + b"c" * 10_000  # written again, as its reader knows
    buffer.close()
    assert bytes(second[-2:]) == b"cc"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory has no place to look at")
def test_memory_that_is_shared_has_no_name():
    before = sorted(os.listdir("/dev/shm"))
    buffer = SharedBuffer()
    packed, sent = passed(buffer, [b"a" * 1_000_000])
    assert (len(packed), sent) == (1_000_000, 1_000_000)
    assert sorted(os.listdir("/dev/shm")) == before
    buffer.close()


def test_processes_reply_as_one_process_does_and_keep_clients_states(tiny, tmp_path, processes):
    knobs = tiny({"recipe": "batchnorm", "state.bn": "local", "engine": "sequential"})
    expected = run(knobs, Journal(tmp_path / "alone"))
    grid = PoolGrid(choice(knobs), processes)
    found = serve(grid, knobs, Journal(tmp_path / "pool"), started_by={})
    assert found["model_sha256"] == expected["model_sha256"]
    assert found["final_loss"] == expected["final_loss"]
    states = Journal(tmp_path / "pool").checkpoint()
    assert states is not None
    assert states.clients


@pytest.mark.slow
def test_a_killed_process_costs_nothing(tiny, processes):
    knobs = tiny({"engine": "sequential"})
    grid, alone = PoolGrid(choice(knobs), processes), InlineGrid(knobs)
    replies = grid.send_and_receive(requests(grid, knobs))
    found = [next(replies)]
    victim = processes.processes()[0]
    os.kill(victim, signal.SIGKILL)
    found += replies
    assert victim not in processes.processes()
    expected = contents(list(alone.send_and_receive(requests(alone, knobs))))
    assert contents(found) == expected


@pytest.mark.slow
def test_larger_replies_than_before_fit_too(tiny, processes):
    for width in (4, 16, 8):
        knobs = tiny({"engine": "sequential", "network.width": width})
        grid, alone = PoolGrid(choice(knobs), processes), InlineGrid(knobs)
        expected = contents(list(alone.send_and_receive(requests(alone, knobs))))
        assert contents(list(grid.send_and_receive(requests(grid, knobs)))) == expected


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
    journals = [Journal(tmp_path / str(n)) for n in (1, 2, 3)]
    found = [
        run(knobs, journal, workers=n)["model_sha256"] for n, journal in enumerate(journals, 1)
    ]
    assert len(set(found)) == 1
    first, *others = (journal.signals() for journal in journals)
    assert all(other == first for other in others)
    assert bool(first) == (knobs.signals.every > 0)


@pytest.mark.slow
def test_a_run_goes_on_with_the_workers_that_it_began_with(tiny, tmp_path):
    knobs = tiny({"engine": "sequential", "sampling.clients": 4})
    journal = Journal(tmp_path)
    run(knobs, journal, workers=2)
    assert journal.header()["engine"]["workers"] == 2
