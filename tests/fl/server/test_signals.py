import json

import numpy as np
import pytest
from flwr.app import Message
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st

import fl.client.app
from fl.config.parsing import ConfigError
from fl.data import deal, load
from fl.messages import records
from fl.reproducibility import seeds
from fl.server.app import serve
from fl.server.failures import RunFailed
from fl.server.journal import Journal
from fl.server.watching import monitor
from fl.server.watching.monitor import Divergence
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
    assert [line["round"] for line in lines] == [0] + 4 * [2] + 4 * [3]
    asked = [[c["partition"] for c in journal.clients() if c["round"] == r] for r in (2, 3)]
    partitions = [line.get("partition", "divergence") for line in lines]
    assert partitions == [None, None, *asked[0], "divergence", None, *asked[1], "divergence"]
    measured = [line for line in lines if "layers" in line]
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
    watch = monitor.SignalMonitor(knobs, network).round(0, model)
    assert next(watch.lines(model)) == {**line, "round": 0}
    assert line["scalars"] == {n: model[n].tolist() for n in line["scalars"]}
    assert len(line["scalars"]) == 8
    kernel = model["layers.0.conv.weight"]
    assert line["weights"]["layers.0.conv.weight"]["std"] == pytest.approx(float(kernel.std()))


def test_a_client_measures_the_network_that_it_sends_on_its_own_images(tiny, tmp_path):
    knobs, journal = tiny({"rounds": 1, "sampling.clients": 1, **EVERY}), Journal(tmp_path)
    run(knobs, journal)
    _, after, client, spread = journal.signals()
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
    assert spread["divergence"] == {"scalar_variance": still, "update_cosine": None, "clients": 1}


def test_a_client_that_holds_fewer_images_takes_all_of_them(tiny):
    knobs = tiny({"signals.images": 100})
    mine = deal(knobs)[0][:7]
    inputs, labels = signals.draw(knobs, load(knobs.data.name), mine, "client", 0, "round", 1)
    assert len(inputs) == 7
    dataset = load(knobs.data.name)
    assert sorted(labels.tolist()) == sorted(dataset.train.labels[mine].tolist())


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
    results, accounts = [], []
    for every in (0, 1):
        journal = Journal(tmp_path / str(every))
        results.append(run(tiny({**flat, "signals.every": every}), journal))
        accounts.append([{**client, "seconds": None} for client in journal.clients()])
        assert (tmp_path / str(every) / "signals.jsonl").exists() == bool(every)
    assert results[0]["model_sha256"] == results[1]["model_sha256"]
    assert accounts[0] == accounts[1]
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


def serve_spoiled(knobs, folder, change) -> Journal:
    """Serve clients of which the second changes its signals."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context) -> Message:
        reply = fl.client.task.answer([message], [context])[0]
        if context.node_config["partition-id"] == 1:
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
    assert [line["partition"] for line in journal.signals()[2:-1]] == [0, 2, 3, 4]
    assert journal.signals()[-1]["divergence"]["clients"] == 4


def test_what_is_not_finite_becomes_null(tiny, tmp_path):
    def overflow(content) -> None:
        content["signals"]["acv"] = [float("inf")] * 4 + [float("nan")]

    knobs = tiny({"rounds": 1, "sampling.clients": 5, **EVERY})
    journal = serve_spoiled(knobs, tmp_path, overflow)
    (line,) = [line for line in journal.signals() if line.get("partition") == 1]
    assert [layer["acv"] for layer in line["layers"]] == [None] * 5
    assert all(layer["acsm"] is not None for layer in line["layers"])


def test_a_round_in_which_nobody_answers_is_told(tiny, tmp_path):
    knobs = tiny({"rounds": 1, "fleet.dropout": 1.0, **EVERY})
    with pytest.raises(RunFailed, match="fleet: dropped out"):
        run(knobs, Journal(tmp_path))
    *_, line = Journal(tmp_path).signals()
    empty = {"scalar_variance": {}, "update_cosine": None, "clients": 0}
    assert line == {"round": 1, "divergence": empty}


START = {"w": np.zeros((1, 2), np.float32), "b": np.ones(1, np.float32), "n": np.array(7.0)}


def test_divergence_of_two_clients_by_pencil():
    """Updates (1, 0; 0) and (1, 1; 0) are 45° apart; the buffer n does not count."""
    divergence = Divergence(START, ["w", "b"], ["b"])
    divergence.add({**START, "w": np.array([[1, 0]], np.float32), "n": np.array(9.0)})
    divergence.add({**START, "w": np.array([[1, 1]], np.float32)})
    told = divergence.summary()
    assert told["update_cosine"] == pytest.approx(0.5**0.5)
    assert (told["scalar_variance"], told["clients"]) == ({"b": [0.0]}, 2)


def test_scalars_of_two_clients_by_pencil():
    start = {"s": np.array(1.0, np.float32), "c": np.array([0.0, 1e8])}
    divergence = Divergence(start, ["s", "c"], ["s", "c"])
    divergence.add({"s": np.array(1.0, np.float32), "c": np.array([4.0, 1e8])})
    divergence.add({"s": np.array(4.0, np.float32), "c": np.array([6.0, 1e8 + 2])})
    assert divergence.summary()["scalar_variance"] == {"s": 2.25, "c": [1.0, 1.0]}


def test_a_client_that_did_not_move_has_no_direction():
    divergence = Divergence(START, ["w", "b"], [])
    for step in (0, 1, -1):
        divergence.add({**START, "w": np.full((1, 2), step, np.float32)})
    assert divergence.summary() == {
        "scalar_variance": {},
        "update_cosine": pytest.approx(-1),
        "clients": 3,
    }


VECTORS = st.integers(2, 6).flatmap(
    lambda size: st.lists(
        st.lists(st.floats(-1e3, 1e3, width=32), min_size=size, max_size=size),
        min_size=2,
        max_size=6,
    )
)


@given(VECTORS)
def test_the_cosine_is_the_mean_over_all_pairs(vectors):
    updates = np.array(vectors)
    divergence = Divergence({"w": np.zeros(updates.shape[1])}, ["w"], ["w"])
    for update in updates:
        divergence.add({"w": update})
    moving = [u / np.linalg.norm(u) for u in updates if np.linalg.norm(u)]
    pairs = [float(a @ b) for i, a in enumerate(moving) for b in moving[:i]]
    told = divergence.summary()
    assert told["update_cosine"] == (pytest.approx(np.mean(pairs), abs=1e-9) if pairs else None)
    assert told["scalar_variance"]["w"] == pytest.approx(updates.var(0).tolist(), abs=1e-6)
