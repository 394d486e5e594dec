"""Normalizers that see one value a group are refused before training, whoever wrote them."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fl.config import Experiment
from fl.config.parsing import ConfigError
from fl.nn import RECIPES, build, convert, resolve_auto
from fl.nn.foreign.single_values import check_groups
from fl.nn.layers.normalizers.groups import InstanceNorm, TokenNorm, group_norm, layer_norm
from fl.server.app import prepare


class Functional(nn.Module):
    """A stranger's network, which calls a normalizer as a function."""

    def __init__(self, norm: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 8), norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


def after_pixel(norm: nn.Module) -> nn.Module:
    """A network whose normalizer sees 4 channels of 1x1 maps."""
    return nn.Sequential(nn.Conv2d(1, 4, 8), norm)


DEAD = {
    "instance norm of ours": after_pixel(InstanceNorm(4)),
    "instance norm of PyTorch's": after_pixel(nn.InstanceNorm2d(4, track_running_stats=False)),
    "a channel a group": after_pixel(nn.GroupNorm(4, 4)),
    "layer norm of one channel": nn.Sequential(nn.Conv2d(1, 1, 8), layer_norm(1)),
    "token norm of one channel": nn.Sequential(nn.Flatten(2), TokenNorm(1)),
    "layer norm of one value": nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.LayerNorm(1)),
    "rms norm of one value": nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.RMSNorm(1)),
    "a function by places": Functional(lambda x: F.group_norm(x, 4)),
    "a function by names": Functional(lambda x: F.group_norm(input=x, num_groups=4)),
    "PyTorch's instance norm of signals": nn.Sequential(
        nn.Flatten(2), nn.Conv1d(1, 4, 64), nn.InstanceNorm1d(4)
    ),
    "PyTorch's instance norm of volumes": nn.Sequential(
        nn.Unflatten(2, (1, 8)), nn.Conv3d(1, 4, (1, 8, 8)), nn.InstanceNorm3d(4)
    ),
    "PyTorch's instance norm with running statistics": after_pixel(
        nn.InstanceNorm2d(4, track_running_stats=True)
    ),
    "behind a pool": nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.GroupNorm(4, 4)),
    "torch.group_norm": Functional(lambda x: torch.group_norm(x, 4)),
    "torch.layer_norm": Functional(lambda x: torch.layer_norm(x, (1, 1))),
    "a function of layers": Functional(lambda x: F.layer_norm(x, (1, 1))),
}
ALIVE = {
    "two channels a group": after_pixel(nn.GroupNorm(2, 4)),
    "our group norm": after_pixel(group_norm(4)),
    "our layer norm": after_pixel(layer_norm(4)),
    "maps of two pixels": nn.Sequential(nn.Conv2d(1, 4, (8, 7)), InstanceNorm(4)),
    "batch norm": after_pixel(nn.BatchNorm2d(4)),
}


def left_of(network: nn.Module) -> float:
    """How far outputs of two examples are apart, but for the sign of single values."""
    with torch.no_grad():
        one, two = network(torch.ones(2, 1, 8, 8)), network(torch.full((2, 1, 8, 8), 3.0))
    return float((one.abs() - two.abs()).abs().max())


@pytest.mark.parametrize("name", DEAD)
def test_a_normalizer_of_single_values_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ConfigError, match="sees one value a group") as caught:
        check_groups(DEAD[name], (1, 8, 8), "own")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in DEAD if "PyTorch's" not in name])
def test_what_is_refused_tells_no_example_from_another(name: str) -> None:
    assert left_of(DEAD[name]) < 1e-3


@pytest.mark.parametrize("name", ALIVE)
def test_a_normalizer_of_two_values_is_not_refused(name: str) -> None:
    network = ALIVE[name].train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    check_groups(network, (1, 8, 8), "own")
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_strangers_network_is_refused_once_it_has_the_recipe() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    check_groups(network, (1, 8, 8), "own")
    with pytest.raises(ConfigError, match=r"leaves nothing of 1's input, 1 position of 4 channels"):
        convert(network, "instancenorm", shape=(1, 8, 8))


KNOBS = {
    "network.kind": "resnet",
    "network.depth": 18,
    "network.width": 4,
    "network.stem-stride": 4,
    "partition.clients": 2,
    "sampling.clients": 2,
}


def test_a_run_is_refused_before_anything_is_trained_and_a_begun_one_goes_on() -> None:
    knobs = Experiment.from_flat({**KNOBS, "recipe": "instancenorm"})
    with pytest.raises(ConfigError, match=r"recipe=instancenorm: .* maps of 1x1.*stem-stride"):
        prepare(knobs)
    assert prepare(knobs, begun=True).network is not None
    assert prepare(knobs.replace({"network.stem-stride": 2})).network is not None
    assert prepare(knobs.replace({"recipe": "groupnorm"})).network is not None


FITTING = [
    (kind, recipe)
    for recipe in ("instancenorm", "groupnorm")
    for kind in sorted(RECIPES[recipe].fits - {"efficientnet"})
]


@pytest.mark.parametrize(("kind", "recipe"), FITTING)
def test_no_default_is_refused(kind: str, recipe: str) -> None:
    chosen = resolve_auto(Experiment.from_flat({"recipe": recipe, "network.kind": kind}))
    shape = (1, 28, 28)  # of FashionMNIST and of MedMNIST, the smallest
    check_groups(build(chosen.network, recipe, shape, 3, torch.Generator()), shape, recipe)
