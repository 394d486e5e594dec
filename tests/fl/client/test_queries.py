"""What all clients say of the final network: figures by hand, domains, who never trained."""

import numpy as np
import pytest
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

import fl.client.app
from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.data import load, share
from fl.fleet import available, unseen
from fl.messages import client_state, records
from fl.messages.extras import over_clients
from fl.messages.local import staying
from fl.server.app import serve
from fl.server.journal import MODEL, Journal
from fl.simulation import InlineGrid, run
from fl.tasks import objective
from fl.tasks.metrics import Metric
from fl.training.loop import evaluate
from fl.training.parameters import build_network
from tests.fl.client.conftest import SHORT

SLOW = pytest.mark.slow
FILE = """
import numpy as np
import fl


def domains():
    rng = np.random.default_rng(1)
    labels, owners = np.arange(160) % 2, np.arange(120) // 2 % 3
    images = rng.normal(size=(160, 1, 8, 8)) + labels[:, None, None, None]
    images[:120] += 3 * owners[:, None, None, None]
    names = np.array(["blue", "green", "red"])[owners]
    sets = (images[:120], labels[:120]), (images[120:], labels[120:])
    return fl.Dataset(*sets, domains=(names, None), name="few", classes=2, layout="NCHW")
"""


@pytest.fixture
def domains(tmp_path) -> dict:
    """Make an experiment on three domains of two clients each."""
    file = tmp_path / "domains.py"
    file.write_text(FILE)
    flat = {**SHORT, "data.name": f"{file}:domains", "partition.kind": "natural"}
    flat |= {"partition.alpha": 10.0, "partition.min-size": 5, "sampling.clients": 2}
    return {**flat, "partition.held-out": 0.3, "evaluation.clients": True}


def by_hand(knobs: Experiment, journal: Journal, partition: int) -> float:
    """Score the final network as a client has it, from the run's folder and the data."""
    data, asked = load(knobs), objective(knobs)
    network = build_network(knobs, torch.Generator())
    kept = staying(knobs, network.module, len(data.classes))
    written = journal.checkpoint().clients
    state = {name: torch.tensor(array) for name, array in journal.network(MODEL)[0].items()}
    if partition in written:
        own = client_state.unpack_state(*journal.client_state(partition, written[partition]))
        state |= records.unpack_network(own["own"]) if kept else {}
    network.load(state)
    scored = share({"partition-id": partition}, knobs).scored
    _, (sums,) = evaluate(network, data, scored, asked, asked.metrics[:1])
    return asked.metrics[0].value(sums)


@pytest.mark.parametrize(
    ("local", "recipe"), [("head", "none"), pytest.param("none", "groupnorm", marks=SLOW)]
)
def test_the_result_says_how_the_network_serves_each_client(domains, tmp_path, local, recipe):
    knobs = Experiment.from_flat({**domains, "state.local": local, "recipe": recipe})
    journal = Journal(tmp_path / "run")
    result = run(knobs, journal)
    rows, trained = result["client_scores"], {one["partition"] for one in journal.clients()}
    assert [row["partition"] for row in rows] == list(range(6))
    assert {row["partition"] for row in rows if row["trained"]} == trained
    assert [row["domain"] for row in rows] == [n for n in ("blue", "green", "red") for _ in "12"]
    for row in rows:
        assert row["accuracy"] == by_hand(knobs, journal, row["partition"])
        assert row["held_out"] == len(share({"partition-id": row["partition"]}, knobs).held_out)
    for group, members in {"trained": trained, "unseen": set(range(6)) - trained}.items():
        own = np.array([row["accuracy"] for row in rows if row["partition"] in members])
        assert result[f"{group}_clients"] == len(own) > 0
        assert result[f"{group}_accuracy_mean"] == pytest.approx(own.mean())
        assert result[f"{group}_accuracy_spread"] == pytest.approx(own.std())
        assert result[f"{group}_accuracy_worst_tenth"] == own.min()
    served = result["domains_accuracy"]
    assert served.keys() == {rows[partition]["domain"] for partition in trained}
    for name, figures in served.items():
        own = [row["accuracy"] for row in rows if row["trained"] and row["domain"] == name]
        assert (figures["clients"], figures["mean"]) == (len(own), pytest.approx(np.mean(own)))
    last = journal.rounds()[-1]
    own = [a["personal_correct"] / a["held_out"] for a in journal.clients()]
    assert last["personal_accuracy_mean"] == pytest.approx(np.mean(own))
    assert last["personal_accuracy_worst_tenth"] == min(own)
    assert result["unscored"] == []


@SLOW
def test_scores_change_no_byte_and_are_the_same_on_workers_and_after_a_resume(domains, tmp_path):
    knobs = Experiment.from_flat({**domains, "state.local": "norm", "rounds": 2})
    plain = run(knobs.replace({"evaluation.clients": False}), Journal(tmp_path / "plain"))
    assert not any("trained" in key or "unseen" in key for key in plain)
    here = run(knobs, Journal(tmp_path / "here"))
    there = run(knobs, Journal(tmp_path / "there"), workers=2)
    run(knobs.replace({"rounds": 1}), Journal(tmp_path / "short"))
    longer = run(knobs, Journal(tmp_path / "short"))
    assert plain["model_sha256"] == here["model_sha256"]
    for other in (there, longer):
        assert {k: other[k] for k in here if "second" not in k} == {
            k: here[k] for k in here if "second" not in k
        }


def test_a_client_that_fails_or_lies_is_left_out_with_its_reason(domains, tmp_path):
    def lying(message: Message, context: Context) -> Message:
        reply, place = fl.client.app.score(message, context), context.node_config["partition-id"]
        if place == 1:
            raise RuntimeError("no")
        changes = {2: {"score": 1.5}, 3: {"held-out": 10**6}, 4: {"partition-id": 0}, 5: {"x": 1}}
        record = reply.content["metrics"]
        for key, value in changes.get(place, {}).items():
            record[key] = value
        return reply

    app = ClientApp()
    app.train()(fl.client.app.train)
    app.query("who_are_you")(fl.client.app.who_are_you)
    app.query("score")(lying)
    knobs = Experiment.from_flat({**domains, "recipe": "none"})
    result = serve(InlineGrid(knobs, app), knobs, Journal(tmp_path / "run"), started_by={})
    assert [row["partition"] for row in result["client_scores"]] == [0]
    said = {one["partition"]: one["reason"] for one in result["unscored"]}
    assert said.keys() == {1, 2, 3, 4, 5}
    for partition, words in {1: "no", 2: "score=1.5", 3: "held-out=", 4: "partition 0"}.items():
        assert words in said[partition]
    assert said[5] == "its answer is no score"


def test_images_have_to_be_held_out(tiny):
    with pytest.raises(ConfigError, match=r"set partition\.held-out"):
        tiny({"evaluation.clients": True})
    assert tiny({"evaluation.clients": False}).identity == tiny().identity


class Smaller(Metric):
    name, larger = "smaller", False


def test_the_worst_tenth_is_of_the_bad_end():
    values = [float(n) for n in range(11)]
    assert over_clients([*values, None], Metric())["worst_tenth"] == 1.0
    assert over_clients([*values, None], Smaller())["worst_tenth"] == 9.0
    assert over_clients([None], Metric()) == dict.fromkeys(("mean", "worst_tenth", "spread"))


@pytest.mark.parametrize("kind", ["fedavg", pytest.param("scaffold", marks=SLOW)])
def test_unseen_clients_never_take_part_and_are_scored(domains, tmp_path, kind):
    flat = {**domains, "partition.unseen": 0.5, "sampling.clients": 3, "strategy.kind": kind}
    flat |= {"evaluation.clients": False, "state.local": "head", "recipe": "none", "rounds": 2}
    knobs, journal = Experiment.from_flat(flat), Journal(tmp_path / "run")
    result = run(knobs, journal)
    never, asked = unseen(knobs), [account["partition"] for account in journal.clients()]
    assert len(never) == 3
    assert set(asked) == set(range(6)) - never
    rows = result["client_scores"]
    assert {row["partition"] for row in rows if not row["trained"]} == never
    assert result["unseen_clients"] == result["trained_clients"] == 3
    for row in rows:
        assert row["accuracy"] == by_hand(knobs, journal, row["partition"])
    if kind == "scaffold":  # c is the mean of the c_i of the N that can take part
        network = build_network(knobs, torch.Generator())
        kept = staying(knobs, network.module, 2)
        shared = torch.cat(
            [p.of(network.weights * 0 + (p.name not in kept)).reshape(-1) for p in network.segments]
        )
        own = [client_state.unpack_state(*journal.client_state(p, 2)) for p in set(asked)]
        c_i = [client_state.remembered(state, client_state.VECTORS)["c_i"].numpy() for state in own]
        mean = np.mean(c_i, axis=0)[shared.numpy() > 0]
        np.testing.assert_allclose(journal.checkpoint().strategy["c"], mean, rtol=1e-4, atol=1e-6)


def test_unseen_clients_are_a_draw_of_the_sampling_seed_and_move_nothing_else(tiny):
    one = tiny({"partition.unseen": 0.4, "partition.held-out": 0.2})
    other, more = one.replace({"seed.sampling": 7}), one.replace({"partition.unseen": 0.01})
    assert (len(unseen(one)), len(unseen(more))) == (2, 1)
    draws = {unseen(one.replace({"seed.sampling": seed})) for seed in range(20)}
    assert len(draws) > 3
    assert unseen(other) == unseen(other)
    for number in (1, 2, 30):
        assert set(available(one, number)) == set(range(5)) - unseen(one)
    plain = one.replace({"partition.unseen": 0.0})
    for client in range(5):
        dealt = [share({"partition-id": client}, knobs).train for knobs in (one, plain)]
        assert torch.equal(*dealt)
    assert plain.identity == tiny({"partition.held-out": 0.2}).identity != one.identity


@pytest.mark.parametrize(
    ("flat", "said"),
    [
        ({"partition.unseen": 0.8, "partition.held-out": 0.2}, "leaves 1 clients for sampling"),
        ({"partition.unseen": 0.2}, r"partition\.unseen=0.2 scores networks on held-out images"),
    ],
)
def test_unseen_clients_that_leave_too_few_or_have_no_images_are_refused(tiny, flat, said):
    with pytest.raises(ConfigError, match=said):
        tiny(flat)
