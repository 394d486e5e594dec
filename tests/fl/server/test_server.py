import numpy as np
import pytest
import torch
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp

import fl.client.app
import fl.server.rounds
import fl.training.loop
from fl.config.parsing import ConfigError
from fl.data import deal, share, validation
from fl.messages import records
from fl.server import opening
from fl.server.app import serve
from fl.server.failures import RunFailed
from fl.server.journal import Journal
from fl.server.nodes import Nodes
from fl.server.replies import Replies
from fl.simulation import InlineGrid
from strategies.serving.server import Averaging, Sampler
from tests.callbacks import EachRound

pytestmark = pytest.mark.checked


def app_with(spoil=None, remember: bool = False) -> ClientApp:
    """Our client, whose reply passes through `spoil(partition, reply)` on its way out."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = fl.client.task.answer([message], [context])[0]
        if remember:
            count = context.state.config_records.get("memory", {"count": 0})["count"] + 1
            context.state["memory"] = ConfigRecord({"count": count})
            arrays = records.unpack_arrays(reply.content["arrays"])
            arrays["classifier.bias"] = arrays["classifier.bias"] + np.float32(count)
            reply.content["arrays"] = records.pack_arrays(arrays)
        if spoil:
            spoil(context.node_config["partition-id"], reply)
        return reply

    app.query("who_are_you")(fl.client.app.who_are_you)
    return app


def serve_with(app: ClientApp, knobs, folder, **options) -> tuple[dict, Journal]:
    journal = Journal(folder)
    grid = InlineGrid(knobs, app)
    return serve(grid, knobs, journal, started_by={"command": "test"}, **options), journal


def everybody(tiny, **flat):
    return tiny({"sampling.clients": 5, "rounds": 1, **flat})


def nodes_of(grid, knobs) -> dict[int, int]:
    """Return partition id -> node id, once all are there."""
    federation = Nodes(grid, knobs)
    federation.gather()
    return federation.nodes


def mean_of(journal: Journal, knobs, without: int) -> dict[str, np.ndarray]:
    """Train every client but one by hand and average."""
    grid = InlineGrid(knobs)
    start = fl.training.parameters.build_network(
        knobs, fl.reproducibility.seeds.torch_stream(knobs.seed, "init")
    ).state()
    content = {"arrays": records.pack_network(start), "config": ConfigRecord({"server-round": 1})}
    nodes = [node for p, node in nodes_of(grid, knobs).items() if p != without]
    messages = [Message(RecordDict(content), node, "train") for node in nodes]
    networks, weights = [], []
    for reply in grid.send_and_receive(messages):
        networks.append(records.unpack_arrays(reply.content["arrays"]))
        weights.append(reply.content["metrics"]["num-examples"])
    total = sum(weights)
    return {
        name: sum(w * n[name].astype(float) for w, n in zip(weights, networks, strict=True)) / total
        for name in networks[0]
    }


def nan(partition: int, reply: Message) -> None:
    if partition == 2:
        arrays = records.unpack_arrays(reply.content["arrays"])
        arrays["classifier.bias"] = arrays["classifier.bias"] * np.nan
        reply.content["arrays"] = records.pack_arrays(arrays)


def wrong_shape(partition: int, reply: Message) -> None:
    if partition == 2:
        arrays = {**records.unpack_arrays(reply.content["arrays"]), "classifier.bias": np.zeros(3)}
        reply.content["arrays"] = records.pack_arrays(arrays)


def explode(partition: int, reply: Message) -> None:
    if partition == 2:
        raise MemoryError("no room")


def spoiled(change):
    """Spoil the reply of client 2."""

    def spoil(partition: int, reply: Message) -> None:
        if partition == 2:
            change(reply.content)

    return spoil


def with_bias(**declared):
    """Give the classifier's bias another form than its bytes, or other bytes than its form."""

    def change(content) -> None:
        good = content["arrays"]["classifier.bias"]
        form = {"dtype": good.dtype, "shape": good.shape, "stype": good.stype, "data": good.data}
        content["arrays"]["classifier.bias"] = Array(**(form | declared))

    return change


BYTES = {n: Array(np.zeros(n, np.float32)).data for n in (1, 3)}
LIES = {
    "garbage": (with_bias(data=b"garbage"), "classifier.bias can't be read"),
    "one value for ten": (with_bias(data=BYTES[1]), "expected float32 (10,)"),
    "three values for ten": (with_bias(data=BYTES[3]), "expected float32 (10,)"),
    "int8 for float32": (with_bias(data=Array(np.zeros(10, np.int8)).data), "is int8 (10,)"),
    "a list": (lambda c: c["metrics"].update({"loss": [0.1, 0.2]}), "loss=[0.1, 0.2], expected"),
    "one more": (lambda c: c["metrics"].update({"round": 99}), "['round'] are missing or unknown"),
    "one less": (lambda c: c["metrics"].pop("loss"), "['loss'] are missing or unknown"),
    "a record too many": (
        lambda c: c.update({"a": MetricRecord({"x": 1.0})}),
        "reply holds ['a', 'arrays', 'metrics']",
    ),
}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (nan, "not finite"),
        (wrong_shape, "expected float32"),
        (explode, "MemoryError: no room"),
        *((spoiled(change), reason) for change, reason in LIES.values()),
    ],
    ids=["nan", "wrong shape", "exception", *LIES],
)
def test_one_bad_client_costs_one_client(tiny, tmp_path, spoil, reason):
    knobs = everybody(tiny)
    result, journal = serve_with(app_with(spoil), knobs, tmp_path)
    line = journal.rounds()[1]
    assert (line["asked"], line["replied"], result["refused"]) == (5, 4, 1)
    assert line["refused"][0]["partition"] == 2
    assert reason in line["refused"][0]["reason"]
    model = journal.checkpoint().model
    for name, expected in mean_of(journal, knobs, without=2).items():
        np.testing.assert_allclose(model[name], expected, rtol=1e-6, atol=1e-7)
    assert [account["partition"] for account in journal.clients()] == [0, 1, 3, 4]


def test_a_round_in_which_nobody_answers_is_survived(tiny, tmp_path):
    answered = []

    def fail(partition: int, reply: Message) -> None:
        answered.append(partition)
        if len(answered) <= 5:
            raise RuntimeError("down")

    result, journal = serve_with(app_with(fail), everybody(tiny, rounds=2), tmp_path)
    assert (result["refused"], result["rounds"]) == (5, 2)
    assert journal.rounds()[1]["train_loss"] is None
    assert journal.rounds()[1]["test_accuracy"] == journal.rounds()[0]["test_accuracy"]
    assert journal.rounds()[2]["replied"] == 5


def test_a_run_in_which_nobody_ever_answers_fails_and_has_no_result(tiny, tmp_path):
    def fail(partition: int, reply: Message) -> None:
        raise RuntimeError("down")

    with pytest.raises(RunFailed, match=r"in 2 rounds.*10 were refused.*client 0: RuntimeError"):
        serve_with(app_with(fail), everybody(tiny, rounds=2), tmp_path)
    assert [line["round"] for line in Journal(tmp_path).rounds()] == [0, 1, 2]
    assert Journal(tmp_path).result() is None


def test_the_journal_accounts_for_every_client(tiny, tmp_path):
    knobs = everybody(tiny, **{"client.epochs": 2})
    _, journal = serve_with(fl.client.app.app, knobs, tmp_path)
    sizes = [len(part) for part in deal(knobs)]
    for account, size in zip(journal.clients(), sizes, strict=True):
        assert account["held"] == size
        assert account["examples"] == 2 * size
        assert account["steps"] == 2 * -(-size // 32)
        assert account["batch_size"] == 32
        assert account["loss"] > 0
        assert account["update_norm"] > 0
    line = journal.rounds()[1]
    assert line["images"] == 2 * 5000
    bytes_of_network = line["bytes_down"] // 5
    assert line["bytes_up"] == 5 * bytes_of_network > 0


def test_the_clients_of_a_round_depend_on_seed_and_round_alone(tiny, tmp_path):
    _, one = serve_with(fl.client.app.app, tiny({"rounds": 3}), tmp_path / "one")
    _, two = serve_with(fl.client.app.app, tiny({"rounds": 3, "recipe": "none"}), tmp_path / "two")
    asked = [[c["partition"] for c in journal.clients()] for journal in (one, two)]
    assert asked[0] == asked[1]
    assert len({tuple(asked[0][i : i + 2]) for i in (0, 2, 4)}) > 1


@pytest.mark.parametrize(
    "rounds_before",
    [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(2, marks=pytest.mark.slow)],
)
def test_resuming_is_as_if_nothing_had_happened_states_included(tiny, tmp_path, rounds_before):
    """The clients' replies depend on how often they were asked, which only their state knows."""
    knobs = tiny({"rounds": 3, "sampling.clients": 3})
    undisturbed, _ = serve_with(app_with(remember=True), knobs, tmp_path / "undisturbed")

    def stop(line: dict) -> None:
        if line["round"] == rounds_before:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serve_with(
            app_with(remember=True), knobs, tmp_path / "stopped", callbacks=[EachRound(stop)]
        )
    resumed, journal = serve_with(app_with(remember=True), knobs, tmp_path / "stopped", resume=True)
    assert resumed["model_sha256"] == undisturbed["model_sha256"]
    assert [line["round"] for line in journal.rounds()] == [0, 1, 2, 3]


def test_replies_are_folded_in_the_order_of_the_requests_whenever_they_come(tiny):
    grid = InlineGrid(tiny())
    nodes = nodes_of(grid, tiny())
    network = fl.training.parameters.build_network(
        tiny(), fl.reproducibility.seeds.torch_stream(1, "init")
    )
    record = records.pack_network(network.state())
    content = RecordDict({"arrays": record, "config": ConfigRecord({"server-round": 1})})
    messages = [Message(content, nodes[p], "train") for p in range(5)]
    replies = list(grid.send_and_receive(messages))
    late = [replies[i] for i in (3, 0, 4, 1)]  # the reply of client 2 never comes
    checked = Replies(record, {node: p for p, node in nodes.items()})
    order = [records.figures(r.content)["partition"] for r in checked.good(late, messages)]
    assert order == [0, 1, 3, 4]
    assert checked.refused[0]["partition"] == 2
    assert "no reply within" in checked.refused[0]["reason"]


def test_batchnorm_s_statistics_are_averaged_and_never_leak(tiny, tmp_path):
    """Two clients, one step each, pixels 10 and 30: the running mean becomes 2, not 1 or 3.9.

    With momentum 0.1, one step moves the first client's running mean from 0 to 1 and the second's
    to 3; their mean is 2. A leak from the first client to the second would give 3.9 and so 2.45.
    """
    network = fl.training.parameters.FlatNetwork(fl.nn.BatchNorm(1), torch.device("cpu"))
    start, after = network.state(), []
    for pixel in (10.0, 30.0):
        network.load(start)
        assert float(network.module.running_mean) == 0.0
        network.module.train()
        network.module(torch.full((4, 1, 2, 2), pixel))
        after.append(network.state())
    strategy = Averaging(Sampler(2, {0: 2, 1: 3}, list, lambda _: None))
    replies = []
    for partition, state in enumerate(after):
        InlineGrid(tiny())
        content = records.train_reply(state, partition, 4, {"loss": 0.0})
        replies.append(Message(content, 2 + partition, "train"))
    mean, _ = strategy.aggregate_train(1, replies)
    assert records.unpack_arrays(mean)["running_mean"].tolist() == pytest.approx([2.0])
    assert records.unpack_arrays(mean)["running_var"].tolist() == pytest.approx([0.9])
    strategy.moments = fl.nn.moments(network.module)  # state.bn=pooled
    mean, _ = strategy.aggregate_train(1, replies)
    assert records.unpack_arrays(mean)["running_mean"].tolist() == pytest.approx([2.0])
    assert records.unpack_arrays(mean)["running_var"].tolist() == pytest.approx([1.9])


def test_bad_wishes_write_nothing(tiny, tmp_path):
    for flat in ({"recipe": "zcswish"}, {"data.name": "nothing"}, {"partition.clients": 6000}):
        with pytest.raises(ConfigError):
            serve_with(fl.client.app.app, tiny(flat), tmp_path / "new")
        assert not (tmp_path / "new").exists()


def test_every_client_and_round_has_its_own_stream(tiny, tmp_path, monkeypatch):
    seen = set()

    made = fl.client.task.batches

    def spy(share, batch_size, epochs, rng, augment):
        seen.add(rng.bit_generator.state["state"]["state"])
        return made(share, batch_size, epochs, rng, augment)

    monkeypatch.setattr(fl.client.task, "batches", spy)
    serve_with(fl.client.app.app, everybody(tiny, rounds=3), tmp_path)
    assert len(seen) == 15


def test_clients_use_one_thread(tiny, tmp_path):
    torch.set_num_threads(2)
    serve_with(fl.client.app.app, everybody(tiny), tmp_path)
    assert torch.get_num_threads() == 1


def scored(monkeypatch, correct) -> None:
    """Let evaluations find these numbers of right answers among 1,000."""

    def figures(evaluation, _):
        return {
            name: {"loss": 1.0, "accuracy": next(correct) / 1000}
            if len(split)
            else {"loss": None, "accuracy": None}
            for name, split in evaluation.splits.items()
        }

    monkeypatch.setattr(fl.training.loop.Evaluation, "figures", figures)


def test_the_best_round_is_the_first_with_the_highest_accuracy(tiny, tmp_path, monkeypatch):
    accuracies = iter([100, 400, 600, 600, 300])
    scored(monkeypatch, accuracies)
    result, _ = serve_with(fl.client.app.app, tiny({"rounds": 4}), tmp_path)
    assert (result["best_accuracy"], result["best_round"]) == (0.6, 2)
    assert (result["final_accuracy"], result["final_loss"]) == (0.3, 1.0)


def test_a_round_counts_steps_and_the_share_of_them_that_was_clipped():
    replies = Replies(ArrayRecord(), {})
    assert (replies.summary()["steps"], replies.summary()["clipped_share"]) == (0, None)
    account = {"single_value_steps": 3, "examples": 5, "held_out": 0}
    shares = {3: 1.0, 1: 0.0}
    replies.accounts = [{**account, "steps": n, "clipped_share": s} for n, s in shares.items()]
    told = replies.summary()
    assert (told["single_value_steps"], told["images"], told["steps"]) == (6, 10, 4)
    assert told["clipped_share"] == 0.75, "of all steps, not the mean of clients"


def test_a_client_without_images_is_told_so(tiny, tmp_path):
    knobs = everybody(tiny, **{"partition.alpha": 0.001, "partition.min-size": 0})
    _, journal = serve_with(fl.client.app.app, knobs, tmp_path)
    reasons = [refusal["reason"] for refusal in journal.rounds()[1]["refused"]]
    sizes = [len(part) for part in deal(knobs)]
    assert len(reasons) == sizes.count(0) > 0
    assert all("holds no images" in reason for reason in reasons)


def test_another_process_that_was_faster_is_noticed(tiny, tmp_path, monkeypatch):
    """It finishes another experiment just before this process has locked the folder."""
    locked = opening.locked

    def slow(folder):
        monkeypatch.setattr(opening, "locked", locked)
        serve_with(fl.client.app.app, tiny({"client.lr": 0.2}), tmp_path / "run")
        return locked(folder)

    monkeypatch.setattr(opening, "locked", slow)
    with pytest.raises(ConfigError, match="holds another experiment"):
        serve_with(fl.client.app.app, tiny(), tmp_path / "run")


def test_a_finished_run_is_told_and_not_touched(tiny, tmp_path):
    result, journal = serve_with(fl.client.app.app, tiny(), tmp_path)
    before = {path: path.stat().st_ino for path in tmp_path.iterdir()}
    lines = []
    again, _ = serve_with(fl.client.app.app, tiny(), tmp_path, callbacks=[EachRound(lines.append)])
    assert (again, lines) == (result, journal.rounds())
    assert {path: path.stat().st_ino for path in tmp_path.iterdir()} == before


def test_the_best_round_is_chosen_on_images_that_nobody_trains_on(tiny, tmp_path, monkeypatch):
    knobs = tiny({"rounds": 3, "data.validation": 0.2})
    kept = validation(knobs)
    assert len(kept) == 1000
    dealt = torch.cat(list(deal(knobs)))
    assert sorted([*dealt.tolist(), *kept.tolist()]) == list(range(5000))
    correct = iter([100, 500, 600, 100, 400, 900, 500, 300])  # test, validation, test, …
    scored(monkeypatch, correct)
    result, journal = serve_with(fl.client.app.app, knobs, tmp_path)
    assert [line["validation_accuracy"] for line in journal.rounds()] == [0.5, 0.1, 0.9, 0.3]
    assert (result["best_round"], result["best_accuracy"]) == (2, 0.4)
    assert result["best_chosen_by"] == "validation_accuracy"


def test_clients_score_networks_on_images_of_their_own(tiny, tmp_path):
    knobs = everybody(tiny, **{"partition.held-out": 0.25, "partition.alpha": 0.1})
    result, journal = serve_with(fl.client.app.app, knobs, tmp_path)
    accounts = journal.clients()
    for account, part in zip(accounts, deal(knobs), strict=True):
        mine = share({"partition-id": account["partition"]}, knobs)
        assert (account["held"], account["held_out"]) == (len(mine.train), len(mine.held_out))
        both = [*mine.train.tolist(), *mine.held_out.tolist()]
        assert sorted(both) == sorted(part.tolist())
        assert account["held_out"] == pytest.approx(len(part) / 4, abs=1)
    line = journal.rounds()[1]
    total = sum(account["held_out"] for account in accounts)
    for name in ("global", "personal"):
        right = sum(account[f"{name}_correct"] for account in accounts)
        assert line[f"{name}_accuracy_held_out"] == right / total
    assert result["personal_accuracy_held_out"] == line["personal_accuracy_held_out"]
    assert line["personal_accuracy_held_out"] > line["global_accuracy_held_out"] + 0.1


def test_feature_noise_reaches_the_inputs_of_later_clients_more(tiny):
    knobs = tiny({"partition.kind": "feature-noise", "partition.noise": 0.5})
    levels = [share({"partition-id": client}, knobs).noise for client in range(5)]
    assert levels == pytest.approx([(0.5 * i / 5) ** 0.5 for i in range(1, 6)])
    assert share({"partition-id": 4}, tiny()).noise == 0


def test_a_round_of_clients_without_images_is_no_mistake(tiny, tmp_path):
    flat = {"partition.alpha": 0.001, "partition.min-size": 0, "partition.clients": 5}
    knobs = tiny({**flat, "sampling.clients": 1, "rounds": 6})
    empty = {client for client, part in enumerate(deal(knobs)) if not len(part)}
    result, journal = serve_with(None, knobs, tmp_path)
    reasons = [refusal for line in journal.rounds() for refusal in line["refused"]]
    assert {refusal["partition"] for refusal in reasons} <= empty
    assert reasons
    assert result["rounds"] == 6
