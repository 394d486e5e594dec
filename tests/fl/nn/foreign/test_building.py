"""Networks from a user's file, from the knobs to bytes."""

import json
from pathlib import Path

import pytest
import torch

from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.reproducibility.seeds import torch_stream
from fl.server.journal import Journal
from fl.simulation import run
from fl.training.parameters import build_network

SOURCE = '''
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    """With functions that draw or note down, where it is asked to."""

    def __init__(self, shape, classes, width: int = 4, drop: float = 0.0, counts: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(shape[0], width, 3, stride=2, bias=False)
        self.bn, self.act = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        self.fc = nn.Linear(width, classes)
        self.drop, self.counts, self.calls = drop, counts, 0

    def forward(self, x):
        x = self.act(self.bn(self.conv(x))).mean((2, 3))
        if self.counts:
            self.calls += 1
            x = x / self.calls
        return self.fc(F.dropout(x, self.drop) if self.drop else x)


def frozen(shape, classes):
    net = Net(shape, classes)
    net.conv.weight.requires_grad_(False)
    return net


def branches(shape, classes):
    class Branch(Net):
        def forward(self, x):
            return super().forward(x if x.sum() > 0 else -x)

    return Branch(shape, classes)


class ScaledStdConv2d(nn.Conv2d):
    """A convolution by the name of timm's, in whose place a recipe puts a norm, too."""


def scaled(shape, classes):
    net = Net(shape, classes)
    net.conv = ScaledStdConv2d(shape[0], 4, 3, stride=2, bias=False)
    return net


def nothing(shape, classes):
    return None


def narrow(shape, classes):
    return Net(shape, classes + 1)


def wrong(shape, classes):
    return nn.Linear(shape[0], classes).missing


def lazy(shape, classes):
    return nn.LazyLinear(classes)
'''


@pytest.fixture
def mine(tmp_path, monkeypatch, tiny):
    """Make experiments with a network from a file of a user's."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(SOURCE, encoding="utf-8")

    def make(name: str = "Net", **flat) -> Experiment:
        knobs = {"network.kind": f"mine.py:{name}", "network.depth": "auto"}
        return tiny({**knobs, "network.width": "auto", **flat})

    return make


def test_its_weights_are_a_function_of_the_seed(mine) -> None:
    before = torch.get_rng_state()
    knobs = mine()
    first, again = (build_network(knobs, torch_stream(1, "init")).weights for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, build_network(knobs, torch_stream(2, "init")).weights)
    assert torch.equal(torch.get_rng_state(), before)
    assert (knobs.recipe, mine(recipe="none").recipe) == ("own", "none")


@pytest.mark.parametrize("name", ["Net", "scaled"])
def test_recipes_share_the_weights_of_its_layers(mine, name) -> None:
    """Ours where the recipe draws them, its own where it does; whatever a layer's name becomes."""
    for init in ("he", "own"):
        found = []
        for recipe in ("groupnorm", "none", "ws-groupnorm"):
            knobs = mine(name, recipe=recipe, **{"network.init": init})
            state = build_network(knobs, torch_stream(1, "init")).state()
            named = {key.replace("conv.conv", "conv"): value for key, value in state.items()}
            found.append([named[f"{layer}.weight"] for layer in ("conv", "fc")])
        for other in found[1:]:
            assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"network.options.drop": 0.5, "recipe": "salunet"}, {}, {"recipe": "salunet"}],
)
def test_workers_train_the_same_bytes(mine, tmp_path, options) -> None:
    knobs = mine(engine="sequential", **options)
    one = run(knobs, Journal(tmp_path / "one"))
    two = run(knobs, Journal(tmp_path / "two"), workers=2)
    assert one["model_sha256"] == two["model_sha256"]
    other = run(knobs.replace({"seed": 2}), Journal(tmp_path / "other"))
    assert other["model_sha256"] != one["model_sha256"]


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("Net", {"network.options.drop": 0.5}, "random operation"),
        ("Net", {"network.options.counts": True}, "calls changes while the network runs"),
        ("branches", {}, "data-dependent control flow"),
    ],
)
def test_what_lanes_can_t_train_is_trained_alone(mine, tmp_path, name, options, reason) -> None:
    knobs = mine(name, **options)
    run(knobs, Journal(tmp_path / "run"))
    told = json.loads((tmp_path / "run" / "experiment.json").read_text(encoding="utf-8"))
    why = next(part["why"] for part in told.values() if isinstance(part, dict) and "why" in part)
    assert reason in why
    with pytest.raises(ConfigError, match=f"engine=vectorized: .*{reason}"):
        run(knobs.replace({"engine": "vectorized"}), Journal(tmp_path / "lanes"))


def test_lanes_train_what_they_can(mine, tmp_path) -> None:
    lanes = {"engine": "vectorized", "vectorized.lanes": 2, "vectorized.level": "eager"}
    found = [
        run(mine(**knobs), Journal(tmp_path / knobs["engine"]))["final_loss"]
        for knobs in (lanes, {"engine": "sequential"})
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_what_is_frozen_stays(mine, tmp_path) -> None:
    knobs = mine("frozen", **{"client.weight-decay": 0.1})
    start = build_network(knobs, torch_stream(knobs.seed, "init")).state()
    run(knobs, journal := Journal(tmp_path / "run"))
    model = journal.checkpoint().model
    torch.testing.assert_close(torch.tensor(model["conv.weight"]), start["conv.weight"])
    assert not torch.equal(torch.tensor(model["fc.weight"]), start["fc.weight"])


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("nothing", {}, "returns NoneType, expected torch.nn.Module"),
        ("narrow", {}, r"returns \(2, 11\) for inputs .* \(batch, classes\) = \(2, 10\)"),
        ("wrong", {}, r"mine\.py:\d+: AttributeError: .*missing"),
        ("lazy", {}, "weight is lazy"),
        ("Net", {"network.options.wdth": 3}, "did you mean width"),
        ("Net", {"network.depth": 3}, "network.depth=3 is not for network.kind=mine.py:Net"),
        ("Net", {"recipe": "nf"}, "recipe=nf changes how branches are merged"),
        ("Net", {"recipe": "mine.py:Net"}, "is a type, expected an fl.Recipe"),
    ],
)
def test_a_mistake_is_one_line(mine, name, options, line) -> None:
    with pytest.raises(ConfigError, match=line) as found:
        build_network(mine(name, **options), torch_stream(1, "init"))
    assert "\n" not in str(found.value)


def test_what_is_for_one_s_own_network_is_not_for_ours(tiny) -> None:
    for knobs in ({"recipe": "own"}, {"network.init": "own"}):
        with pytest.raises(ConfigError, match="is for a network of your own"):
            build_network(tiny(knobs), torch_stream(1, "init"))
