"""A client tells what can't be true: its reply is refused with the reason, and the others go on."""

import math

import numpy as np
import pytest
from flwr.app import Message
from flwr.clientapp import ClientApp

import fl.client.app
from fl.client import task
from fl.messages import node_info, records
from fl.server.app import serve
from fl.server.journal import Journal
from fl.server.nodes import Nodes
from fl.simulation import InlineGrid, run

LIAR = 1


def lying(lies) -> ClientApp:
    """Our client, but for one that tells the first lie in the first round, and so on."""
    app = ClientApp()

    def answered(message, context) -> Message:
        reply = task.answer([message], [context])[0]
        if context.node_config["partition-id"] == LIAR:
            lies[records.read_round(message.content) - 1](reply.content)
        return reply

    app.train()(answered)
    app.query("recalibrate")(answered)
    app.query("who_are_you")(fl.client.app.who_are_you)
    return app


def played(knobs, folder, *lies):
    """Play a round for each lie."""
    knobs, journal = knobs.replace({"rounds": len(lies)}), Journal(folder / "run")
    serve(InlineGrid(knobs, lying(lies)), knobs, journal, started_by={"command": "test"})
    return journal


def reasons_of(journal) -> list[str]:
    """Return why the liar was refused, round by round; it was, and nobody else."""
    refused = [line["refused"] for line in journal.rounds()[1:]]
    assert {one["partition"] for line in refused for one in line} == {LIAR}
    assert {line["partition"] for line in journal.clients()} == {0, 2}
    return [line[0]["reason"] for line in refused]


def says(**figures):
    """Put figures into a reply; `_` stands for `-`."""
    told = {name.replace("_", "-"): value for name, value in figures.items()}
    return lambda content: content["metrics"].update(told)


def tensor(name, value):
    """Fill the first tensor of such a name."""

    def change(content) -> None:
        arrays = records.unpack_arrays(content["arrays"])
        full = next(key for key in arrays if key.endswith(name))
        spoiled = {**arrays, full: np.full_like(arrays[full], value)}
        content["arrays"] = records.pack_arrays(spoiled)

    return change


COUNTS = {
    "num-examples=1000000000000000000, but it said that it holds 16": says(num_examples=10**18),
    "num-examples=17, but it said that it holds 16": says(num_examples=17),
    "num-examples=0, expected a whole number from 1 up": says(num_examples=0),
    "num-examples=-3, expected a whole number from 1 up": says(num_examples=-3),
    "num-examples=15.5, expected a whole number from 1 up": says(num_examples=15.5),
    "held-out=400, but it said that it holds 4": says(held_out=400, personal_correct=400),
    "global-correct=5 is more than held-out=4": says(global_correct=5),
    "examples=16, expected 32 of 16 images in this round": says(examples=16),
    "examples=10000, expected 32": says(examples=10_000),
    "examples=-32, expected a whole number from 0 up": says(examples=-32),
    "steps=0, expected 4 of 16 images in this round": says(steps=0),
    "steps=400, expected 4": says(steps=400),
    "batch-size=1, expected 8": says(batch_size=1),
    "epochs=50, expected 2": says(epochs=50),
    "single-value-steps=5 are more than steps=4": says(single_value_steps=5),
    "seconds=-1.0, expected a finite number from 0": says(seconds=-1.0),
    "seconds=inf, expected a finite number from 0": says(seconds=math.inf),
    "seconds=nan, expected a finite number from 0": says(seconds=math.nan),
    "loss=nan, expected a finite number": says(loss=math.nan),
    "loss=-inf, expected a finite number": says(loss=-math.inf),
    "loss=1e+308, expected a finite number": says(loss=1e308),
    "update-norm=-1.0, expected a finite number from 0": says(update_norm=-1.0),
    "clipped-share=1.5, expected at most 1": says(clipped_share=1.5),
    "clipped-share=-0.5, expected a finite number from 0": says(clipped_share=-0.5),
    "gradient-norm-p90=nan, expected a finite number from 0": says(gradient_norm_p90=math.nan),
    "gradient-norm=nan, expected a finite number from 0": says(gradient_norm=math.nan),
}


def test_a_figure_that_can_t_be_true_is_refused_with_its_reason(small, tmp_path):
    journal = played(small({"client.epochs": 2}), tmp_path, *COUNTS.values())
    for reason, wanted in zip(reasons_of(journal), COUNTS, strict=True):
        assert reason.startswith(wanted)
    assert all(line["train_loss"] > 0 for line in journal.rounds()[1:])


def test_an_infinite_norm_which_a_network_that_diverges_has_is_marked(small, tmp_path):
    journal = played(small(), tmp_path, says(gradient_norm=math.inf))
    assert journal.rounds()[1]["refused"] == []
    assert [line["gradient_norm"] is None for line in journal.clients()] == [False, True, False]


@pytest.mark.parametrize("mode", ["average", "pooled", "recalibrate"])
def test_statistics_of_batchnorm_that_can_t_be_are_refused(small, tmp_path, mode):
    lies = tensor("running_var", -5.0), tensor("running_mean", 1e30)
    journal = played(small({"recipe": "batchnorm", "state.bn": mode}), tmp_path, *lies)
    negative, large = reasons_of(journal)
    assert negative.endswith("running_var holds -5, expected 0 or more")
    assert large.endswith("running_mean holds 1e+30, whose square is more than float32 holds")
    model = journal.checkpoint().model
    assert all(np.isfinite(array).all() for array in model.values())
    assert all((model[key] >= 0).all() for key in model if key.endswith("running_var"))
    assert journal.rounds()[2]["test_loss"] < 10


def scores(**sums):
    return lambda content: content["scores"].update(sums)


SUMS = {
    "auc": {
        "personal has a count of 1e+10, expected 0 to 4": scores(personal=[9e9, 1e10]),
        "personal has a count of 5, expected 0 to 4": scores(personal=[5.0, 4.0]),
        "global has a count of -1, expected 0 to 4": scores(**{"global": [-1.0, 4.0]}),
    },
    "top-5": {"personal has a count of nan, expected 0 to 4": scores(personal=[4.0, math.nan])},
    "macro-f1": {"personal has a count of 1e+06, expected 0 to 4": scores(personal=[1e6] * 9)},
}


@pytest.mark.parametrize("metric", SUMS)
def test_sums_of_a_metric_beyond_what_is_held_out_are_refused(small, tmp_path, metric):
    journal = played(small({"task.metrics": metric}), tmp_path, *SUMS[metric].values())
    assert reasons_of(journal) == [f"scores: {reason}" for reason in SUMS[metric]]
    for line in journal.rounds()[1:]:
        assert 0 <= line[f"personal_{metric.replace('-', '_')}_held_out"] <= 1


def test_a_device_whose_files_grew_is_asked_anew_and_loses_one_round(small, tmp_path, monkeypatch):
    """It is bound to what it said: by the next round it has said more, and it counts."""
    from fl.data import write_shard

    knobs = small({"rounds": 3, "data.name": "devices", "partition.held-out": 0.0})
    dealt = small({"partition.held-out": 0.0})
    grid = InlineGrid(knobs, fl.client.app.app)
    for partition, context in enumerate(grid.contexts.values()):
        folder = write_shard(tmp_path / str(partition), partition, dealt)
        context.node_config["data-path"] = str(folder)
    fit = task.share

    def grown(node_config, knobs):
        mine = fit(node_config, knobs)
        if grid.started and node_config["partition-id"] == LIAR:
            return task.Share(mine.dataset, mine.train.repeat(2), mine.held_out, 0.0, "shard")
        return mine

    grid.started = False
    ask = grid.send_and_receive

    def asked(messages, *, timeout=None):
        messages = list(messages)
        grid.started |= messages[0].metadata.message_type == "train"
        yield from ask(messages, timeout=timeout)

    monkeypatch.setattr(task, "share", grown)
    monkeypatch.setattr(grid, "send_and_receive", asked)
    journal = Journal(tmp_path / "run")
    serve(grid, knobs, journal, started_by={"command": "test"})
    reason = "num-examples=40, but it said that it holds 20"
    assert journal.rounds()[1]["refused"] == [{"partition": LIAR, "reason": reason}]
    assert [line["refused"] for line in journal.rounds()[2:]] == [[], []]
    assert [line["held"] for line in journal.clients() if line["partition"] == LIAR] == [40, 40]


SAID = {
    "images and 4 held-out ones, and partition 1 was dealt 16 and 4": {"images": 10**18},
    "16 images and 5 held-out ones, and partition 1 was dealt 16 and 4": {"held-out": 5},
    "it says that it holds 1000000000000000000 images, more than": {
        "images": 10**18, "source": "own",
    },
    "its shard was dealt from data with the SHA-256 abababababab, and data.name=": {
        "source": "shard", "dealt-from": "ab" * 32,
    },
    "expected dealt, shard or own": {"source": "elsewhere"},
    "images=-1, expected a whole number from 0": {"images": -1},
    "images=16.0, expected a whole number": {"images": 16.0},
    "classes=0, expected a whole number from 1 to 1000000": {"classes": 0},
    "classes=100000000000, expected": {"classes": 10**11},
    "a side of shape=-1, expected": {"shape": [1, -1, 8]},
    "up to 8 sides of an example": {"shape": [1] * 100_000},
    "partition-id='1', expected a whole number": {"partition-id": "1"},
}  # fmt: skip


@pytest.mark.parametrize(("reason", "lie"), SAID.items(), ids=SAID)
def test_a_node_that_says_what_can_t_be_is_left_out(small, monkeypatch, reason, lie):
    tell = node_info.describe

    def odd(partition, mine):
        content = tell(partition, mine)
        if partition == LIAR:
            content["config"].update(lie)
        return content

    monkeypatch.setattr(node_info, "describe", odd)
    knobs = small({"devices.least": 2, "devices.wait": 0.0})
    nodes = Nodes(InlineGrid(knobs, fl.client.app.app), knobs)
    nodes.gather()
    assert sorted(nodes.nodes) == [0, 2]
    (left_out,) = [one for one in nodes.absent() if one["reason"] != "not connected"]
    assert reason in left_out["reason"]
    assert len(left_out["reason"]) < 500


HONEST = {
    "unequal devices": {
        "fleet.memory": "1:0.4,4:0.3,16:0.3", "fleet.stragglers": 0.5, "client.epochs": 3,
        "fleet.speeds": "lognormal:20:0.5", "fleet.deadline": 2.0,
    },
    "dropout": {"fleet.dropout": 0.5, "fleet.stragglers": 0.5, "fleet.partial": "drop"},
    "lanes": {"engine": "vectorized", "vectorized.lanes": 2, "recipe": "batchnorm"},
    "private": {"privacy.kind": "client", "privacy.noise": 0.5, "strategy.kind": "fedprox"},
    "pooled": {"recipe": "batchnorm", "state.bn": "pooled", "client.batch-size": 5},
    "recalibrated": {"recipe": "batchnorm", "state.bn": "recalibrate"},
    "local": {"recipe": "batchnorm", "state.bn": "local", "signals.every": 1},
    "auc": {"task.metrics": "auc,top-5"},
    "macro-f1": {"task.metrics": "macro-f1", "partition.kind": "dirichlet"},
    "balanced": {"task.metrics": "balanced-accuracy", "partition.held-out": 0.0},
    "batches of one": {"client.batch-size": 1, "recipe": "batchnorm"},
    "diverging": {"client.lr": 1e6, "recipe": "none", "network.init": "he", "network.depth": 8},
}  # fmt: skip
_QUICK = ("unequal devices", "pooled", "macro-f1")


@pytest.mark.parametrize(
    "flat",
    [
        pytest.param(f, id=n, marks=() if n in _QUICK else pytest.mark.slow)
        for n, f in HONEST.items()
    ],
)
def test_an_honest_client_is_never_refused_for_what_it_tells(small, tmp_path, flat):
    knobs, journal = small({"rounds": 3, **flat}), Journal(tmp_path / "run")
    run(knobs, journal)
    reasons = {r["reason"] for line in journal.rounds() for r in line["refused"]}
    diverged = "holds values that are not finite"
    assert not {why for why in reasons if not (why.startswith("fleet: ") or why.endswith(diverged))}
