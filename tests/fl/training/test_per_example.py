"""Gradients that are clipped example by example: laws, both engines, and who is refused."""

import pytest
import torch
from torch import nn

from fl.config import Client, Privacy
from fl.config.parsing import ConfigError
from fl.data import Form
from fl.nn import build, resolve_auto
from fl.reproducibility.seeds import torch_stream
from fl.server.app import prepare, serve
from fl.server.journal import Journal
from fl.simulation.engine import choose
from fl.simulation.grid import InlineGrid
from fl.simulation.run import run as run_simulation
from fl.tasks import PLAIN
from fl.training.loop import train
from fl.training.parameters import FlatNetwork
from fl.training.per_example import PerExample, check_examples_are_alone, noise_of
from tests.smallest import SMALLEST

CPU, FORM = torch.device("cpu"), Form((1, 8, 8), 3)
PLAIN_STEP = Client(lr=1.0, clip="none")
PRIVATE = {"privacy.per-example-clip": 0.5, "privacy.per-example-noise": 0.3}


def flat_network(recipe: str = "zc-swish") -> FlatNetwork:
    generator = torch.Generator().manual_seed(0)
    return FlatNetwork(build(SMALLEST["plainnet"], recipe, (1, 8, 8), 3, generator).double(), CPU)


def batch(size: int, seed: int = 1):
    g = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, 1, 8, 8, generator=g, dtype=torch.float64)
    return inputs, torch.randint(3, (size,), generator=g)


def trained(data, client=PLAIN_STEP, clip=None, noise=0.0, correct=None, seed=0):
    """Return the weights before and after, as (start, end)."""
    network = flat_network()
    start, mean = network.weights.clone(), PLAIN.mean
    if clip:
        privacy = Privacy(per_example_clip=clip, per_example_noise=noise)
        generator = torch.Generator().manual_seed(seed)
        mean = PerExample(PLAIN.mean, privacy, generator if noise else None)
    train(network, data, client, correct, mean)
    return start, network.weights


def test_a_batch_of_one_is_clipped_as_client_clip_does_to_the_byte():
    data = [batch(1, seed) for seed in range(3)]
    _, known = trained(data, Client(lr=1.0, clip="norm:0.05"))
    _, found = trained(data, clip=0.05)
    assert torch.equal(found, known)


def test_a_clip_that_nothing_reaches_and_no_noise_are_plain_sgd():
    data = [batch(5), batch(2, 2)]
    _, known = trained(data)
    start, found = trained(data, clip=1e6)
    torch.testing.assert_close(found, known, rtol=1e-9, atol=1e-12)
    assert not torch.equal(found, start)


def test_a_step_is_the_mean_of_each_example_s_clipped_gradient():
    inputs, labels = batch(6)
    alone = []
    for one in range(6):
        start, end = trained([(inputs[one : one + 1], labels[one : one + 1])])
        alone.append(start - end)
    norms = sorted(float(g.norm()) for g in alone)
    bound = (norms[2] + norms[3]) / 2  # half of them are clipped
    wanted = torch.stack([g * min(1.0, bound / float(g.norm())) for g in alone]).mean(0)
    start, end = trained([(inputs, labels)], clip=bound)
    torch.testing.assert_close(start - end, wanted, rtol=1e-4, atol=1e-9)


def test_replacing_one_example_moves_a_step_by_2c_over_the_batch_at_most():
    inputs, labels = batch(4)
    ends = []
    for other in range(2, 30):
        strange, label = batch(1, other)
        mixed = torch.cat([inputs[:3], 100 * strange]), torch.cat([labels[:3], label])
        ends.append(trained([mixed], clip=0.1)[1])
    apart = max(float((a - b).norm()) for a in ends for b in ends)
    assert 0.1 / 4 < apart <= 2 * 0.1 / 4 * (1 + 1e-9)


def test_the_noise_has_the_deviation_that_is_accounted_for_and_is_over_the_batch():
    data = [batch(8)]
    _, exact = trained(data, clip=0.5)
    drawn = torch.cat([trained(data, clip=0.5, noise=4.0, seed=s)[1] - exact for s in range(30)])
    assert float(drawn.std()) == pytest.approx(4.0 * 0.5 / 8, rel=0.03)
    assert abs(float(drawn.mean())) < 5 * float(drawn.std()) / len(drawn) ** 0.5


def test_a_strategy_corrects_after_the_clip_and_the_noise():
    data = [batch(3)]
    start, bare = trained(data, clip=1e-3, noise=2.0)

    def push(gradient, weights, start) -> None:
        gradient.add_(1.0)

    _, pushed = trained(data, clip=1e-3, noise=2.0, correct=push)
    torch.testing.assert_close(bare - pushed, torch.ones_like(start), rtol=1e-9, atol=1e-9)


class Sorting(nn.Module):
    """A stranger's network: an example's output depends on the others of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(64, 3)

    def forward(self, x):
        return self.classifier(x.flatten(1) - x.flatten(1).mean(0))


class Counting(nn.Module):
    """A stranger's network that notes down what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(64, 3)
        self.register_buffer("seen", torch.zeros(64))

    def forward(self, x):
        self.seen.lerp_(x.detach().flatten(1).mean(0), 0.1)
        return self.classifier(x.flatten(1))


@pytest.mark.parametrize(
    ("module", "words"),
    [(Sorting(), "depends on the others of its batch"), (Counting(), "notes down in seen")],
)
def test_a_stranger_s_network_whose_examples_see_each_other_is_refused(module, words):
    network = FlatNetwork(module, CPU, foreign=True)
    before = network.state()
    with pytest.raises(ConfigError, match=words):
        check_examples_are_alone(network, FORM)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state().items())


def test_batchnorm_is_refused_before_anything_is_written_and_others_are_not(tiny, tmp_path):
    for policy in ("average", "local", "drop"):
        knobs = tiny({**PRIVATE, "recipe": "batchnorm", "state.bn": policy})
        with pytest.raises(ConfigError, match="take a recipe without BatchNorm"):
            serve(InlineGrid(knobs), knobs, Journal(tmp_path / "run"), started_by={})
        assert not (tmp_path / "run").exists()
    for recipe in ("groupnorm", "zc-swish", "salunet"):
        prepare(tiny({**PRIVATE, "recipe": recipe, "network.dropout": 0.2}))


def test_noise_is_a_function_of_seed_client_and_round_and_system_s_of_nothing(tiny, tmp_path):
    def model(name, **flat):
        knobs = tiny({"rounds": 1, "partition.clients": 50, **PRIVATE, **flat})
        return serve(InlineGrid(knobs), knobs, Journal(tmp_path / name), started_by={})

    first, again = model("first"), model("again")
    assert first["model_sha256"] == again["model_sha256"]
    assert first["privacy"][0]["epsilon"] > 0
    other = model("system", **{"privacy.noise-from": "system"})["model_sha256"]
    assert other != first["model_sha256"]


@pytest.mark.slow
def test_lanes_end_where_clients_alone_end_noise_and_all(tiny, tmp_path):
    flat = {"client.batch-size": 16, "partition.clients": 50, "sampling.clients": 4, **PRIVATE}
    flat |= {"strategy.kind": "fedprox", "strategy.mu": 0.1, "client.momentum": 0.9}
    models = {}
    for engine in ("sequential", "vectorized"):
        knobs = tiny({**flat, "engine": engine})
        journal = Journal(tmp_path / engine)
        run_simulation(knobs, journal, workers=1)
        models[engine] = journal.network("model.safetensors")[0]
    for name, tensor in models["sequential"].items():
        found, known = torch.as_tensor(models["vectorized"][name]), torch.as_tensor(tensor)
        torch.testing.assert_close(found, known, rtol=1e-3, atol=1e-5)


def test_lanes_are_eager_and_say_so_whatever_level_is_asked_for(tiny):
    asked = {"engine": "vectorized", "vectorized.level": "native", "sampling.clients": 4}
    choice = choose(prepare(tiny({**asked, **PRIVATE})))
    assert choice.knobs.vectorized.level == "eager"
    assert "gradients of single examples have no other level" in choice.why


def test_noise_without_a_clip_is_one_line_and_nothing_clips_twice(tiny):
    with pytest.raises(ConfigError, match="needs gradients that are clipped"):
        tiny({"privacy.per-example-noise": 1.0})
    assert resolve_auto(tiny(PRIVATE)).client.clip == "none"
    assert resolve_auto(tiny()).client.clip == "norm:5"


def test_noise_is_the_same_in_both_precisions():
    privacy = Privacy(per_example_clip=2.0, per_example_noise=1.5)
    like = torch.zeros(10)
    low = noise_of(privacy, torch_stream(1, "a"), like)
    high = noise_of(privacy, torch_stream(1, "a"), like.double())
    assert high.dtype == torch.float64
    torch.testing.assert_close(low.double(), high, rtol=1e-6, atol=0)
