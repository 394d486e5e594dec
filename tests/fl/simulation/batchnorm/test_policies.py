"""What becomes of BatchNorm's running statistics, policy by policy, on real rounds."""

import numpy as np
import pytest
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from torch import nn

import fl.client.app
from fl.config.parsing import ConfigError
from fl.data import Dataset, Split, load, share
from fl.messages import client_state, records
from fl.reproducibility.seeds import torch_stream
from fl.server.app import serve
from fl.server.journal import Journal
from fl.simulation import InlineGrid, run
from fl.training import loop, parameters
from fl.training.recalibration import recalibrate
from tests.callbacks import EachRound

POLICIES = ("average", "pooled", "local", "recalibrate", "drop")
STATISTICS = ("running_mean", "running_var")


@pytest.fixture
def batchnorm(tiny):
    """Make BatchNorm experiments of one policy; clients hold few classes each."""

    def make(policy, **flat):
        flat = {key.replace("clients", "sampling.clients"): value for key, value in flat.items()}
        return tiny({"recipe": "batchnorm", "partition.alpha": 0.1, "state.bn": policy, **flat})

    return make


def spied(knobs, folder, **options) -> tuple[dict, Journal, list[dict]]:
    """Run an experiment, and take note of the arrays of every reply."""
    sent: list[dict] = []
    app = ClientApp()

    def noting(answer):
        def noted(message: Message, context: Context) -> Message:
            reply = answer(message, context)
            sent.append(records.unpack_arrays(reply.content["arrays"]))
            return reply

        return noted

    app.train()(noting(fl.client.app.train))
    app.query("recalibrate")(noting(fl.client.app.recalibrate))
    app.query("who_are_you")(fl.client.app.who_are_you)
    journal = Journal(folder)
    result = serve(InlineGrid(knobs, app), knobs, journal, started_by={}, **options)
    return result, journal, sent


def statistics(arrays) -> list[str]:
    return [name for name in arrays if name.endswith(STATISTICS)]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_trains_and_repeats_itself(batchnorm, tmp_path, policy):
    knobs = batchnorm(policy)
    first = run(knobs, Journal(tmp_path / "a"))
    assert first["refused"] == 0
    assert run(knobs, Journal(tmp_path / "b"))["model_sha256"] == first["model_sha256"]


@pytest.mark.parametrize(("policy", "travel"), [(p, p not in ("local", "drop")) for p in POLICIES])
def test_statistics_leave_a_client_only_where_the_policy_says_so(
    batchnorm, tmp_path, policy, travel
):
    _, journal, sent = spied(batchnorm(policy), tmp_path / policy)
    assert sent
    assert all(bool(statistics(arrays)) == travel for arrays in sent)
    assert bool(statistics(journal.checkpoint().model)) == travel


def test_policies_agree_on_the_weights_of_the_first_round(batchnorm, tmp_path):
    """Training normalizes by the batch, so statistics can't touch it before they come back."""
    models = []
    for policy in POLICIES:
        _, journal, _ = spied(batchnorm(policy, rounds=1), tmp_path / policy)
        model = journal.checkpoint().model
        models.append({name: model[name] for name in model.keys() - set(statistics(model))})
    for model in models[1:]:
        assert model.keys() == models[0].keys()
        assert all(np.array_equal(model[name], models[0][name]) for name in model)


def test_pooled_is_average_but_for_the_spread_between_clients(batchnorm, tmp_path):
    _, averaged, sent = spied(batchnorm("average", rounds=1), tmp_path / "average")
    _, pooled, _ = spied(batchnorm("pooled", rounds=1), tmp_path / "pooled")
    before, after = averaged.checkpoint().model, pooled.checkpoint().model
    weights = np.array([line["held"] for line in averaged.clients()], np.float64)
    weights /= weights.sum()
    for name in statistics(before):
        if name.endswith("mean"):
            assert np.array_equal(before[name], after[name])
            continue
        means = np.stack([arrays[name.replace("var", "mean")] for arrays in sent])
        spread = weights @ (means - weights @ means) ** 2
        np.testing.assert_allclose(after[name] - before[name], spread, rtol=1e-4, atol=1e-6)
        assert spread.max() > 0


def test_local_statistics_are_each_client_s_own_and_survive_a_resume(batchnorm, tmp_path):
    """What the shared network makes of held-out images depends on what a client remembers."""
    knobs = batchnorm("local", rounds=5).replace({"partition.held-out": 0.3})
    whole, parts = Journal(tmp_path / "whole"), Journal(tmp_path / "parts")
    run(knobs, whole)

    def stop(line):
        if line["round"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(knobs, parts, callbacks=[EachRound(stop)])
    run(knobs, parts, resume=True)
    scores = [
        [(line["global_correct"], line["personal_correct"]) for line in journal.clients()]
        for journal in (whole, parts)
    ]
    assert scores[0] == scores[1]
    kept = parts.checkpoint().clients
    tensors = [parts.client_state(partition, written)[0] for partition, written in kept.items()]
    assert len(tensors) > 1
    assert len({next(iter(own.values())).tobytes() for own in tensors}) == len(tensors)


def test_a_client_s_reply_does_not_depend_on_who_trained_before_it(batchnorm):
    knobs = batchnorm("local")
    start = parameters.build_network(
        knobs.replace({"state.bn": "drop"}), torch_stream(1, "init")
    ).state()
    replies = []
    for crowd in ([3], [0, 1, 3]):
        grid = InlineGrid(knobs)
        content = records.pack_network(start), {"server-round": 1}
        record = records.RecordDict(
            {"arrays": content[0], "config": records.ConfigRecord(content[1])}
        )
        nodes = list(grid.contexts)
        messages = [Message(record, nodes[p], "train") for p in crowd]
        *_, last = grid.send_and_receive(messages)
        own = client_state.remembered(grid.contexts[nodes[3]].state)
        replies.append({**records.unpack_network(last.content["arrays"]), **own})
    assert replies[0].keys() == replies[1].keys()
    assert all(torch.equal(replies[0][name], replies[1][name]) for name in replies[0])


def measured(knobs, clients, model) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the variance of what reaches the first BatchNorm from some clients."""
    network = parameters.build_network(knobs, torch_stream(1, "init"))
    network.load({name: torch.from_numpy(array) for name, array in model.items()})
    data = load(knobs.data.name)
    held = torch.cat([share({"partition-id": client}, knobs).train for client in clients])
    with torch.no_grad():
        inputs = data.inputs(data.train.images[held])
        seen = network.module.layers[0].conv(inputs).transpose(0, 1).flatten(1).double()
    return seen.mean(1), seen.var(1, correction=0)


def first_statistics(model) -> tuple[torch.Tensor, torch.Tensor]:
    mean, variance = (torch.from_numpy(model[f"layers.0.norm.{name}"]) for name in STATISTICS)
    return mean.double(), variance.double()


def test_recalibrated_statistics_are_those_of_the_clients_images_under_the_new_weights(
    batchnorm, tmp_path
):
    """Checked where nothing is normalized before: at the first layer, against all at once."""
    knobs = batchnorm("recalibrate", rounds=1)
    _, journal, _ = spied(knobs, tmp_path / "run")
    model = journal.checkpoint().model
    clients = [line["partition"] for line in journal.clients()]
    torch.testing.assert_close(
        first_statistics(model), measured(knobs, clients, model), rtol=1e-4, atol=1e-5
    )


def test_statistics_that_can_t_be_used_are_refused_and_cost_only_themselves(batchnorm, tmp_path):
    knobs = batchnorm("recalibrate", rounds=1, clients=5)
    app = ClientApp()
    app.train()(fl.client.app.train)
    app.query("who_are_you")(fl.client.app.who_are_you)

    @app.query("recalibrate")
    def recalibrate(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 1:
            raise RuntimeError("no power")
        reply = fl.client.app.recalibrate(message, context)
        if context.node_config["partition-id"] == 3:
            arrays = records.unpack_arrays(reply.content["arrays"])
            reply.content["arrays"] = records.pack_arrays(
                {n: a * np.nan for n, a in arrays.items()}
            )
        return reply

    journal = Journal(tmp_path)
    serve(InlineGrid(knobs, app), knobs, journal, started_by={})
    line = journal.rounds()[1]
    assert line["replied"] == 5
    reasons = {refusal["partition"]: refusal["reason"] for refusal in line["refused"]}
    assert reasons.keys() == {1, 3}
    assert all(reason.startswith("statistics: ") for reason in reasons.values())
    assert "not finite" in reasons[3]
    model = journal.checkpoint().model
    torch.testing.assert_close(
        first_statistics(model), measured(knobs, [0, 2, 4], model), rtol=1e-4, atol=1e-5
    )


def test_recalibration_takes_noise_as_training_does(batchnorm, tmp_path):
    """The last client is the noisiest, so its first layer sees the largest variance."""
    flat = {"partition.kind": "feature-noise", "partition.noise": 4.0, "sampling.clients": 5}
    knobs = batchnorm("recalibrate", rounds=1).replace(flat)
    _, _, sent = spied(knobs, tmp_path)
    variances = [a["layers.0.norm.running_var"].mean() for a in sent if len(a) == len(sent[-1])]
    assert len(variances) == 5
    assert variances[4] > 1.5 * variances[0]


def test_a_failed_measurement_leaves_nothing_behind(batchnorm):
    network = parameters.build_network(batchnorm("recalibrate"), torch_stream(1, "init"))
    before = network.state()

    def broken():
        raise RuntimeError("no power")
        yield

    with pytest.raises(RuntimeError, match="no power"):
        recalibrate(network, broken())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state().items())
    assert not any(module._forward_pre_hooks for module in network.module.modules())


@pytest.mark.parametrize("policy", ["local", "recalibrate"])
def test_statistics_are_measured_without_dropping_anything(batchnorm, tmp_path, policy):
    noisy = {"network.kind": "resnet", "network.depth": 8, "network.stochastic-depth": 0.5}
    _, journal, _ = spied(batchnorm(policy, rounds=1).replace(noisy), tmp_path)
    line = journal.rounds()[1]
    assert line["replied"] == line["asked"]
    assert line["refused"] == []


def right(network, data, own) -> int:
    """Return how many examples a network gets right."""
    _, (sums,) = loop.evaluate(network, data, own)
    return int(sums[0])


def test_a_client_without_statistics_of_its_own_measures_them_first(batchnorm, tmp_path):
    """Or the shared network would be scored with a mean of 0 and a variance of 1."""
    knobs = batchnorm("local", rounds=1, clients=5).replace({"partition.held-out": 0.3})
    _, journal, _ = spied(knobs, tmp_path / "local")
    data, unmeasured, expected = load(knobs.data.name), [], []
    for line in journal.clients():
        mine = share({"partition-id": line["partition"]}, knobs)
        network = parameters.build_network(knobs, torch_stream(1, "init"))
        own = data.train.only(mine.held_out)
        unmeasured.append(right(network, data, own))
        path = "client", line["partition"], "round", 1
        recalibrate(network, fl.client.task.in_large(knobs, mine, path))
        expected.append(right(network, data, own))
    assert [line["global_correct"] for line in journal.clients()] == expected
    assert expected != unmeasured


def test_without_saved_statistics_a_local_run_is_not_resumed(batchnorm, tmp_path, monkeypatch):
    """As under `flwr run`, where Flower keeps clients' states and forgets them with the run."""
    monkeypatch.setattr(InlineGrid, "changed_states", lambda _: {})
    knobs = batchnorm("local", rounds=2)

    def stop(line):
        if line["round"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(knobs, Journal(tmp_path), callbacks=[EachRound(stop)])
    with pytest.raises(ConfigError, match="has no clients' states"):
        run(knobs, Journal(tmp_path), resume=True)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_request_without_a_weight_is_an_error_under_every_policy(batchnorm, policy):
    """Nothing but a client's own statistics may be missing from what it is sent."""
    knobs = batchnorm(policy)
    grid = InlineGrid(knobs)
    state = parameters.build_network(knobs, torch_stream(1, "init")).state()
    arrays = records.pack_network({n: t for n, t in state.items() if n != "layers.0.conv.weight"})
    content = records.RecordDict(
        {"arrays": arrays, "config": records.ConfigRecord({"server-round": 1})}
    )
    (reply,) = grid.send_and_receive([Message(content, next(iter(grid.contexts)), "train")])
    assert "layers.0.conv.weight" in reply.error.reason


def test_batches_of_an_evaluation_are_spread_over_all_classes():
    """Under `drop` a batch of one class would tell BatchNorm which class it is."""
    labels = torch.arange(600) // 200
    split = Split(labels.to(torch.uint8).reshape(600, 1, 1, 1), labels)
    data = Dataset("x", split, split, ("a", "b", "c"), "", "")
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self, inputs):
            seen.append(inputs.flatten().unique(return_counts=True)[1].tolist())
            return inputs.flatten(1) * self.weight

    loop.evaluate(parameters.FlatNetwork(Spy(), torch.device("cpu")), data, split)
    assert seen.pop(0) == [1]  # how large its layers' outputs are is looked at once
    assert len(seen) == 3
    assert all(len(counts) == 3 and max(counts) - min(counts) <= 1 for counts in seen)


@pytest.mark.parametrize("recipe", ["none", pytest.param("zc-swish", marks=pytest.mark.slow)])
def test_networks_without_batchnorm_do_not_mind_the_policy(tiny, tmp_path, recipe):
    results = [
        run(tiny({"recipe": recipe, "state.bn": policy}), Journal(tmp_path / policy))
        for policy in POLICIES
    ]
    assert len({result["model_sha256"] for result in results}) == 1


ENGINES = {
    "sequential": {"engine": "sequential"},
    "vectorized": {"engine": "vectorized", "vectorized.level": "eager"},
    "traced": {"engine": "vectorized", "vectorized.level": "traced"},
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("policy", ["average", "pooled"])
def test_two_clients_begin_afresh_and_both_count(batchnorm, tmp_path, policy, engine):
    """After a step each: a tenth of what each has seen, and between clients what the policy says.

    Frameworks have been found that take the first client's statistics, none, or let those of one
    client be where the next begins.
    """
    knobs = batchnorm(policy, rounds=1, clients=2, **ENGINES[engine])
    knobs = knobs.replace({"partition.clients": 2, "client.batch-size": 5000})
    journal = Journal(tmp_path / "run")
    run(knobs, journal)
    held = torch.tensor([len(share({"partition-id": k}, knobs).train) for k in (0, 1)]).double()
    initial = parameters.build_network(knobs, torch_stream(1, "init")).state()
    start = {name: tensor.numpy() for name, tensor in initial.items()}
    seen = [measured(knobs, [k], start) for k in (0, 1)]
    means = torch.stack([0.1 * mean for mean, _ in seen])
    values = held * (load(knobs.data.name).shape[1] // 2) ** 2  # behind a stride of 2
    variances = torch.stack(
        [0.9 + 0.1 * v * n / (n - 1) for (_, v), n in zip(seen, values, strict=True)]
    )
    weights = (held / held.sum()).unsqueeze(1)
    mean, variance = (weights * means).sum(0), (weights * variances).sum(0)
    if policy == "pooled":
        variance += (weights * (means - mean) ** 2).sum(0)
    found = first_statistics(journal.checkpoint().model)
    torch.testing.assert_close(found, (mean, variance), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(means[0], means[1], rtol=0.01)
