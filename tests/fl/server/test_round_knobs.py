"""A round in which clients fail: it may leave the network as it was, or end the run."""

import pytest

from fl.config.parsing import ConfigError
from fl.server.failures import RunFailed
from fl.server.journal import Journal
from fl.simulation import run
from tests.smallest import MOMENTUM

SOME_LOST = {"fleet.dropout": 0.5, "sampling.clients": 4, "rounds": 8, "client.lr": 0.5}


@pytest.mark.parametrize("kind", ["fedavg", "mine"])
def test_a_round_with_too_few_replies_is_as_if_it_had_not_been(tiny, tmp_path, kind):
    file = tmp_path / "mine.py"
    file.write_text(MOMENTUM)
    flat = {**SOME_LOST, "strategy.kind": "fedavg" if kind == "fedavg" else f"{file}:Momentum"}
    journal = Journal(tmp_path / "run")
    run(tiny({**flat, "round.min-replies": 3}), journal)
    lines = journal.rounds()
    clients = [line["round"] for line in journal.clients()]
    few = {line["round"] for line in lines[1:] if line["replied"] == 0}
    assert 0 < len(few) < 8  # else nothing would be shown here
    for line, before in zip(lines[1:], lines, strict=False):
        same = line["test_loss"] == before["test_loss"]
        assert same == (line["round"] in few)
        assert clients.count(line["round"]) == line["replied"] >= (0 if same else 3)
        reasons = {refusal["reason"] for refusal in line["refused"]}
        used = {r for r in reasons if r.endswith("replies can be used, and round.min-replies=3")}
        assert bool(used) <= same
        assert len(line["refused"]) + line["replied"] == 4
    again = Journal(tmp_path / "again")  # all replies are fine, and the rounds that count are equal
    run(tiny({**flat, "round.min-replies": 0}), again)
    first = min(few)
    assert [line["test_loss"] for line in again.rounds()[:first]] == [
        line["test_loss"] for line in lines[:first]
    ]


def test_a_failure_may_end_a_run_which_can_be_gone_on_with(tiny, tmp_path):
    journal = Journal(tmp_path / "run")
    knobs = tiny({"strategy.max-norm": 1e-9, "round.on-failure": "stop"})
    with pytest.raises(RunFailed, match=r"round 1: client \d: its update's norm .*stop"):
        run(knobs, journal)
    assert [line["round"] for line in journal.rounds()] == [0]
    with pytest.raises(RunFailed, match="no reply could be used"):
        run(knobs.replace({"round.on-failure": "continue"}), journal, resume=True)


def test_whom_the_schedule_loses_has_not_failed(tiny, tmp_path):
    journal = Journal(tmp_path / "run")
    run(tiny({**SOME_LOST, "round.on-failure": "stop", "rounds": 2}), journal)
    assert any(line["refused"] for line in journal.rounds())


def test_more_replies_than_are_asked_for_are_refused(tiny):
    with pytest.raises(ConfigError, match=r"round\.min-replies=3 is more than sampling\.clients=2"):
        tiny({"round.min-replies": 3})
