import json

import numpy as np
import pytest
from flwr.app import Message
from flwr.clientapp import ClientApp

import fl.client.app
from fl.config.parsing import ConfigError
from fl.data import deal, load
from fl.messages import records
from fl.reproducibility import seeds
from fl.server.app import serve
from fl.server.failures import RunFailed
from fl.server.journal import Journal
from fl.server.watching import monitor
from fl.simulation import InlineGrid, run
from fl.training import parameters, signals
from tests.callbacks import EachRound

EVERY = {"signals.every": 1}


def network_of(knobs) -> parameters.FlatNetwork:
    return parameters.build_network(knobs, seeds.torch_stream(knobs.seed, "init"))


def is_global(line: dict) -> bool:
    return "layers" in line and line["partition"] is None


def test_what_is_measured_and_when(tiny, tmp_path):
    knobs = tiny({"rounds": 3, "signals.every": 2, "signals.images": 8})
    journal = Journal(tmp_path)
    run(knobs, journal)
    lines = journal.signals()
    assert [line["round"] for line in lines] == [0] + 6 * [2] + 6 * [3]
    asked = [[c["partition"] for c in journal.clients() if c["round"] == r] for r in (2, 3)]
    partitions = [line.get("partition", "divergence") for line in lines]
    told = [[None, *there, *there, "divergence"] for there in asked]
    assert partitions == [None, *told[0], *told[1]]
    measured = [line for line in lines if "layers" in line]
    batches = ["common", "own", "own", "common", "common"]
    assert [line["batch"] for line in measured] == ["common", *batches, *batches]
    assert {line["images"] for line in measured} == {8}
    names = [f"layers.{i}.{part}" for i in (0, 1) for part in ("conv", "activation")]
    kinds = ["weights", "activation"] * 2 + ["weights"]
    for line in measured:
        assert [layer["name"] for layer in line["layers"]] == [*names, "classifier"]
        assert [layer["kind"] for layer in line["layers"]] == kinds
        assert [layer["dead"] is None for layer in line["layers"]] == [
            k == "weights" for k in kinds
        ]
        assert all(layer["branch_acv"] is None for layer in line["layers"])
        assert all(layer["gradient_acv"] > 0 for layer in line["layers"])
        assert ("weights" in line) == is_global(line)


def test_the_global_line_is_of_the_network_that_the_round_has_left(tiny, tmp_path):
    knobs, journal = tiny({"recipe": "salunet", **EVERY}), Journal(tmp_path)
    run(knobs, journal)
    network, model = network_of(knobs), journal.checkpoint().model
    network.load(records.unpack_network(records.pack_arrays(model)))
    line = [line for line in journal.signals() if is_global(line)][-1]
    watch = monitor.SignalMonitor(knobs, network, ()).round(0, model)
    assert next(watch.lines(model)) == {**line, "round": 0}
    assert line["scalars"] == {n: model[n].tolist() for n in line["scalars"]}
    assert len(line["scalars"]) == 8
    kernel = model["layers.0.conv.weight"]
    assert line["weights"]["layers.0.conv.weight"]["std"] == pytest.approx(float(kernel.std()))


def test_a_client_measures_the_network_that_it_sends_on_its_own_images(tiny, tmp_path):
    knobs, journal = tiny({"rounds": 1, "sampling.clients": 1, **EVERY}), Journal(tmp_path)
    run(knobs, journal)
    _, after, client, _, spread = journal.signals()
    mine = deal(knobs)[k := client["partition"]]
    batch = signals.draw(knobs, load(knobs.data.name), mine, "client", k, "round", 1)
    dataset = load(knobs.data.name)
    own = {image.numpy().tobytes() for image in dataset.inputs(dataset.train.images[mine])}
    assert len({image.numpy().tobytes() for image in batch[0]} & own) == client["images"] == 32
    network = network_of(knobs)  # the mean of one client is that client
    network.load(records.unpack_network(records.pack_arrays(journal.checkpoint().model)))
    figures = signals.measure(network, batch).figures
    found = [[layer[f] for f in monitor._FIGURES] for layer in client["layers"]]
    np.testing.assert_array_equal(np.array(found, float), figures)
    assert client["scalars"] == after["scalars"]
    still = dict.fromkeys(after["scalars"], 0.0)
    told = spread["divergence"]
    layers = told.pop("layers")
    assert told == {
        "scalar_variance": still,
        "update_cosine": None,
        "cancelled": pytest.approx(0, abs=1e-12),
        "clients": 1,
    }
    of_layer = {"update_cosine": None, "cancelled": pytest.approx(0, abs=1e-12)}
    names = [name.rpartition(".")[0] for name, _ in network.module.named_parameters()]
    assert layers == dict.fromkeys(names, of_layer)


@pytest.mark.parametrize("recipe", ["batchnorm", "zc-swish"])
def test_the_mean_of_one_client_has_its_signals_in_the_common_batch(tiny, tmp_path, recipe):
    """Before and after averaging one batch is measured, so what averaging leaves alone stays."""
    journal = Journal(tmp_path)
    run(tiny({"recipe": recipe, "rounds": 1, "sampling.clients": 1, **EVERY}), journal)
    before, after, own, common, _ = journal.signals()
    assert common["layers"] == after["layers"] != before["layers"]
    assert common["layers"] != own["layers"]
    assert common["partition"] == own["partition"]
    norms = [layer["name"] for layer in common["layers"] if layer["kind"] == "norm"]
    assert bool(norms) == (recipe == "batchnorm")
    assert own["statistics"] == {name: {"mean": 0.0, "variance": 0.0} for name in norms}


@pytest.mark.parametrize("fixed", [0, 1])
def test_statistics_of_clients_are_apart_unless_they_are_fixed(tiny, tmp_path, fixed):
    journal = Journal(tmp_path)
    run(tiny({"recipe": "batchnorm", "rounds": 1, "state.fixed-from": fixed, **EVERY}), journal)
    lines = [line["statistics"] for line in journal.signals() if "statistics" in line]
    gaps = [gap["mean"] for told in lines for gap in told.values()]
    assert len(gaps) == 4
    assert all(gap == 0 if fixed else gap > 0 for gap in gaps)


@pytest.mark.parametrize(
    ("flat", "clients"),
    [
        ({"state.bn": "local"}, 2),
        ({"state.bn": "drop"}, 2),
        ({"state.bn": "local", "state.fixed-from": 1}, 0),
        ({"state.bn": "local", "recipe": "fbn"}, 0),
        ({"state.local": "norm"}, 0),
        ({"state.local": "head"}, 0),
    ],
)
def test_a_network_is_measured_if_the_server_has_all_that_training_uses(
    tiny, tmp_path, flat, clients
):
    """Where only running statistics stay, it has, unless training normalizes by them."""
    journal = Journal(tmp_path)
    run(tiny({"recipe": "batchnorm", "rounds": 1, **flat, **EVERY}), journal)
    common = [line for line in journal.signals() if line.get("batch") == "common"]
    assert sum(line["partition"] is not None for line in common) == clients
    own = [line for line in journal.signals() if line.get("batch") == "own"]
    assert [bool(line["statistics"]) for line in own] == ["head" in flat.values()] * 2
    parts = journal.signals()[-1]["divergence"]["layers"]
    assert any("norm" in name for name in parts) == ("norm" not in flat.values())
    assert ("classifier" in parts) == ("head" not in flat.values())


def test_what_is_cancelled_is_weighed_by_examples(tiny, tmp_path):
    """Of clients of unequal size, w̄ is the network that FedAvg leaves."""
    knobs = tiny({"rounds": 2, "partition.alpha": 0.3, "sampling.clients": 5, **EVERY})
    replies = []

    def keep(content) -> None:
        network = {k: a.copy() for k, a in records.unpack_arrays(content["arrays"]).items()}
        replies.append((records.figures(content)["held"], network))

    journal = serve_spoiled(knobs, tmp_path, keep, everyone=True)
    first, last = replies[:5], replies[5:]
    assert len({held for held, _ in last}) > 1
    start = {k: sum(h * w[k] for h, w in first) / sum(h for h, _ in first) for k in first[0][1]}
    after = journal.checkpoint().model
    off = sum(h * np.square(w[k] - after[k]).sum() for h, w in last for k in after)
    moved = sum(h * np.square(w[k] - start[k]).sum() for h, w in last for k in after)
    told = journal.signals()[-1]["divergence"]["cancelled"]
    assert told == pytest.approx(off / moved, rel=1e-3)


def test_a_client_that_holds_fewer_images_takes_all_of_them(tiny):
    knobs = tiny({"signals.images": 100})
    mine = deal(knobs)[0][:7]
    inputs, labels = signals.draw(knobs, load(knobs.data.name), mine, "client", 0, "round", 1)
    assert len(inputs) == 7
    dataset = load(knobs.data.name)
    assert sorted(labels.tolist()) == sorted(dataset.train.labels[mine].tolist())


TIMES = ("seconds", "train_seconds", "eval_seconds", "link")
"""What measuring changes of a round's line."""
NOISY = {"network.kind": "resnet", "network.depth": 8} | {
    "network.dropout": 0.3,
    "network.stochastic-depth": 0.5,
}


@pytest.mark.parametrize(
    "flat",
    [
        {"recipe": "zc-swish", "data.augment": "crop-flip", **NOISY},
        {"recipe": "batchnorm", "partition.held-out": 0.2, "partition.kind": "feature-noise"},
        pytest.param({"recipe": "batchnorm", "state.bn": "local"}, marks=pytest.mark.slow),
        pytest.param(
            {"recipe": "batchnorm", "state.bn": "recalibrate", **NOISY}, marks=pytest.mark.slow
        ),
    ],
    ids=["zc-swish", "batchnorm", "local", "recalibrate"],
)
def test_measuring_changes_no_result(tiny, tmp_path, flat):
    results, accounts, rounds = [], [], []
    for every in (0, 1):
        journal = Journal(tmp_path / str(every))
        results.append(run(tiny({**flat, "signals.every": every}), journal))
        accounts.append([{**client, "seconds": None} for client in journal.clients()])
        rounds.append([{k: v for k, v in x.items() if k not in TIMES} for x in journal.rounds()])
        assert (tmp_path / str(every) / "signals.jsonl").exists() == bool(every)
    assert results[0]["model_sha256"] == results[1]["model_sha256"]
    assert accounts[0] == accounts[1]
    assert rounds[0] == rounds[1]
    assert results[0]["bytes_up"] == results[1]["bytes_up"]


def test_a_resumed_run_has_the_signals_of_an_undisturbed_one(tiny, tmp_path):
    knobs, end, finished = tiny(EVERY), tmp_path / "stopped", 1
    run(knobs, Journal(tmp_path / "undisturbed"))

    def stop(line: dict) -> None:
        if line["round"] == finished:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(knobs, Journal(end), callbacks=[EachRound(stop)])
    with (end / "signals.jsonl").open(
        "a"
    ) as file:  # as a kill in the next round's commit leaves it
        file.write(json.dumps({"round": finished + 1, "partition": None}) + '\n{"round": 9, "part')
    run(knobs, Journal(end), resume=True)
    undisturbed = (tmp_path / "undisturbed" / "signals.jsonl").read_bytes()
    assert (end / "signals.jsonl").read_bytes() == undisturbed


def test_a_run_goes_on_as_it_began_to_measure(tiny, tmp_path):
    run(tiny(EVERY), Journal(tmp_path))
    with pytest.raises(ConfigError, match=r"signals\.every=1 there, 2 here") as error:
        run(tiny({"signals.every": 2}), Journal(tmp_path), resume=True)
    assert "\n" not in str(error.value)


def serve_spoiled(knobs, folder, change, everyone=False) -> Journal:
    """Serve clients of which the second, or everyone, changes its reply."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context) -> Message:
        reply = fl.client.task.answer([message], [context])[0]
        if everyone or context.node_config["partition-id"] == 1:
            change(reply.content)
        return reply

    app.query("who_are_you")(fl.client.app.who_are_you)
    journal = Journal(folder)
    serve(InlineGrid(knobs, app), knobs, journal, started_by={})
    return journal


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.pop("signals"), "expected arrays and metrics and signals"),
        (lambda c: c["signals"].pop("acsm"), "signals ['acsm'] are missing or unknown"),
        (lambda c: c["signals"].update({"acsm": [0.1]}), "acsm is 1 values, expected 5 numbers"),
    ],
)
def test_bad_signals_cost_one_client(tiny, tmp_path, change, reason):
    knobs = tiny({"rounds": 1, "sampling.clients": 5, **EVERY})
    journal = serve_spoiled(knobs, tmp_path, change)
    (refused,) = journal.rounds()[1]["refused"]
    assert refused["partition"] == 1
    assert reason in refused["reason"]
    assert [line["partition"] for line in journal.signals()[2:-1]] == [0, 2, 3, 4] * 2
    assert journal.signals()[-1]["divergence"]["clients"] == 4


def test_what_is_not_finite_becomes_null(tiny, tmp_path):
    def overflow(content) -> None:
        content["signals"]["acv"] = [float("inf")] * 4 + [float("nan")]

    knobs = tiny({"rounds": 1, "sampling.clients": 5, **EVERY})
    journal = serve_spoiled(knobs, tmp_path, overflow)
    lines = [line for line in journal.signals() if line.get("partition") == 1]
    (line,) = [line for line in lines if line["batch"] == "own"]
    assert [layer["acv"] for layer in line["layers"]] == [None] * 5
    assert all(layer["acsm"] is not None for layer in line["layers"])


def test_a_round_in_which_nobody_answers_is_told(tiny, tmp_path):
    knobs = tiny({"rounds": 1, "fleet.dropout": 1.0, **EVERY})
    with pytest.raises(RunFailed, match="fleet: dropped out"):
        run(knobs, Journal(tmp_path))
    *_, line = Journal(tmp_path).signals()
    nothing = {"update_cosine": None, "cancelled": None}
    layers = dict.fromkeys(line["divergence"]["layers"], nothing)
    empty = {"scalar_variance": {}, **nothing, "clients": 0, "layers": layers}
    assert line == {"round": 1, "divergence": empty}
    assert layers
