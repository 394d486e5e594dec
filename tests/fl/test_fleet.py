import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from fl import fleet
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.server.failures import RunFailed
from fl.server.journal import Journal
from fl.simulation import run

CLOCK = {"fleet.speeds": "lognormal:100:0.5"}
ROUNDS, CLIENTS = st.integers(1, 10_000), st.integers(0, 19)


def knobs(flat=None, **more) -> Experiment:
    return Experiment.from_flat({"client.epochs": 10, **(flat or {}), **more})


def test_without_a_fleet_all_devices_do_what_is_asked():
    plain = fleet.Work(batch_size=4, epochs=10, seconds=None, lost=None)
    assert {fleet.work(knobs(), client, 7, 250) for client in range(20)} == {plain}
    assert fleet.available(knobs(), 3) == list(range(20))
    assert fleet.round_seconds(knobs(), [plain]) is None


@given(ROUNDS, CLIENTS, st.floats(0, 1), st.sampled_from(["keep", "drop"]))
@settings(deadline=None)
def test_every_method_meets_the_same_fleet(number, client, share, partial):
    flat = {**CLOCK, "fleet.stragglers": share, "fleet.partial": partial, "fleet.dropout": 0.3}
    flat |= {"fleet.memory": "1:0.5,8:0.5", "fleet.deadline": 30.0}
    plain = knobs(flat)
    others = {"recipe": "batchnorm", "strategy.kind": "fedprox", "strategy.mu": 0.1}
    other = plain.replace({**others, "client.lr": 0.1, "network.depth": 3})
    assert fleet.work(plain, client, number, 99) == fleet.work(other, client, number, 99)
    assert fleet.available(plain, number) == fleet.available(other, number)


@given(ROUNDS, CLIENTS)
@settings(deadline=None)
def test_who_straggles_at_half_straggles_at_ninety_per_cent(number, client):
    none, half, most = (
        fleet.work(knobs({"fleet.stragglers": share}), client, number, 99).epochs
        for share in (0.0, 0.5, 0.9)
    )
    assert none == 10
    assert 1 <= most <= half <= 10


def test_stragglers_do_uniformly_many_epochs():
    works = [
        fleet.work(knobs({"fleet.stragglers": 1.0}), client, number, 99).epochs
        for number in range(1, 501)
        for client in range(4)
    ]
    counts = np.bincount(works, minlength=11)[1:]
    assert counts.sum() == 2000
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # chi-squared, 9 degrees, p = 0.001


def test_the_share_of_stragglers_and_dropouts_is_as_asked():
    asked = knobs({"fleet.stragglers": 0.9, "fleet.dropout": 0.2}, **{"client.epochs": 1000})
    works = [fleet.work(asked, client, n, 99) for n in range(1, 201) for client in range(10)]
    assert np.mean([work.epochs < 1000 for work in works]) == pytest.approx(0.9, abs=0.03)
    lost = [work.lost for work in works]
    assert lost.count(fleet.DROPPED_OUT) / 2000 == pytest.approx(0.2, abs=0.03)
    assert set(lost) == {None, fleet.DROPPED_OUT}


@given(ROUNDS, CLIENTS, st.floats(0, 1), st.floats(0.01, 1000), st.integers(1, 5000))
@settings(deadline=None)
def test_nobody_is_late_and_dropping_keeps_whole_work_only(number, client, share, deadline, images):
    flat = {**CLOCK, "fleet.stragglers": share, "fleet.deadline": deadline}
    keep = fleet.work(knobs(flat), client, number, images)
    drop = fleet.work(knobs(flat, **{"fleet.partial": "drop"}), client, number, images)
    assert keep.seconds <= deadline * (1 + 1e-9)
    assert (keep.lost == fleet.LATE) == (keep.epochs == 0)
    assert (drop.lost is None) == (drop.epochs == 10)
    assert keep.seconds == pytest.approx(keep.epochs * images / fleet.speed(knobs(flat), client))


def test_a_round_lasts_until_its_last_reply_or_its_deadline():
    works = [fleet.Work(1, 1, 3.0, None), fleet.Work(1, 1, 8.0, fleet.STRAGGLED)]
    assert fleet.round_seconds(knobs(CLOCK), works) == 3.0
    assert fleet.round_seconds(knobs({**CLOCK, "fleet.deadline": 9.0}), works) == 9.0
    assert fleet.round_seconds(knobs(CLOCK), works[1:]) == 0.0


def test_speeds_are_lognormal_around_their_median():
    asked = knobs(CLOCK, **{"partition.clients": 1000})
    logs = [math.log(fleet.speed(asked, client)) for client in range(1000)]
    assert np.median(logs) == pytest.approx(math.log(100), abs=0.06)
    assert np.std(logs) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("clients", [10, 20, 100])
def test_tiers_hold_exact_shares_of_the_devices(clients):
    asked = knobs({"fleet.memory": "1:0.3,4:0.4,16:0.3"}, **{"partition.clients": clients})
    sizes = [fleet.batch_size(asked, client) for client in range(clients)]
    assert {size: sizes.count(size) / clients for size in sizes} == {1: 0.3, 4: 0.4, 16: 0.3}
    assert sizes != sorted(sizes)


def test_clients_come_and_go_once_a_day():
    asked = knobs({"fleet.availability": 0.25, "fleet.day": 12}, **{"partition.clients": 400})
    there = np.array([[c in set(fleet.available(asked, n)) for c in range(400)] for n in range(24)])
    assert (there[:12].sum(axis=0) == 3).all(), "a quarter of each day"
    assert (there[:12] == there[12:]).all(), "every day"
    changes = (there[:12] != np.roll(there[:12], 1, axis=0)).sum(axis=0)
    assert (changes == 2).all(), "in one piece"
    assert there.mean(axis=1) == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize(
    ("flat", "words"),
    [
        ({"fleet.memory": "1:0.3,4:0.3"}, "shares sum to 1"),
        ({"fleet.memory": "0:1"}, "fleet.memory=0:1"),
        ({"fleet.memory": "4"}, "fleet.memory=4"),
        ({"fleet.speeds": "fast"}, "fleet.speeds=fast"),
        ({"fleet.speeds": "lognormal:0:1"}, "fleet.speeds=lognormal:0:1"),
        ({"fleet.speeds": "lognormal:nan:1"}, "fleet.speeds=lognormal:nan:1"),
        ({"fleet.deadline": 3.0}, "needs a clock"),
        ({"fleet.stragglers": 1.5}, "fleet.stragglers=1.5"),
        ({"fleet.availability": 0.0}, "fleet.availability=0"),
    ],
)
def test_an_impossible_fleet_is_one_line(flat, words):
    with pytest.raises(ConfigError) as error:
        knobs(flat)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_the_journal_shows_who_did_how_much(tiny, tmp_path):
    asked = {"client.epochs": 3, "sampling.clients": 5, "fleet.stragglers": 0.9, **CLOCK}
    asked |= {"fleet.memory": "8:0.2,32:0.8", "fleet.dropout": 0.3}
    experiment, journal = tiny(asked), Journal(tmp_path / "run")
    result = run(experiment, journal)
    lines, accounts = journal.rounds()[1:], journal.clients()
    assert [line["asked"] for line in lines] == [5, 5]
    for account in accounts:
        partition, number = account["partition"], account["round"]
        work = fleet.work(experiment, partition, number, account["held"])
        assert (account["epochs"], account["batch_size"]) == (work.epochs, work.batch_size)
        assert account["examples"] == work.epochs * account["held"]
        assert account["steps"] == work.epochs * -(-account["held"] // work.batch_size)
    reasons = [refusal["reason"] for line in lines for refusal in line["refused"]]
    assert set(reasons) == {fleet.DROPPED_OUT}
    assert len(accounts) + len(reasons) == 10
    again = run(experiment, Journal(tmp_path / "again"))
    assert again["simulated_seconds"] == result["simulated_seconds"] > 0
    assert again["model_sha256"] == result["model_sha256"]


def test_a_round_in_which_the_fleet_loses_everybody_is_survived(tiny, tmp_path):
    """Both rounds are played and kept, and then the run says that nothing was trained."""
    journal = Journal(tmp_path)
    with pytest.raises(RunFailed, match=r"4 were refused.*fleet: dropped out"):
        run(tiny({"fleet.dropout": 1.0}), journal)
    lines = journal.rounds()
    assert [line["asked"] for line in lines] == [0, 2, 2]
    assert {(line["images"], line["bytes_down"]) for line in lines} == {(0, 0)}
    assert len({line["test_accuracy"] for line in lines}) == 1
    assert journal.result() is None


def test_nobody_may_be_there_at_all(tiny, tmp_path):
    journal = Journal(tmp_path)
    run(tiny({"fleet.availability": 0.01, "fleet.day": 1000}), journal)
    assert [line["asked"] for line in journal.rounds()] == [0, 0, 0]
