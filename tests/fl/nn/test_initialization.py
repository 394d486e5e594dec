import pytest
import torch
from torch import nn

from fl.nn.initialization import initialize
from fl.nn.layers.embeddings import PositionEmbedding


def filled(scheme: str, seed: int = 5) -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(16, 64, 3), nn.ReLU(), nn.BatchNorm2d(64), nn.Linear(256, 100))
    initialize(net, scheme, torch.Generator().manual_seed(seed))
    return net


@pytest.mark.parametrize(
    ("scheme", "conv", "classifier"),
    [("torch", 1 / 3, 1 / 3), ("he", 2, 1), ("lecun", 1, 1)],
)
def test_variance_times_fan_in(scheme: str, conv: float, classifier: float) -> None:
    net = filled(scheme)
    # 9216 and 25600 values: the standard error of a variance is 1.5 % and 0.9 %.
    for layer, expected in ((net[0], conv), (net[3], classifier)):
        fan_in = layer.weight[0].numel()
        assert layer.weight.var().item() * fan_in == pytest.approx(expected, rel=0.06)
        assert abs(layer.weight.mean().item()) < 5 * layer.weight.numel() ** -0.5 * fan_in**-0.5


@pytest.mark.parametrize("scheme", ["he", "lecun"])
def test_normal_schemes_have_no_bias_but_tails(scheme: str) -> None:
    net = filled(scheme)
    assert not net[0].bias.any()
    assert not net[3].bias.any()
    assert net[0].weight.abs().max() > 3 * net[0].weight.std(), "not a uniform distribution"


def test_torch_scheme_is_torchs_default_bit_for_bit() -> None:
    ours = filled("torch", seed=7)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        for layer, fresh in ((ours[0], nn.Conv2d(16, 64, 3)), (ours[3], nn.Linear(256, 100))):
            assert torch.equal(layer.weight, fresh.weight)
            assert torch.equal(layer.bias, fresh.bias)


def test_norms_keep_their_constants() -> None:
    norm = filled("he")[2]
    assert torch.equal(norm.weight, torch.ones(64))
    assert torch.equal(norm.bias, torch.zeros(64))


@pytest.mark.parametrize("scheme", ["torch", "he", "lecun"])
def test_embeddings_are_small_under_every_scheme(scheme: str) -> None:
    net = nn.Sequential(PositionEmbedding(50, 200), nn.Linear(2, 3))
    initialize(net, scheme, torch.Generator().manual_seed(1))
    assert net[0].weight.std().item() == pytest.approx(0.02, rel=0.04)  # 10,000 values
    assert abs(net[0].weight.mean().item()) < 5 * 0.02 / 100
    assert net[1].weight.any(), "and the layers are filled, too"
