"""A client that takes long is told of, and with a deadline it costs the round nobody else."""

import logging
import time

import pytest
from flwr.app import Message, RecordDict

from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.server.failures import ClientsFailed
from fl.server.journal import Journal
from fl.simulation import InlineGrid, run
from fl.simulation.workers.clock import Clock, watched

SLEEPER = """
import time
from pathlib import Path
from torch.nn.functional import cross_entropy

LEFT = Path({left!r})


def loss(outputs, labels):
    # Sleeps for ever in as many processes as there are files to take away.
    for path in LEFT.glob("*") if outputs.requires_grad else ():  # scores are taken here, too
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        time.sleep(3600)
    return cross_entropy(outputs, labels, reduction="none")
"""


def chunk(*partitions: int) -> list:
    """Return requests of which only the clients are looked at."""
    tiny = Experiment.from_flat({"partition.clients": 9, "sampling.clients": 1})
    contexts = list(InlineGrid(tiny).contexts.values())
    empty = Message(RecordDict(), 1, "train")
    return [(empty, contexts[partition]) for partition in partitions]


class Now:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_deadline_is_as_long_for_each_client_of_a_chunk():
    now = Now()
    clock, began = Clock(30.0, now=now), {0: 0.0, 1: 10.0, 2: None}
    for worker, clients in enumerate(((7,), (1, 2), (3,))):
        clock.begin(worker, chunk(*clients))
    assert clock.wait(began.get) == 30
    now.seconds = 29.9
    assert clock.late(began.get) == []
    now.seconds = 30.0
    assert clock.late(began.get) == [0]
    clock.end(0)
    assert clock.wait(began.get) == 40  # what is still starting has no deadline yet
    now.seconds = 70.0
    assert clock.late(began.get) == [1]


def test_signs_of_life_come_less_and_less_often_and_not_of_what_is_usual(caplog):
    now = Now()
    clock = Clock(where="runs/one", now=now)
    clock.begin(0, chunk(7))
    told = []
    for second in range(0, 600, 10):
        now.seconds = float(second)
        clock.late({0: 0.0}.get)
        told += [second] * len(caplog.records)
        caplog.clear()
    assert told == [60, 120, 240, 480]
    clock.end(0, 0.0)  # it took 590 seconds in the end
    clock.begin(0, chunk(1, 2, 3, 4, 5))
    for second in (700, 1700, 1771):
        now.seconds = float(second)
        clock.late({0: 590.0}.get)
    assert caplog.messages == [
        "runs/one: clients 1, 2, 3, 2 more have trained for 1181 s (round.deadline: none)"
    ]


def test_signs_of_life_are_given_of_clients_in_this_process(caplog, tiny):
    grid = InlineGrid(tiny())
    grid.at_work = time.monotonic() - 61, chunk(3)
    with caplog.at_level(logging.WARNING), watched(grid, Clock(), every=0.01):
        time.sleep(0.1)
    assert caplog.messages == ["client 3 has trained for 61 s (round.deadline: none)"]


def sleeper(tiny, folder, sleepers: int, flat: dict) -> Experiment:
    """Return an experiment of which so many clients sleep for ever."""
    left = folder / "left"
    left.mkdir()
    for number in range(sleepers):
        (left / str(number)).touch()
    file = folder / "sleeper.py"
    file.write_text(SLEEPER.format(left=str(left)))
    sleeps = {"task.loss": f"{file}:loss", "engine": "sequential", "network.kind": "ffnn"}
    return tiny({**sleeps, "sampling.clients": 3, "client.batch-size": 500, **flat})


@pytest.mark.slow
def test_a_client_that_sleeps_costs_itself_and_its_reason_is_in_the_journal(tiny, tmp_path):
    knobs = sleeper(tiny, tmp_path, 1, {"round.deadline": 2.0, "rounds": 2})
    journal = Journal(tmp_path / "run")
    result = run(knobs, journal)  # in one worker, which is a process of its own
    refused = [refusal["reason"] for line in journal.rounds() for refusal in line["refused"]]
    assert refused == ["deadline of 2 s passed"]
    assert [line["replied"] for line in journal.rounds()] == [0, 2, 3]
    assert result["refused"] == 1
    assert journal.header()["knobs"]["round.deadline"] == 2.0


@pytest.mark.slow
def test_if_all_clients_sleep_the_run_ends_and_goes_on_with_other_deadlines(tiny, tmp_path):
    knobs = sleeper(tiny, tmp_path, 3, {"round.deadline": 2.0, "rounds": 2})
    journal = Journal(tmp_path / "run")
    with pytest.raises(ClientsFailed, match=r"round 1: .* deadline of 2 s passed"):
        run(knobs, journal, workers=2)
    awake = run(knobs.replace({"round.deadline": 600.0}), journal, workers=2, resume=True)
    expected = run(knobs.replace({"round.deadline": 0.0}), Journal(tmp_path / "undisturbed"))
    assert awake["model_sha256"] == expected["model_sha256"]
    (resumed,) = journal.header()["resumed"]
    assert (resumed["after_round"], resumed["round.deadline"]) == (0, 600.0)


def test_a_debugger_has_no_deadline(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"add --set round\.deadline=0"):
        run(tiny({"round.deadline": 1.0}), Journal(tmp_path / "run"), debug=True)
    assert not (tmp_path / "run").exists()


def test_a_deadline_is_no_part_of_an_experiment_s_identity(tiny):
    assert tiny({"round.deadline": 1.0, "round.on-failure": "stop"}).identity == tiny().identity
    assert tiny({"round.min-replies": 1}).identity != tiny().identity
