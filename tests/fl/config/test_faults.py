"""Who is faulty in which round is a function of the seed and a path, and odd wishes are refused."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from fl import fleet
from fl.config import Experiment, relevant
from fl.config.faults import spans, within
from fl.config.parsing import ConfigError

SIGN = {"faults.kind": "sign"}
SHARES = st.floats(0.001, 1)


def knobs(flat: dict, clients: int = 20) -> Experiment:
    return Experiment.from_flat({"partition.clients": clients, **flat})


def faulty(experiment: Experiment, number: int) -> set[int]:
    """Return who is faulty in a round, as the fleet's schedule has it."""
    everyone = range(experiment.partition.clients)
    return {c for c in everyone if fleet.work(experiment, c, number, 99).fault}


@given(st.integers(10, 60), SHARES, SHARES, st.integers(1, 1000), st.sampled_from(["same", "anew"]))
@settings(deadline=None, max_examples=25)
def test_a_share_is_exact_and_a_larger_one_holds_the_same_clients(clients, one, two, number, who):
    asked = {**SIGN, "faults.who": who}
    few, many = (
        faulty(knobs({**asked, "faults.share": share}, clients), number)
        for share in sorted([one, two])
    )
    assert few <= many
    assert len(many) == round(max(one, two) * clients)


def test_the_same_clients_are_faulty_in_every_round_or_others_are_drawn():
    drawn = {
        who: [
            faulty(knobs({**SIGN, "faults.share": 0.25, "faults.who": who}), n)
            for n in range(1, 41)
        ]
        for who in ("same", "anew")
    }
    assert len({frozenset(found) for found in drawn["same"]}) == 1
    assert len({frozenset(found) for found in drawn["anew"]}) > 30
    assert set.union(*drawn["anew"]) == set(range(20))
    other = knobs({**SIGN, "faults.share": 0.25, "seed": 2})
    assert faulty(other, 1) != drawn["same"][0]


@given(st.integers(1, 1000))
@settings(deadline=None, max_examples=10)
def test_every_method_meets_the_same_faults(number):
    plain = knobs({**SIGN, "faults.share": 0.3, "faults.who": "anew"})
    others = {"recipe": "batchnorm", "strategy.kind": "fedprox", "strategy.mu": 0.1}
    other = plain.replace({**others, "faults.kind": "labels", "client.lr": 0.1, "rounds": 99})
    assert faulty(plain, number) == faulty(other, number)


def test_clients_and_rounds_are_as_they_are_listed():
    asked = knobs({**SIGN, "faults.clients": "0,3,7-9", "faults.rounds": "2,5-6,9-"})
    found = {number: faulty(asked, number) for number in range(1, 12)}
    assert {n for n, who in found.items() if who} == {2, 5, 6, 9, 10, 11}
    assert {frozenset(who) for who in found.values() if who} == {frozenset({0, 3, 7, 8, 9})}
    assert within(10**9, "all")
    assert spans("") == ()


def test_a_lost_reply_is_lost_by_the_schedule():
    asked = knobs({"faults.kind": "lost", "faults.clients": "4"})
    assert [fleet.work(asked, client, 1, 99).lost for client in (4, 5)] == [fleet.LOST_REPLY, None]


@pytest.mark.parametrize(
    ("flat", "words"),
    [
        ({"faults.kind": "lies"}, "faults.kind=lies"),
        ({"faults.kind": "sign"}, "needs faulty clients"),
        ({"faults.share": 0.3}, "need faults.kind"),
        ({"faults.clients": "1"}, "need faults.kind"),
        ({**SIGN, "faults.share": 1.1}, "faults.share=1.1"),
        ({**SIGN, "faults.share": 0.1, "faults.clients": "1"}, "leave one out"),
        ({**SIGN, "faults.clients": "20"}, "faults.clients=20 should be of 0 to 19"),
        ({**SIGN, "faults.clients": "25-"}, "faults.clients=25- should be of 0 to 19"),
        ({**SIGN, "faults.clients": "3-1"}, "faults.clients=3-1"),
        ({**SIGN, "faults.clients": "one"}, "faults.clients=one"),
        ({**SIGN, "faults.clients": "9" * 5000}, "should be numbers"),
        ({**SIGN, "faults.share": 0.1, "faults.rounds": ""}, "faults.rounds is empty"),
        ({**SIGN, "faults.share": 0.1, "faults.rounds": "-3"}, "faults.rounds=-3"),
        ({**SIGN, "faults.share": 0.1, "faults.factor": 0.0}, "faults.factor=0"),
        ({"faults.kind": "hang", "faults.share": 0.1}, "needs round.deadline"),
        (
            {"faults.kind": "labels", "faults.share": 0.1, "task.kind": "regression"},
            "needs task.kind=classification",
        ),
    ],
)
def test_an_impossible_fault_is_one_line(flat, words):
    with pytest.raises(ConfigError) as error:
        knobs(flat)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_faults_that_nobody_has_leave_the_experiment_as_it_was():
    plain = Experiment()
    assert knobs({"faults.seconds": 3.0}).faults.seconds == 3.0
    assert {key for key in relevant(plain.to_flat()) if key.startswith("faults.")} == {
        "faults.kind"
    }
    some = plain.replace({**SIGN, "faults.share": 0.3})
    assert some.identity != plain.identity
    assert some.replace({"faults.share": 0.2}).identity != some.identity
    told = relevant(some.to_flat())
    assert {"faults.share", "faults.who", "faults.factor", "faults.rounds"} < told.keys()
    assert not {"faults.clients", "faults.seconds"} & told.keys()
